"""Wires pushes to other registries: their stores and services, their job, their part of the API."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.routing import BaseRoute, Route

from layover.adapters.registries.registry import HttpRegistries
from layover.adapters.sql.database import Database
from layover.adapters.sql.identity import SqlIdentityStore
from layover.adapters.sql.push_source import SqlPushSource
from layover.adapters.sql.pushes import SqlPushStore
from layover.builds.address import PublicAddress
from layover.builds.life import BuildService
from layover.builds.ports import SavedImages
from layover.http.blob_pushes import BlobPushRoutes
from layover.http.rpc import push_apps
from layover.http.rpc.authentication import Authentication
from layover.identity.ids import new_id
from layover.outbound.opening import open_outbound, outbound_rules
from layover.promotion.driven import DrivenPushService
from layover.promotion.runner import PushRunner
from layover.promotion.sealing import AuthorizationVault, new_key
from layover.promotion.service import PushService
from layover.promotion.single import BlobPushService
from layover.promotion.transfer import TransferService
from layover.registry.blobs import BlobService
from layover.registry.ports import BlobStore
from layover.settings import Settings

# What is remembered of a push, and how many are forgotten at once.
_LIFETIME = timedelta(days=30)
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Pushing:
    """What a server has of it."""

    store: SqlPushStore
    runner: PushRunner
    routes: list[BaseRoute]
    now: Callable[[], datetime]

    async def clean_up(self) -> None:
        """Forget what is long over: a job for now and then."""
        while await self.store.forget_ended(self.now() - _LIFETIME, _BATCH) == _BATCH:
            pass


@contextlib.asynccontextmanager
async def pushing(
    settings: Settings,
    database: Database,
    blob_store: BlobStore,
    blobs: BlobService,
    builds: BuildService,
    images: SavedImages,
    address: PublicAddress,
    authentication: Authentication,
    now: Callable[[], datetime],
) -> AsyncIterator[Pushing]:
    """Pushes as the settings say, as long as the server runs."""
    client = open_outbound(settings, for_pushes=True)
    async with client:
        registries = HttpRegistries(client, outbound_rules(settings, for_pushes=True))
        store = SqlPushStore(database)
        key = await SqlIdentityStore(database).server_key("push-authorizations", new_key())
        vault = AuthorizationVault(store, key)
        source = SqlPushSource(database, blob_store)
        transfers = TransferService(source, now, settings.gc_grace)
        # Named for this start of it: what it worked on before it was started again, it goes on with
        # as any other server would.
        holder = new_id()
        runner = PushRunner(store, transfers, registries, vault, now, holder)
        service = PushService(
            store, builds, images, authentication.identity, vault, address, now, holder
        )
        driven = DrivenPushService(store, builds, images, now)
        routes: list[BaseRoute] = [
            Route(f"{path}/{{method}}", app)
            for path, app in push_apps(authentication, service, driven)
        ]
        single = BlobPushService(builds, blobs, source, registries, now, settings.gc_grace)
        routes += BlobPushRoutes(authentication, single).routes()
        yield Pushing(store, runner, routes, now)
