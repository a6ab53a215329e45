"""All of promotion/ that callers meet, over memory, beside the builds that it pushes."""

from datetime import timedelta

from layover.identity.models import Principal, Role, TokenKind
from layover.promotion.driven import DrivenPushService
from layover.promotion.models import Authorization, AuthorizationScheme, Push, PushStatus
from layover.promotion.service import PushService
from tests.unit.builds.world import World
from tests.unit.promotion.memory import MemoryAuthorizations, MemoryPushStore

DESTINATION = "registry.example/acme/app:v1"
PLACE = "registry.example/acme/app"
TOKEN = Authorization(AuthorizationScheme.BEARER, "a.short-lived.token")

MOST_LIVE = 3

VIEWER = Principal("t5", TokenKind.USER, user_id="u5", name="vera", roles={"org1": Role.VIEWER})


class PushWorld:
    """The service of pushes, wired as app.py wires it."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.store = MemoryPushStore()
        self.authorizations = MemoryAuthorizations(self.store)
        self.pushes = PushService(
            self.store,
            self.world.builds,
            self.world.images,
            self.world.identity,
            self.authorizations,
            self.world.address,
            self.world.clock,
            "a server",
            MOST_LIVE,
        )

        self.driven = DrivenPushService(
            self.store, self.world.builds, self.world.images, self.world.clock
        )

        self.world.audit_places.project_of_push = self._project_of

    async def _project_of(self, push_id: str) -> str | None:
        push = await self.store.find(push_id)
        return None if push is None else push.project_id

    async def create(self, *destinations: str, target: str = "") -> Push:
        """A push of a new build."""
        build_id = await self.world.finished()
        return await self.pushes.create(
            self.world.user, build_id, target, destinations or (DESTINATION,)
        )

    async def end(self, push: Push, status: PushStatus, error: str | None = None) -> None:
        """What a server does that works on the push, and ends it."""
        now = self.world.clock()
        while (
            claim := await self.store.claim("a server", now, now + timedelta(hours=1), 1000)
        ) is not None:
            if claim.push.id == push.id:
                break
        assert await self.store.end(push.id, "a server", status, error, now)
