"""The services of pushes over memory, called by their generated clients without a network."""

from dataclasses import dataclass, field

from pyqwest import Client
from pyqwest.testing import ASGITransport
from starlette.applications import Starlette
from starlette.routing import Route

from layover.audit.models import AuditEvent
from layover.http.rpc import push_apps
from layover.http.rpc.authentication import Authentication
from layover.identity.throttle import LoginThrottle
from layover.identity.trust_service import TrustService
from layover.rpc.depot.cli.v1.push_connect import PushServiceClient
from layover.rpc.layover.v1.pushes_connect import PushesServiceClient
from tests.unit.http.rpc.api import HOST, bearer
from tests.unit.identity.memory import MemoryIssuerKeys, MemoryTrustStore
from tests.unit.promotion.world import VIEWER, PushWorld


@dataclass
class PushApi:
    """A server's API of pushes, and the headers of a user, a viewer and a stranger."""

    world: PushWorld
    user: dict[str, str]
    viewer: dict[str, str]
    stranger: dict[str, str]
    app: Starlette = field(init=False)
    pushes: PushesServiceClient = field(init=False)
    driven: PushServiceClient = field(init=False)

    def __post_init__(self) -> None:
        world = self.world.world
        trust = TrustService(
            MemoryTrustStore(), world.identity, MemoryIssuerKeys(), world.clock, f"https://{HOST}"
        )
        authentication = Authentication(world.identity, LoginThrottle(), trust, world.audit)
        apps = push_apps(authentication, self.world.pushes, self.world.driven)
        # As app.py mounts them.
        self.app = Starlette(routes=[Route(f"{path}/{{method}}", app) for path, app in apps])
        client = Client(ASGITransport(self.app))
        self.pushes = PushesServiceClient(f"https://{HOST}", http_client=client)
        self.driven = PushServiceClient(f"https://{HOST}", http_client=client)

    async def events(self) -> list[AuditEvent]:
        """What the audit log was told."""
        await self.world.world.audit.close()
        return self.world.world.audit_store.events


async def make_push_api() -> PushApi:
    world = PushWorld()
    return PushApi(
        world,
        user=bearer(await world.world.token(world.world.user)),
        viewer=bearer(await world.world.token(VIEWER)),
        stranger=bearer(await world.world.token(world.world.foreigner)),
    )
