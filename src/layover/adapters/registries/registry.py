"""Another registry, as one push sees it."""

import contextlib
from http import HTTPStatus
from urllib.parse import urlencode

import httpx

from layover.adapters.registries.answers import Answer
from layover.adapters.registries.requests import Requests
from layover.adapters.registries.retries import Passing, Time
from layover.adapters.registries.schemes import Schemes
from layover.adapters.registries.uploads import CHUNK_BYTES, Session, Upload
from layover.oci.digest import Digest, InvalidDigest
from layover.oci.manifests import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    OCI_INDEX,
    OCI_MANIFEST,
)
from layover.oci.names import Reference, RepositoryName
from layover.oci.references import Place
from layover.outbound.rules import OutboundRules
from layover.promotion.models import RegistryRefused, RegistryUnauthorized, TransferError
from layover.promotion.ports import AuthorizationOf, ReadFrom, Registry, Sent

# What registries take at most; a tag that names more than that names nothing of ours.
_MAX_MANIFEST_BYTES = 4 * 1024 * 1024

_ACCEPTED = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_MANIFEST))
# Some know no HEAD for manifests.
_NO_HEAD = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.METHOD_NOT_ALLOWED, 501})


class HttpRegistries:
    """Reaches other registries over one client, which whoever made it closes."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        rules: OutboundRules,
        *,
        time: Time | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """`rules` are those that the client dials by."""
        self._client, self._rules = client, rules
        self._time, self._chunk_bytes = time or Time(), chunk_bytes

    def open(self, authorization: AuthorizationOf) -> Registry:
        schemes = Schemes(self._client, self._rules)
        requests = Requests(self._client, schemes, authorization, self._time)
        return HttpRegistry(requests, self._chunk_bytes)


class HttpRegistry:
    """The registries of one push; it remembers what it learned of each."""

    def __init__(self, requests: Requests, chunk_bytes: int) -> None:
        self._requests, self._chunk_bytes = requests, chunk_bytes
        # Where an upload was left when it could not go on: with another authorization it may.
        self._left: dict[tuple[Place, Digest], Session] = {}
        self._without_chunks: set[str] = set()

    async def has_blob(self, place: Place, digest: Digest, size_bytes: int) -> bool:
        answer = await self._requests.ask(place, "HEAD", f"blobs/{digest}")
        if answer.status == HTTPStatus.NOT_FOUND or (answer.is_foreign and not answer.is_success):
            return False  # A store that takes no HEAD says nothing of the blob.
        if answer.status != HTTPStatus.OK:
            raise _refused(place, f"a look for blob {digest}", answer)
        length = answer.headers.get("content-length", "")
        return length == str(size_bytes) and not answer.denies(digest)

    async def mount(self, place: Place, digest: Digest, source: RepositoryName) -> bool:
        query = urlencode({"mount": str(digest), "from": str(source)})
        try:
            answer = await self._requests.ask(place, "POST", f"blobs/uploads/?{query}")
        except RegistryUnauthorized:
            # Of the source, perhaps, which needs not be told: the upload asks for its own.
            return False
        if answer.status == HTTPStatus.CREATED:
            return not answer.denies(digest)
        if answer.status == HTTPStatus.ACCEPTED and answer.location is not None:
            await self._close(place, answer.location)
        return False

    async def _close(self, place: Place, session: httpx.URL) -> None:
        """End a session, as far as one try does: the registry itself ends it later."""
        with contextlib.suppress(Passing, TransferError):
            await self._requests.ask_once(place, "DELETE", session)

    async def send_blob(
        self, place: Place, digest: Digest, size_bytes: int, read: ReadFrom, sent: Sent
    ) -> None:
        async def has_blob() -> bool:
            return await self.has_blob(place, digest, size_bytes)

        upload = Upload(
            self._requests,
            place,
            digest,
            size_bytes,
            read,
            sent,
            has_blob,
            chunk_bytes=self._chunk_bytes,
            takes_chunks=place.host not in self._without_chunks,
            session=self._left.pop((place, digest), None),
        )
        try:
            await upload.run()
        except RegistryRefused:
            raise
        except BaseException:
            if upload.session is not None:
                self._left[place, digest] = upload.session
            raise
        finally:
            if not upload.takes_chunks:
                self._without_chunks.add(place.host)

    async def find_manifest(self, place: Place, reference: Reference) -> Digest | None:
        headers = {"accept": _ACCEPTED}
        answer = await self._requests.ask(place, "HEAD", f"manifests/{reference}", headers)
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        if answer.is_success:
            found = _digest(answer, reference)
            if found is not None:
                return found
        elif answer.status not in _NO_HEAD and not answer.is_foreign:
            raise _refused(place, f"a look for manifest {reference}", answer)
        body = await self.read_manifest(place, reference)
        if body is None:
            return None
        algorithm = reference.algorithm if isinstance(reference, Digest) else "sha256"
        return Digest.of(body, algorithm)

    async def read_manifest(self, place: Place, reference: Reference) -> bytes | None:
        headers = {"accept": _ACCEPTED}
        answer = await self._requests.ask(
            place, "GET", f"manifests/{reference}", headers, max_bytes=_MAX_MANIFEST_BYTES
        )
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        if answer.status != HTTPStatus.OK:
            raise _refused(place, f"manifest {reference}", answer)
        if answer.is_cut:
            told = f"it has more than {_MAX_MANIFEST_BYTES} bytes"
            raise _refused(place, f"manifest {reference}", answer, told)
        return answer.body

    async def put_manifest(
        self, place: Place, reference: Reference, media_type: str, body: bytes
    ) -> bool:
        answer = await self._requests.ask(
            place, "PUT", f"manifests/{reference}", {"content-type": media_type}, body
        )
        if not answer.is_success or answer.status == HTTPStatus.ACCEPTED:
            told = answer.told
            if not told and answer.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
                told = f"it takes no {media_type}"
            if isinstance(reference, Digest):
                raise _refused(place, f"manifest {reference}", answer, told)
            raise RegistryRefused(place, f"tag {reference}", answer.status, told, is_tag=True)
        digest = Digest.of(body, reference.algorithm if isinstance(reference, Digest) else "sha256")
        if answer.denies(digest):
            told = f"it says that it has {answer.digest[:150]}"
            raise _refused(place, f"manifest {reference}", answer, told)
        return "oci-subject" in answer.headers


def _digest(answer: Answer, reference: Reference) -> Digest | None:
    """What it says that it has; None where it does not say, or says what cannot be."""
    try:
        found = Digest.parse(answer.digest)
    except InvalidDigest:
        return None
    is_other = isinstance(reference, Digest) and reference.algorithm == found.algorithm
    return None if is_other and found != reference else found


def _refused(place: Place, doing: str, answer: Answer, told: str = "") -> RegistryRefused:
    return RegistryRefused(place, doing, answer.status, told or answer.told)
