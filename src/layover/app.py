"""Wires the parts, their adapters, the HTTP surface and the background jobs into one server."""

import asyncio
import contextlib
import functools
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_bytes
from urllib.parse import urlsplit

import structlog
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from layover import logs
from layover.adapters.blobs.opening import open_blob_store
from layover.adapters.buildkit.daemon_config import RegistryAccess
from layover.adapters.buildkit.embedded import EmbeddedBuilder
from layover.adapters.buildkit.remote import RemoteBuilder
from layover.adapters.issuer_keys import HttpIssuerKeys
from layover.adapters.sql.audit import SqlAuditStore
from layover.adapters.sql.audit_places import SqlAuditPlaces
from layover.adapters.sql.builds import SqlBuildStore
from layover.adapters.sql.identity import SqlIdentityStore
from layover.adapters.sql.images import SqlSavedImages
from layover.adapters.sql.migrate import SchemaWatch, migrate
from layover.adapters.sql.organizations import SqlOrganizationStore
from layover.adapters.sql.projects import SqlProjectStore
from layover.adapters.sql.registry import SqlRegistryStore
from layover.adapters.sql.retention import SqlRetentionStore
from layover.adapters.sql.tokens import SqlTokenStore
from layover.adapters.sql.trust import SqlTrustStore
from layover.adapters.sql.uploads import SqlUploadStore
from layover.audit.listing import AuditListing
from layover.audit.log import AuditLog
from layover.builds.address import PublicAddress
from layover.builds.builders import BuilderConfig
from layover.builds.connections import ConnectionService
from layover.builds.life import BuildService
from layover.builds.listing import ListingService
from layover.builds.pool import BuilderPool
from layover.builds.ports import Builder
from layover.builds.pulls import PullService
from layover.builds.reports import ReportService
from layover.errors import StorageError, StorageUnavailable
from layover.http.gate import Gate
from layover.http.health import health_routes
from layover.http.middleware import surrounded
from layover.http.oci.routes import oci_routes
from layover.http.origin import TrustedProxies
from layover.http.protocol import BoundedHttpProtocol
from layover.http.rpc import Management, connect_apps
from layover.http.rpc.authentication import Authentication
from layover.http.tls import ServerLoop, server_context
from layover.identity.ids import new_id
from layover.identity.organizations import OrganizationService
from layover.identity.projects import ProjectService
from layover.identity.registry_tokens import KEY_BYTES, RegistryTokens
from layover.identity.service import IdentityService
from layover.identity.throttle import Limits, LoginThrottle
from layover.identity.tokens import TokenService
from layover.identity.trust_service import TrustService
from layover.outbound.opening import open_outbound
from layover.pushing import pushing
from layover.registry.blobs import BlobService
from layover.registry.manifests import ManifestService
from layover.registry.uploads import UploadService
from layover.retention.collector import Collector
from layover.retention.receipts import KEY_BYTES as RECEIPT_KEY_BYTES
from layover.retention.receipts import ReceiptService
from layover.settings import Settings, unknown_variables
from layover.signing_in import signing_in
from layover.startup import (
    TlsRenewal,
    check_tls,
    discard_admin_token,
    greeting,
    keep_admin_token,
    listening,
    locked,
)
from layover.storage import Patience, open_database

# A build whose client vanished is noticed this soon after its time has come.
_VANISHED_INTERVAL = timedelta(seconds=5)

# That another release migrated the database under this one is noticed this soon.
_SCHEMA_INTERVAL = timedelta(seconds=2)

# When a token was used last is kept this often.
_USED_INTERVAL = timedelta(seconds=30)

# What was counted in a minute is in the audit log this soon after it.
_COUNTED_INTERVAL = timedelta(seconds=10)

# A server that takes longer to start says meanwhile that it does.
_QUICK_START_SECONDS = 1

# A certificate that was renewed is served this soon.
_TLS_INTERVAL = timedelta(seconds=60)

# A server with a database of its own collects at once when it starts again: there is no other.
_COLLECTOR = "server"

# Clients keep idle connections for a minute or so. Where the server closes first, a request that
# is on its way meets the close.
_KEEP_ALIVE_SECONDS = 75

