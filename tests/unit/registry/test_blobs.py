import pytest

from layover.oci.digest import Digest
from layover.registry.blobs import BlobService
from layover.registry.models import BlobUnknown
from tests.stores import FOREIGN, LEASE, NOW, REPOSITORY, SIBLING, Stores, pieces, push_blob

pytestmark = pytest.mark.anyio


@pytest.fixture
def blobs(stores: Stores) -> BlobService:
    return BlobService(stores.registry, stores.blobs, lambda: NOW, LEASE)


async def test_knowing_a_digest_shows_nobody_what_their_repository_does_not_hold(
    stores: Stores, blobs: BlobService
) -> None:
    # Invariant 3.
    digest = await push_blob(stores, FOREIGN, b"secret")
    assert (await blobs.find(FOREIGN, digest, may_push=True)).size_bytes == 6
    for repository in (REPOSITORY, SIBLING):
        for may_push in (False, True):
            with pytest.raises(BlobUnknown):
                await blobs.find(repository, digest, may_push=may_push)
        with pytest.raises(BlobUnknown):
            await blobs.delete(repository, digest)
        for source in (repository, None):
            assert not await blobs.mount(source, SIBLING, digest)


async def test_a_blob_whose_bytes_are_lost_is_unknown_before_an_answer_begins(
    stores: Stores, blobs: BlobService
) -> None:
    digest = await push_blob(stores, REPOSITORY, b"content")
    key = (await blobs.find(REPOSITORY, digest, may_push=False)).key
    await stores.blobs.publish(await stores.blobs.append((), key, pieces(b"conten"), []), key, [])
    with pytest.raises(BlobUnknown):
        await blobs.find(REPOSITORY, digest, may_push=False)
    await stores.blobs.delete([key])
    with pytest.raises(BlobUnknown):
        await blobs.find(REPOSITORY, digest, may_push=True)


async def test_a_mount_shows_the_same_bytes_and_outlives_its_source(
    stores: Stores, blobs: BlobService
) -> None:
    digest = await push_blob(stores, REPOSITORY, b"content")
    assert await blobs.mount(REPOSITORY, SIBLING, digest)
    await blobs.delete(REPOSITORY, digest)
    found = await blobs.find(SIBLING, digest, may_push=False)
    read = blobs.read(found, 0, found.size_bytes)
    assert b"".join([block async for block in read]) == b"content"


async def test_an_anonymous_mount_finds_what_the_project_shows(
    stores: Stores, blobs: BlobService
) -> None:
    digest = await push_blob(stores, SIBLING, b"content")
    assert not await blobs.mount(None, FOREIGN, digest)
    assert await blobs.mount(None, REPOSITORY, digest)
    assert await blobs.find(REPOSITORY, digest, may_push=False)


async def test_a_blob_that_never_was_is_unknown(blobs: BlobService) -> None:
    with pytest.raises(BlobUnknown):
        await blobs.delete(REPOSITORY, Digest.of(b"never"))
