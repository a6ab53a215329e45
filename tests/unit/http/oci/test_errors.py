import json

import pytest

# Every module that raises errors at the registry's clients is imported, so that its leaves exist.
from layover.errors import LayoverError, StorageError, StorageUnavailable
from layover.http.oci import routes
from layover.http.oci.errors import OCI_ERRORS, Unsupported, error_response
from layover.http.oci.ranges import RangeUnsatisfiable
from layover.identity.models import IdentityError, ManagementError
from layover.oci import digest, manifests, names
from layover.registry.models import RegistryError

# distribution-spec v1.1.1, "Error Codes", and distribution's UNKNOWN.
CODES = {
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
    "UNKNOWN",
}


def leaf_classes(base: type[LayoverError]) -> set[type[LayoverError]]:
    subclasses = base.__subclasses__()
    if not subclasses:
        return {base}
    return set().union(*(leaf_classes(subclass) for subclass in subclasses))


@pytest.mark.parametrize("base", [RegistryError, IdentityError, StorageError])
def test_no_error_reaches_a_client_unmapped(base: type[LayoverError]) -> None:
    assert routes
    assert leaf_classes(base) - leaf_classes(ManagementError) <= set(OCI_ERRORS)


def test_no_error_of_the_types_that_paths_and_bodies_are_read_into_is_unmapped() -> None:
    raised = {
        value
        for module in (digest, manifests, names)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, LayoverError) and value is not LayoverError
    }
    assert len(raised) == 4
    assert raised <= set(OCI_ERRORS)


def test_every_code_is_the_specifications() -> None:
    assert {told.code for told in OCI_ERRORS.values()} <= CODES


def test_an_error_is_told_in_the_specifications_form() -> None:
    response = error_response(StorageUnavailable())
    assert response.status_code == 503
    assert json.loads(bytes(response.body)) == {
        "errors": [{"code": "UNKNOWN", "message": str(StorageUnavailable()), "detail": None}]
    }


def test_a_refused_method_comes_with_those_that_are_allowed() -> None:
    response = error_response(Unsupported("POST", "/v2/", frozenset({"HEAD", "GET"})))
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")


def test_an_unsatisfiable_range_comes_with_the_blobs_size() -> None:
    response = error_response(RangeUnsatisfiable(10))
    assert (response.status_code, response.headers["Content-Range"]) == (416, "bytes */10")
