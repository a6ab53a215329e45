"""A build with a blob, and a registry to send it to, over memory."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

from layover.oci.digest import Digest
from layover.oci.names import RepositoryName
from layover.oci.references import Place
from layover.promotion.single import BlobPushService
from layover.registry.blobs import BlobService
from layover.registry.models import BlobUnknown, StoredBlob
from tests.unit.builds.world import PROJECT, World
from tests.unit.promotion.memory import MemoryPushSource, MemoryRegistries

REPOSITORY = RepositoryName(PROJECT)
PLACE = Place("registry.example", RepositoryName("acme/app"))
CONTENT = b"the bytes of a layer"
DIGEST = Digest.of(CONTENT)
LEASE = timedelta(hours=1)


@dataclass
class BuildsBlobs:
    """The BlobService as far as it is asked: what each build's images need."""

    source: MemoryPushSource
    needed: dict[str, set[Digest]] = field(default_factory=dict)

    async def find(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        may_push: bool,
        of_build: str | None = None,
    ) -> StoredBlob:
        assert not may_push
        assert of_build is not None
        blob = await self.source.blob(repository, digest)
        if blob is None or digest not in self.needed.get(of_build, ()):
            raise BlobUnknown(repository, digest)
        return blob


class BlobWorld:
    """A build with a blob, and a registry to send it to."""

    def __init__(self, most_waiting: int = 3) -> None:
        self.world = World()
        self.source = MemoryPushSource()
        self.source.add_blob(REPOSITORY, CONTENT)
        self.blobs = BuildsBlobs(self.source)
        self.registries = MemoryRegistries()
        self.service = BlobPushService(
            self.world.builds,
            cast("BlobService", self.blobs),
            self.source,
            self.registries,
            self.world.clock,
            LEASE,
            most_waiting,
        )

    async def build(self) -> str:
        build_id = await self.world.finished()
        self.blobs.needed[build_id] = {DIGEST}
        return build_id

    def calls(self) -> list[str]:
        return [name for name, _, _ in self.registries.calls]
