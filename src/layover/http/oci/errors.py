"""Errors in the specification's form (distribution-spec v1.1.1, "Error Codes")."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

from starlette.responses import JSONResponse, Response

from layover.errors import LayoverError, StorageFull, StorageUnavailable
from layover.http.oci.ranges import RangeUnsatisfiable
from layover.identity.issuer_keys import IssuerUnavailable
from layover.identity.models import ActionDenied, ProjectUnknown, Unauthenticated
from layover.identity.throttle import TooManyAttempts
from layover.oci.digest import InvalidDigest
from layover.oci.manifests import InvalidManifest
from layover.oci.names import InvalidRepositoryName, InvalidTag
from layover.redaction import redact
from layover.registry.models import (
    BlobInUse,
    BlobUnknown,
    BuildOver,
    DigestMismatch,
    Gone,
    ManifestBlobUnknown,
    ManifestInUse,
    ManifestTooLarge,
    ManifestUnknown,
    QuotaExceeded,
    RegistryError,
    TagProtected,
    UploadBusy,
    UploadOutOfOrder,
    UploadTruncated,
    UploadUnknown,
)

# A manifest may name thousands.
_MAX_MISSING = 100


class InvalidRequest(RegistryError):
    """A header or a query parameter is missing or malformed."""


class UserNameRefused(RegistryError):
    """A login with a user name that no token goes with.

    It is told as any login that failed: of a 401 podman, skopeo and Docker show the sentence, and
    of a 400 podman 4.3 and skopeo 1.9 the number.
    """

    def __init__(self, user_name: str) -> None:
        super().__init__(f"the user name has to be {user_name}, with a token as password")


class Unsupported(RegistryError):
    """The registry has no such endpoint, or it does not take the method."""

    def __init__(self, method: str, path: str, allowed: frozenset[str]) -> None:
        super().__init__(f"no {method} {path[:300]!r} in this registry")
        self.method, self.path, self.allowed = method, path, allowed


class TooManyTags(RegistryError):
    """A manifest is pushed with more tags at once than we take."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"a manifest is pushed with {limit} tags at most: push the others later")
        self.limit = limit


class ScopeInsufficient(RegistryError):
    """The registry token was not got for this; the client gets another one."""

    def __init__(self, repository: str, action: str) -> None:
        super().__init__(f"this registry token does not cover {action} on {repository}")
        self.repository, self.action = repository, action


@dataclass(frozen=True, slots=True)
class OciError:
    """How an error is told: its status and the specification's code."""

    status: HTTPStatus
    code: str


