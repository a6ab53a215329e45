"""The Connect services over memory, called by their generated clients without a network."""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from pyqwest import Client
from pyqwest.testing import ASGITransport
from starlette.applications import Starlette
from starlette.routing import Route

from layover.audit.listing import AuditListing
from layover.http.rpc import Management, connect_apps
from layover.http.rpc.authentication import Authentication
from layover.identity.management_ports import OrganizationStore, ProjectStore, TokenStore
from layover.identity.organizations import OrganizationService
from layover.identity.projects import ProjectService
from layover.identity.throttle import LoginThrottle
from layover.identity.tokens import TokenService
from layover.identity.trust_service import TrustService
from layover.retention.models import StoredReceipt
from layover.retention.ports import RetentionStore
from layover.retention.receipts import ReceiptService
from layover.rpc.depot.cli.v1 import build_pb as depot
from layover.rpc.depot.cli.v1.build_connect import BuildServiceClient
from layover.rpc.depot.cli.v1beta1.projects_connect import ProjectsServiceClient
from layover.rpc.layover.v1.audit_connect import AuditServiceClient
from layover.rpc.layover.v1.builds_connect import BuildsServiceClient
from layover.rpc.layover.v1.projects_connect import (
    ProjectsServiceClient as OwnProjectsServiceClient,
)
from layover.rpc.layover.v1.tokens_connect import TokensServiceClient
from layover.rpc.layover.v1.trust_connect import TrustServiceClient
from tests.unit.builds.memory import MemoryBuilder
from tests.unit.builds.world import PROJECT, World
from tests.unit.identity.memory import MemoryIssuerKeys, MemoryTrustStore

HOST = "layover.example:5443"
RECEIPT_KEY = b"k" * 32
LONGEST_COLLECTION = timedelta(minutes=61)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


class _Receipts:
    """As much of a RetentionStore as showing receipts takes."""

    def __init__(self, receipts: dict[str, StoredReceipt]) -> None:
        self._receipts = receipts

    async def find_receipt(self, build_id: str) -> StoredReceipt | None:
        return self._receipts.get(build_id)


def management_of(world: World) -> Management:
    """The services that the tests of builds never ask: `management.py` has them with a store."""
    organizations = OrganizationService(cast("OrganizationStore", None), world.clock)
    return Management(
        organizations,
        ProjectService(cast("ProjectStore", None), world.identity, organizations, world.clock),
        TokenService(cast("TokenStore", None), world.identity, organizations, world.clock),
    )


@dataclass
class Api:
    """A server's API, and the headers of a user and of another organization's user."""

    world: World
    user: dict[str, str]
    foreigner: dict[str, str]
    throttle: LoginThrottle = field(default_factory=LoginThrottle)
    app: Starlette = field(init=False)
    builds: BuildServiceClient = field(init=False)
    projects: ProjectsServiceClient = field(init=False)
    own: BuildsServiceClient = field(init=False)
    own_projects: OwnProjectsServiceClient = field(init=False)
    # What the collector wrote down, by build.
    receipts: dict[str, StoredReceipt] = field(default_factory=dict)
    policies: MemoryTrustStore = field(default_factory=MemoryTrustStore)
    keys: MemoryIssuerKeys = field(default_factory=MemoryIssuerKeys)
    tokens: TokensServiceClient = field(init=False)
    trust: TrustServiceClient = field(init=False)
    audit: AuditServiceClient = field(init=False)

    def __post_init__(self) -> None:
        world = self.world
        trust = TrustService(
            self.policies, world.identity, self.keys, world.clock, f"https://{HOST}"
        )
        apps = connect_apps(
            Authentication(world.identity, self.throttle, trust, world.audit),
            trust,
            management_of(world),
            world.builds,
            world.reports,
            world.listing,
            world.pulls,
            world.connections,
            ReceiptService(
                cast("RetentionStore", _Receipts(self.receipts)),
                RECEIPT_KEY,
                world.clock,
                LONGEST_COLLECTION,
            ),
            AuditListing(world.audit_store, world.identity),
            world.clock,
        )
        # As app.py mounts them.
        self.app = Starlette(routes=[Route(f"{path}/{{method}}", app) for path, app in apps])
        client = Client(ASGITransport(self.app))
        self.builds = BuildServiceClient(f"https://{HOST}", http_client=client)
        self.projects = ProjectsServiceClient(f"https://{HOST}", http_client=client)
        self.own = BuildsServiceClient(f"https://{HOST}", http_client=client)
        self.own_projects = OwnProjectsServiceClient(f"https://{HOST}", http_client=client)
        self.tokens = TokensServiceClient(f"https://{HOST}", http_client=client)
        self.trust = TrustServiceClient(f"https://{HOST}", http_client=client)
        self.audit = AuditServiceClient(f"https://{HOST}", http_client=client)

    async def create(self, *options: depot.BuildOptions) -> depot.CreateBuildResponse:
        """A build with these options, or one that is saved."""
        request = depot.CreateBuildRequest(
            project_id=PROJECT, options=list(options) or [depot.BuildOptions(save=True)]
        )
        return await self.builds.create_build(request, headers=self.user)


async def make_api(*builders: MemoryBuilder, throttle: LoginThrottle | None = None) -> Api:
    world = World(*builders)
    return Api(
        world,
        throttle=throttle or LoginThrottle(),
        user=bearer(await world.token(world.user)),
        foreigner=bearer(await world.token(world.foreigner)),
    )


async def refusal(call: Awaitable[object]) -> tuple[Code, str]:
    """What a call that has to fail is answered with."""
    with pytest.raises(ConnectError) as caught:
        await call
    return caught.value.code, caught.value.message
