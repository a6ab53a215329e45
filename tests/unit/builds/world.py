"""All of builds/ over memory: two organizations, three projects, their users' callers."""

from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256

from layover.audit.log import AuditLog
from layover.builds.address import PublicAddress
from layover.builds.connections import ConnectionService
from layover.builds.life import BuildService, CreatedBuild
from layover.builds.listing import ListingService
from layover.builds.models import BuildOptions, BuildStatus, Command
from layover.builds.pool import BuilderPool
from layover.builds.pulls import PullService
from layover.builds.reports import ReportService
from layover.identity.ids import new_secret
from layover.identity.models import NewToken, Principal, Role, TokenKind
from layover.identity.service import IdentityService
from tests.unit.audit.memory import MemoryAuditPlaces, MemoryAuditStore
from tests.unit.builds.memory import (
    Clock,
    MemoryBuilder,
    MemoryBuildStore,
    MemoryIdentityStore,
    MemoryImages,
)

PROJECT = "projectaaa"
SISTER_PROJECT = "projectbbb"
FOREIGN_PROJECT = "projectccc"

SAVED = BuildOptions(save=True)


class World:
    """The services, wired as app.py wires them."""

    def __init__(self, *builders: MemoryBuilder) -> None:
        self.clock = Clock()
        self.store = MemoryBuildStore()
        self.images = MemoryImages()
        self.identity_store = MemoryIdentityStore()
        for project_id in (PROJECT, SISTER_PROJECT):
            self.identity_store.add_project(project_id, "org1")
        self.identity_store.add_project(FOREIGN_PROJECT, "org2")
        self.identity = IdentityService(self.identity_store, self.clock)
        self.audit_store = MemoryAuditStore()
        self.audit_places = MemoryAuditPlaces(self.identity_store, self.store)
        self.audit = AuditLog(self.audit_store, self.audit_places, self.identity, self.clock)
        self.address = PublicAddress("https://layover.example:5443")
        self.builds = BuildService(self.store, self.identity, self.address, self.clock)
        self.reports = ReportService(self.builds, self.store, self.clock)
        self.listing = ListingService(self.builds, self.store, self.images, self.clock)
        self.pulls = PullService(
            self.builds,
            self.images,
            self.identity,
            self.address,
        )
        self.pool = BuilderPool(builders, self.clock)
        self.connections = ConnectionService(
            self.builds, self.store, self.pool, self.clock, timedelta(minutes=2)
        )
        self.user = Principal("t1", TokenKind.USER, user_id="u1", roles={"org1": Role.OWNER})
        self.foreigner = Principal("t2", TokenKind.USER, user_id="u2", roles={"org2": Role.OWNER})
        self.project_token = Principal("t3", TokenKind.PROJECT, "org1", project_id=PROJECT)
        self.puller = Principal("t4", TokenKind.PULL, "org1", project_id=PROJECT)

    async def create(self, options: Sequence[BuildOptions] = (SAVED,)) -> CreatedBuild:
        return await self.builds.create(self.user, PROJECT, options)

    async def token(self, principal: Principal) -> str:
        """A secret that authenticates as `principal`."""
        secret = new_secret()
        await self.identity_store.add_token(
            NewToken(principal, sha256(secret.encode()).digest(), "a test's", self.clock(), None)
        )
        return secret

    async def watch(self, seconds: int) -> list[str]:
        """Let time pass as a server does that looks for vanished clients; return whom it ended."""
        ended = await self.builds.cancel_vanished(self.clock())
        for _ in range(seconds):
            self.clock.advance(seconds=1)
            ended += await self.builds.cancel_vanished(self.clock())
        return ended

    async def status(self, build_id: str) -> BuildStatus:
        build = await self.store.find(build_id)
        assert build is not None
        return build.status

    async def finished(
        self, *targets: str, pushed: bool = True, platforms: Sequence[str] = ("linux/amd64",)
    ) -> str:
        """The ID of a build, or of a bake of `targets`, that finished; pushed unless told
        otherwise."""
        options = [
            BuildOptions(command=Command.BAKE, save=True, target_name=target) for target in targets
        ]
        created = await self.create(options or (SAVED,))
        build_id = created.build.id
        if pushed:
            tags = [f"{build_id}-{target}" for target in targets] or [build_id]
            self.images.save(build_id, *tags, platforms=platforms)
        await self.builds.finish(self.user, created.build.id, BuildStatus.FINISHED)
        return created.build.id
