"""What a push learns from a registry, and that it believes no registry more than it can check."""

import re

import pytest

from layover.oci.digest import Digest
from layover.oci.names import RepositoryName, Tag
from layover.promotion.models import (
    Authorization,
    AuthorizationScheme,
    RegistryRefused,
    RegistryUnavailable,
)
from tests.unit.adapters.registries.fake import (
    REPOSITORY,
    Break,
    Reply,
    dialling,
    error,
    serving,
    showing,
)

pytestmark = pytest.mark.anyio

CONTENT = b"a blob"
DIGEST = Digest.of(CONTENT)
OTHER = Digest.of(b"another")
BODY = b'{"schemaVersion": 2}'
TYPE = "application/vnd.oci.image.manifest.v1+json"
SOURCE = RepositoryName("acme/base")


async def test_a_blob_is_there_when_it_is_shown_with_its_size_and_digest() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        assert not await registry.has_blob(remote.place, DIGEST, len(CONTENT))
        remote.blobs[str(DIGEST)] = CONTENT
        assert await registry.has_blob(remote.place, DIGEST, len(CONTENT))
        assert not await registry.has_blob(remote.place, DIGEST, len(CONTENT) + 1)
        lie = {"Content-Length": str(len(CONTENT)), "Docker-Content-Digest": str(OTHER)}
        remote.instead = [("HEAD", Reply(200, lie))]
        assert not await registry.has_blob(remote.place, DIGEST, len(CONTENT))


async def test_a_store_behind_the_registry_that_takes_no_head_says_nothing_of_the_blob() -> None:
    async with serving() as remote, serving() as store:
        url = f"http://{store.host}/signed"
        store.instead = [("HEAD", Reply(403))]
        remote.instead = [("HEAD", Reply(307, {"Location": url}))]
        async with dialling(remote.host, store.host) as registry:
            assert not await registry.has_blob(remote.place, DIGEST, len(CONTENT))


async def test_a_blob_of_another_repository_is_mounted() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.blobs[str(DIGEST)] = CONTENT
        assert await registry.mount(remote.place, DIGEST, SOURCE)
    assert remote.heard[0].target == (
        f"/v2/{REPOSITORY}/blobs/uploads/?mount=sha256%3A{DIGEST.hex}&from=acme%2Fbase"
    )
    assert remote.sessions == {}


async def test_a_session_that_was_opened_instead_of_a_mount_is_closed() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        assert not await registry.mount(remote.place, DIGEST, SOURCE)
        assert remote.sessions == {}
        # Whatever becomes of closing it: the registry does in its own time.
        remote.instead = [("DELETE", Break())]
        assert not await registry.mount(remote.place, DIGEST, SOURCE)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
async def test_a_registry_that_does_not_mount_is_no_failure(status: int) -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.instead = [("POST", Reply(status))]
        assert not await registry.mount(remote.place, DIGEST, SOURCE)


async def test_a_manifest_is_found_by_what_the_registry_says_of_it() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        assert await registry.find_manifest(remote.place, Tag("v1")) is None
        remote.manifests["v1"] = (TYPE, BODY)
        assert await registry.find_manifest(remote.place, Tag("v1")) == Digest.of(BODY)
    assert {heard.method for heard in remote.heard} == {"HEAD"}
    assert TYPE in remote.heard[0].headers["accept"]


async def test_a_manifest_without_a_digest_is_hashed() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.names_digests = False
        remote.manifests["v1"] = (TYPE, BODY)
        assert await registry.find_manifest(remote.place, Tag("v1")) == Digest.of(BODY)
        remote.instead = [("HEAD", Reply(405))]
        assert await registry.find_manifest(remote.place, Tag("v1")) == Digest.of(BODY)
        remote.instead = [("HEAD", Reply(405)), ("GET", Reply(404))]
        assert await registry.find_manifest(remote.place, Tag("v1")) is None


async def test_a_manifest_that_is_said_to_be_another_is_looked_at() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        asked = Digest.of(BODY)
        remote.manifests[str(asked)] = (TYPE, b"{}")  # what the registry has there is damaged
        assert await registry.find_manifest(remote.place, asked) == Digest.of(b"{}")
        remote.instead = [("HEAD", Reply(200, {"Docker-Content-Digest": "sha256:nonsense"}))]
        assert await registry.find_manifest(remote.place, asked) == Digest.of(b"{}")


async def test_a_manifest_is_read_to_a_bound() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        assert await registry.read_manifest(remote.place, Tag("v1")) is None
        remote.manifests["v1"] = (TYPE, BODY)
        assert await registry.read_manifest(remote.place, Tag("v1")) == BODY
        remote.manifests["v1"] = (TYPE, bytes(5 * 1024 * 1024))
        with pytest.raises(RegistryRefused, match="more than 4194304 bytes"):
            await registry.read_manifest(remote.place, Tag("v1"))


async def test_a_manifest_arrives_as_it_is() -> None:
    authorization = Authorization(AuthorizationScheme.BASIC, "dXNlcjpwYXNzd29yZA==")
    async with (
        serving() as remote,
        dialling(remote.host, authorization=showing(authorization)) as registry,
    ):
        assert not await registry.put_manifest(remote.place, Tag("v1"), TYPE, BODY)
        remote.instead = [("PUT", Break()), ("PUT", Reply(502))]
        assert not await registry.put_manifest(remote.place, Digest.of(BODY), TYPE, BODY)
    assert remote.manifests == {"v1": (TYPE, BODY), str(Digest.of(BODY)): (TYPE, BODY)}


async def test_a_registry_says_whether_it_lists_a_referrer_itself() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.instead = [("PUT", Reply(201, {"OCI-Subject": str(OTHER)}))]
        assert await registry.put_manifest(remote.place, Tag("v1"), TYPE, BODY)


async def test_a_registry_that_says_it_has_another_manifest_is_not_believed() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.instead = [("PUT", Reply(201, {"Docker-Content-Digest": str(OTHER)}))]
        with pytest.raises(RegistryRefused, match=f"says that it has {OTHER}"):
            await registry.put_manifest(remote.place, Tag("v1"), TYPE, BODY)


async def test_a_refused_manifest_is_told_with_the_registrys_own_words() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.instead = [("PUT", error(400, "TAG_INVALID", "the tag v1 is immutable"))]
        with pytest.raises(RegistryRefused, match=r"tag v1 \(400\): TAG_INVALID: the tag v1"):
            await registry.put_manifest(remote.place, Tag("v1"), TYPE, BODY)


async def test_a_kind_of_manifest_that_a_registry_does_not_take_is_told_by_its_type() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.instead = [("PUT", Reply(415))]
        with pytest.raises(RegistryRefused, match=re.escape(f"(415): it takes no {TYPE}")):
            await registry.put_manifest(remote.place, Tag("v1"), TYPE, BODY)


async def test_a_manifest_that_never_arrives_is_given_up() -> None:
    async with serving() as remote, dialling(remote.host) as registry:
        remote.instead = [("PUT", Break())] * 100
        with pytest.raises(RegistryUnavailable):
            await registry.put_manifest(remote.place, Tag("v1"), TYPE, BODY)
    assert remote.manifests == {}