# The specification has no code of its own for a 416, a conflict or a full disk.
OCI_ERRORS: Mapping[type[LayoverError], OciError] = {
    ActionDenied: OciError(HTTPStatus.FORBIDDEN, "DENIED"),
    BlobInUse: OciError(HTTPStatus.CONFLICT, "DENIED"),
    BlobUnknown: OciError(HTTPStatus.NOT_FOUND, "BLOB_UNKNOWN"),
    BuildOver: OciError(HTTPStatus.FORBIDDEN, "DENIED"),
    DigestMismatch: OciError(HTTPStatus.BAD_REQUEST, "DIGEST_INVALID"),
    InvalidDigest: OciError(HTTPStatus.BAD_REQUEST, "DIGEST_INVALID"),
    InvalidManifest: OciError(HTTPStatus.BAD_REQUEST, "MANIFEST_INVALID"),
    InvalidRepositoryName: OciError(HTTPStatus.BAD_REQUEST, "NAME_INVALID"),
    InvalidRequest: OciError(HTTPStatus.BAD_REQUEST, "UNSUPPORTED"),
    InvalidTag: OciError(HTTPStatus.BAD_REQUEST, "MANIFEST_INVALID"),
    IssuerUnavailable: OciError(HTTPStatus.SERVICE_UNAVAILABLE, "UNKNOWN"),
    ManifestBlobUnknown: OciError(HTTPStatus.BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN"),
    ManifestInUse: OciError(HTTPStatus.CONFLICT, "DENIED"),
    ManifestTooLarge: OciError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "SIZE_INVALID"),
    ManifestUnknown: OciError(HTTPStatus.NOT_FOUND, "MANIFEST_UNKNOWN"),
    ProjectUnknown: OciError(HTTPStatus.NOT_FOUND, "NAME_UNKNOWN"),
    # Clients tell a denial's message and do not try again, as they do after a 413, 429 or 507.
    QuotaExceeded: OciError(HTTPStatus.FORBIDDEN, "DENIED"),
    RangeUnsatisfiable: OciError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "SIZE_INVALID"),
    ScopeInsufficient: OciError(HTTPStatus.UNAUTHORIZED, "UNAUTHORIZED"),
    StorageFull: OciError(HTTPStatus.INSUFFICIENT_STORAGE, "UNKNOWN"),
    StorageUnavailable: OciError(HTTPStatus.SERVICE_UNAVAILABLE, "UNKNOWN"),
    TagProtected: OciError(HTTPStatus.FORBIDDEN, "DENIED"),
    TooManyAttempts: OciError(HTTPStatus.TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
    TooManyTags: OciError(HTTPStatus.REQUEST_URI_TOO_LONG, "UNSUPPORTED"),
    Unauthenticated: OciError(HTTPStatus.UNAUTHORIZED, "UNAUTHORIZED"),
    Unsupported: OciError(HTTPStatus.METHOD_NOT_ALLOWED, "UNSUPPORTED"),
    UploadBusy: OciError(HTTPStatus.CONFLICT, "BLOB_UPLOAD_INVALID"),
    UploadOutOfOrder: OciError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
    UploadTruncated: OciError(HTTPStatus.BAD_REQUEST, "SIZE_INVALID"),
    UploadUnknown: OciError(HTTPStatus.NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
    UserNameRefused: OciError(HTTPStatus.UNAUTHORIZED, "UNAUTHORIZED"),
}


def error_response(error: LayoverError, headers: Mapping[str, str] | None = None) -> Response:
    """The response that tells `error`; its type stands in OCI_ERRORS."""
    told = OCI_ERRORS[type(error)]
    return error_body(
        told, redact(str(error)), {**_facts(error), **(headers or {})}, _detail(error)
    )


def _facts(error: LayoverError) -> Mapping[str, str]:
    """What stands in the headers of an error (RFC 9110, sections 15.5.6 and 15.5.17; RFC 6585,
    section 4)."""
    match error:
        case Unsupported():
            return {"Allow": ", ".join(sorted(error.allowed))}
        case RangeUnsatisfiable():
            return {"Content-Range": f"bytes */{error.size_bytes}"}
        case TooManyAttempts():
            return {"Retry-After": str(error.retry_after_seconds)}
        case _:
            return {}


def _detail(error: LayoverError) -> Mapping[str, object] | None:
    """What a program may want to know of an error, for those who see the project."""
    match error:
        case ManifestUnknown(gone=Gone() as gone):
            return {"deletedAt" if gone.is_deleted else "expiredAt": rfc3339(gone.at)}
        case ManifestBlobUnknown():
            return {"missing": [str(digest) for digest in error.missing[:_MAX_MISSING]]}
        case QuotaExceeded():
            return {"usedBytes": error.used_bytes, "limitBytes": error.limit_bytes}
        case DigestMismatch():
            return {"expected": str(error.expected), "actual": str(error.actual)}
        case _:
            return None


def rfc3339(time: datetime) -> str:
    """A UTC time to the second, as RFC 3339 writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def error_body(
    told: OciError,
    message: str,
    headers: Mapping[str, str] | None = None,
    detail: Mapping[str, object] | None = None,
) -> Response:
    """A response in the specification's error form."""
    return JSONResponse(
        {"errors": [{"code": told.code, "message": message, "detail": detail}]},
        told.status,
        headers=dict(headers or {}),
    )