_log = structlog.get_logger(__name__)


def serve(settings: Settings) -> int:
    """Run a server until SIGTERM or SIGINT; return its exit code.

    Transfers under way may finish for up to `shutdown_timeout`. Raises SettingsError when it
    cannot start as it was told, StorageError when its storage fails.
    """
    logs.configure(as_json=_logs_json(settings))
    for variable, meant in unknown_variables().items():
        _log.warning("variable_unknown", variable=variable, did_you_mean=meant)
    check_tls(settings)
    with locked(settings.data_dir), listening(settings) as listener:
        # Port 0 lets the system choose; everything else needs to know the choice.
        port = listener.getsockname()[1]
        host = settings.listen.rpartition(":")[0]
        settings = settings.model_copy(update={"listen": f"{host}:{port}"})
        uvloop.run(_serve(settings, listener), loop_factory=ServerLoop)
    return 0


async def _serve(settings: Settings, listener: socket.socket) -> None:
    missing = {"server": "starting"}
    gate = Gate(missing, _surrounding(settings))
    config = uvicorn.Config(
        gate,
        lifespan="off",
        http=BoundedHttpProtocol,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        log_config=None,
        access_log=False,
        server_header=False,
        # Who calls is told by http/origin.py, which trusts nobody by itself.
        proxy_headers=False,
        # Nothing here speaks it, whatever libraries there are.
        ws="none",
        # What one request binds is not seen by the next one of its connection.
        reset_contextvars=True,
        ssl_context_factory=_tls(settings),
        timeout_graceful_shutdown=int(settings.shutdown_timeout.total_seconds()),
    )
    _warn_of_addresses(settings)
    config.load()
    async with contextlib.AsyncExitStack() as stack:
        opening = asyncio.create_task(stack.enter_async_context(running(settings, missing)))
        # A client that connects meanwhile waits for its answer, as it would a moment earlier for
        # the server: one that starts at once refuses nobody.
        await asyncio.wait({opening}, timeout=_QUICK_START_SECONDS)
        if opening.done() and opening.exception() is not None:
            await opening
        # uvicorn stops gracefully on these and then raises them again; the handlers that it
        # finds here make that mean nothing, so that the stop goes on to its end.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        if config.ssl is not None:
            renewing = _every(_TLS_INTERVAL, TlsRenewal(config.ssl, settings).check)
            stack.push_async_callback(_cancel, asyncio.create_task(renewing))
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await asyncio.wait({opening, serving}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                app, welcome = await opening
                gate.open(app)
                print(welcome, end="", flush=True)
        finally:
            if not gate.is_open:
                # It was told to stop while it waited, or cannot start.
                opening.cancel()
                server.should_exit = True
            await asyncio.wait({opening, serving})
    _log.info("server_stopped")


def _tls(settings: Settings) -> Callable[..., ssl.SSLContext] | None:
    """What uvicorn makes its TLS context with, None to serve without."""
    cert, key = settings.tls_cert, settings.tls_key
    return None if cert is None or key is None else lambda *_: server_context(cert, key)


def _warn_of_addresses(settings: Settings) -> None:
    """Say which addresses clients are told that they probably cannot use."""
    if settings.public_url and not (settings.builders or settings.builder_listen):
        dialled = urlsplit(settings.public_url).hostname
        if dialled != settings.listen_host and not settings.listens_on_all:
            # As behind a proxy, which passes HTTP on and not the builder's port.
            _log.warning(
                "builder_listen_missing",
                clients_dial=dialled,
                builder_listens_on=settings.listen_host,
            )
    if settings.listens_on_all and not settings.public_url:
        _log.warning("public_url_missing", clients_are_told=settings.url)


def _logs_json(settings: Settings) -> bool:
    if settings.log_format == "auto":
        return not sys.stderr.isatty()
    return settings.log_format == "json"


@contextlib.asynccontextmanager
async def running(
    settings: Settings, missing: dict[str, str]
) -> AsyncIterator[tuple[Starlette, str]]:
    """The application with its stores open and its jobs running, and what to greet with.

    While it waits for a part that is away, `missing` says so.
    """
    jobs: list[Coroutine[None, None, None]] = []
    async with contextlib.AsyncExitStack() as stack:
        blob_store = open_blob_store(settings)
        stack.callback(blob_store.close)
        database = open_database(settings)
        stack.callback(database.close)
        patience = Patience(settings.startup_timeout, missing)
        reached = [patience.until("database", lambda: asyncio.to_thread(migrate, database.engine))]
        if settings.blob_store_url:
            # A folder is there; what is wrong with it is told by whatever meets it.
            reached.append(patience.until("blobs", blob_store.ping))
        await asyncio.gather(*reached)
        schema = SchemaWatch(database)

        identity_store = SqlIdentityStore(database)
        identity = IdentityService(identity_store, _now)
        registry_tokens = RegistryTokens(
            await identity_store.server_key("registry-tokens", token_bytes(KEY_BYTES)), _now
        )
        throttle = LoginThrottle(Limits(failures=settings.failed_logins))
        audit_store = SqlAuditStore(database)
        audit = AuditLog(audit_store, SqlAuditPlaces(database), identity, _now)
        stack.push_async_callback(audit.close)
        tenant = await identity.bootstrap(
            lambda token: keep_admin_token(settings.data_dir, token),
            lambda: discard_admin_token(settings.data_dir),
        )

        outbound = await stack.enter_async_context(open_outbound(settings))
        issuer_keys = HttpIssuerKeys(outbound)
        stack.push_async_callback(issuer_keys.close)
        trust = TrustService(SqlTrustStore(database), identity, issuer_keys, _now, settings.url)

        registry_store = SqlRegistryStore(database)
        lease = settings.gc_grace
        blobs = BlobService(registry_store, blob_store, _now, lease)
        uploads = UploadService(
            SqlUploadStore(database),
            blob_store,
            _now,
            settings.upload_lifetime,
            lease,
            clean_up_interval=settings.reaper_interval,
        )
        manifests = ManifestService(
            registry_store, _now, lease, may_miss_blobs=settings.sparse_images
        )

        build_store = SqlBuildStore(database)
        images = SqlSavedImages(database, blob_store)
        address = PublicAddress(settings.url)
        builds = BuildService(build_store, identity, address, _now, settings.build_client_timeout)
        reports = ReportService(builds, build_store, _now)
        listing = ListingService(builds, build_store, images, _now)
        pulls = PullService(builds, images, identity, address)

        retention_store = SqlRetentionStore(database)
        receipts = ReceiptService(
            retention_store,
            await identity_store.server_key("receipts", token_bytes(RECEIPT_KEY_BYTES)),
            _now,
            settings.gc_grace + settings.reaper_interval,
        )
        collector = Collector(
            retention_store,
            blob_store,
            receipts,
            _now,
            new_id() if settings.database_url.get_secret_value() else _COLLECTOR,
            settings.gc_grace,
            settings.reaper_interval,
        )

        organizations = OrganizationService(SqlOrganizationStore(database), _now)
        projects = ProjectService(SqlProjectStore(database), identity, organizations, _now)
        management = Management(
            organizations,
            projects,
            TokenService(SqlTokenStore(database), identity, organizations, _now),
        )

        authentication = Authentication(identity, throttle, trust, audit)
        sign_in = await stack.enter_async_context(
            signing_in(
                settings,
                database,
                *(outbound, issuer_keys, organizations),
                authentication,
                _now,
            )
        )
        pushes = await stack.enter_async_context(
            pushing(
                settings,
                *(database, blob_store, blobs, builds, images, address),
                authentication,
                _now,
            )
        )

        builders: list[Builder] = [*_remote_builders(settings)]
        if not builders:
            embedded = _embedded_builder(settings)
            builders.append(embedded)
            jobs.append(embedded.run())
        pool = BuilderPool(builders, _now)
        connections = ConnectionService(builds, build_store, pool, _now, settings.builder_wait)

        async def clean_up() -> None:
            # First: it says which uploads are under way, and what follows may take long.
            await uploads.clean_up()
            await projects.clear_deleted()
            await identity.forget_expired_tokens()
            await organizations.forget_over_invitations()
            await audit.forget_older_than(settings.audit_retention)
            await sign_in.clean_up()
            await pushes.clean_up()

        async def watch_schema() -> None:
            # An outage is told by whatever meets it.
            with contextlib.suppress(StorageUnavailable):
                await schema.check()

        async def end_vanished() -> None:
            await builds.cancel_vanished(_now())

        jobs += [
            pool.run(),
            pushes.runner.run(),
            _every(settings.reaper_interval, clean_up),
            _every(settings.reaper_interval, collector.run_once),
            _every(_VANISHED_INTERVAL, end_vanished),
            _every(_SCHEMA_INTERVAL, watch_schema),
            _every(_USED_INTERVAL, identity.keep_used),
            _every(_COUNTED_INTERVAL, audit.write_counted),
        ]
        stack.push_async_callback(_quietly, identity.keep_used)
        for job in jobs:
            stack.push_async_callback(_cancel, asyncio.create_task(job))

        routes: list[BaseRoute] = [
            *health_routes({"database": schema.check, "blobs": blob_store.ping}),
            *oci_routes(
                *(identity, registry_tokens, throttle, audit, blobs, uploads, manifests),
                settings.url,
            ),
            *sign_in.routes,
            *pushes.routes,
        ]
        for path, service in connect_apps(
            *(authentication, trust, management),
            builds,
            reports,
            listing,
            pulls,
            connections,
            receipts,
            AuditListing(audit_store, identity),
            _now,
        ):
            routes.append(Route(f"{path}/{{method}}", service))
        app = Starlette(routes=routes)
        # Nothing here is worth a redirect to a host that the client named.
        app.router.redirect_slashes = False
        app.add_middleware(_surrounding(settings))
        yield app, greeting(settings, tenant)


def _surrounding(settings: Settings) -> Callable[[ASGIApp], ASGIApp]:
    """What every answer of this server passes through."""
    return functools.partial(
        surrounded,
        proxies=TrustedProxies(settings.trusted_proxies),
        https=settings.url.startswith("https://"),
    )


def _remote_builders(settings: Settings) -> list[RemoteBuilder]:
    """The pool of the settings."""
    return [
        RemoteBuilder(
            BuilderConfig(
                name=builder.name,
                address=builder.address,
                platforms=builder.platforms,
                server_name=builder.server_name,
                ca_cert=_text(builder.ca_cert),
                cert=_text(builder.cert),
                key=_text(builder.key),
            )
        )
        for builder in settings.builders
    ]


def _embedded_builder(settings: Settings) -> EmbeddedBuilder:
    """The BuildKit of a server whose settings name none; it pushes to this very server."""
    host, port = settings.builder_address
    return EmbeddedBuilder(
        settings.data_dir / "buildkit",
        RegistryAccess(
            settings.registry_host,
            plain_http=settings.url.startswith("http://"),
            # A certificate of one's own is trusted as it is, whoever signed it.
            ca_cert=settings.tls_cert.absolute() if settings.tls_cert else None,
        ),
        _now,
        listen_host=host,
        port=port,
        advertised_host=urlsplit(settings.url).hostname,
        cache_bytes=settings.builder_cache,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


async def _every(interval: timedelta, job: Callable[[], Awaitable[object]]) -> None:
    """Do `job` now and then; one that fails is logged and done again."""
    while True:
        try:
            await job()
        except StorageError as error:
            _log.warning("job_failed", job=job.__qualname__, reason=str(error))
        except Exception:
            # A bug in a job must not end it for the server's whole life.
            _log.exception("job_failed", job=job.__qualname__)
        await asyncio.sleep(interval.total_seconds())


async def _quietly(work: Callable[[], Awaitable[None]]) -> None:
    """Do what is worth trying at the end, and no error."""
    with contextlib.suppress(StorageError):
        await work()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    except Exception:
        # The others are to be stopped in order all the same.
        _log.exception("job_ended")


def _now() -> datetime:
    return datetime.now(UTC)
