import pytest

from layover.oci.digest import Digest
from layover.registry.blobs import BlobService
from layover.registry.models import BlobUnknown
from tests.stores import FOREIGN, NOW, REPOSITORY, SIBLING, Stores, push_blob

pytestmark = pytest.mark.anyio


@pytest.fixture
def blobs(stores: Stores) -> BlobService:
    return BlobService(stores.registry, stores.blobs, lambda: NOW)


async def test_knowing_a_digest_shows_nobody_what_their_repository_does_not_hold(
    stores: Stores, blobs: BlobService
) -> None:
    # Invariant 3.
    digest = await push_blob(stores, FOREIGN, b"secret")
    assert await blobs.size(FOREIGN, digest) == 6
    for repository in (REPOSITORY, SIBLING):
        with pytest.raises(BlobUnknown):
            await blobs.size(repository, digest)
        with pytest.raises(BlobUnknown):
            await blobs.delete(repository, digest)
        assert not await blobs.mount(repository, SIBLING, digest)


async def test_a_blob_whose_bytes_are_lost_is_unknown_before_an_answer_begins(
    stores: Stores, blobs: BlobService
) -> None:
    digest = await push_blob(stores, REPOSITORY, b"content")
    (path,) = (stores.folder / "blobs" / "sha256").rglob(digest.hex)
    path.write_bytes(b"conten")
    with pytest.raises(BlobUnknown):
        await blobs.size(REPOSITORY, digest)
    path.unlink()
    with pytest.raises(BlobUnknown):
        await blobs.size(REPOSITORY, digest)


async def test_a_mount_shows_the_same_bytes_and_outlives_its_source(
    stores: Stores, blobs: BlobService
) -> None:
    digest = await push_blob(stores, REPOSITORY, b"content")
    assert await blobs.mount(REPOSITORY, SIBLING, digest)
    await blobs.delete(REPOSITORY, digest)
    size = await blobs.size(SIBLING, digest)
    assert b"".join([block async for block in blobs.read(digest, 0, size)]) == b"content"


async def test_a_blob_that_never_was_is_unknown(blobs: BlobService) -> None:
    with pytest.raises(BlobUnknown):
        await blobs.delete(REPOSITORY, Digest.of(b"never"))
