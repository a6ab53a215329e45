"""depot.cli.v1.BuildService: what a client that builds or pulls calls."""

import base64
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from datetime import datetime
from itertools import groupby
from typing import Any, Literal, TypeAlias

import structlog
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.request import RequestContext
from protobuf import Oneof

from layover.builds.connections import ConnectionService, Pending
from layover.builds.errors import EngineUnsupported, InvalidBuildRequest
from layover.builds.life import BuildService
from layover.builds.listing import ListingService
from layover.builds.models import BuildStatus, Dockerfile
from layover.builds.pulls import USERNAME, PullService
from layover.builds.reports import ReportService
from layover.http.rpc.authentication import caller
from layover.http.rpc.batches import batched
from layover.http.rpc.convert import (
    DEPOT_STATUSES,
    PLATFORMS,
    from_options,
    to_duration,
    to_length,
    to_options,
    to_report,
    to_timed_steps,
    to_timestamp,
)
from layover.identity.access import Action
from layover.identity.models import Unauthenticated
from layover.rpc.depot.cli.v1 import build_connect
from layover.rpc.depot.cli.v1 import build_pb as pb
from layover.rpc.moby.buildkit.v1.control_pb import StatusResponse

Context: TypeAlias = RequestContext[Any, Any]

# A log that is followed lags by no more than this.
_STREAM_LINGER_SECONDS = 0.5
_STREAM_BATCH_BYTES = 1024 * 1024

_log = structlog.get_logger(__name__)


class BuildRpc(build_connect.BuildService):
    """Parses each request, calls one service, shapes the response."""

    def __init__(
        self,
        builds: BuildService,
        reports: ReportService,
        listing: ListingService,
        pulls: PullService,
        connections: ConnectionService,
        now: Callable[[], datetime],
    ) -> None:
        self._builds = builds
        self._reports = reports
        self._listing = listing
        self._pulls = pulls
        self._connections = connections
        self._now = now

    async def create_build(
        self, request: pb.CreateBuildRequest, ctx: Context
    ) -> pb.CreateBuildResponse:
        match request.required_engine:
            case pb.RequiredEngine(engine=Oneof(field="dagger" as engine)):
                raise EngineUnsupported(engine)
        retention = request.retention
        created = await self._builds.create(
            caller(),
            request.project_id or None,
            to_options(request.options),
            None if retention is None else to_length(retention),
        )
        build, address = created.build, self._pulls.address
        response = pb.CreateBuildResponse(
            build_id=build.id,
            build_token=created.token,
            registry=pb.Registry(),
            build_url=address.build_url(build.id),
            project_id=build.project_id,
            retention=to_duration(build.retention),
        )
        if build.is_saved:
            login = base64.b64encode(f"{USERNAME}:{created.token}".encode()).decode()
            response.additional_credentials = [
                pb.Credential(host=address.registry_host, token=login)
            ]
            response.additional_tags = [
                pb.AdditionalTag(tag=reference, push=True)
                for reference in address.pushed_references(build)
            ]
        return response

    async def get_build(self, request: pb.GetBuildRequest, ctx: Context) -> pb.GetBuildResponse:
        build = await self._builds.find(caller(), request.build_id, Action.SEE_BUILDS)
        return pb.GetBuildResponse(
            build_id=build.id,
            project_id=build.project_id,
            build_url=self._pulls.address.build_url(build.id),
        )

    async def finish_build(
        self, request: pb.FinishBuildRequest, ctx: Context
    ) -> pb.FinishBuildResponse:
        match request.result:
            case Oneof(field="success"):
                status, error = BuildStatus.FINISHED, None
            case Oneof(field="error", value=pb.FinishBuildRequest.Error() as failure):
                status, error = BuildStatus.FAILED, failure.error or "the build failed"
            case Oneof(field="canceled"):
                status, error = BuildStatus.CANCELED, "canceled by its client"
            case _:
                raise InvalidBuildRequest("result is missing: success, error or canceled")
        await self._builds.finish(caller(), request.build_id, status, error)
        return pb.FinishBuildResponse()

    async def get_build_kit_connection(
        self, request: pb.GetBuildKitConnectionRequest, ctx: Context
    ) -> pb.GetBuildKitConnectionResponse:
        connection = await self._connections.connect(
            caller(), request.build_id, _platform(request.platform)
        )
        if isinstance(connection, Pending):
            wait_ms = int(connection.retry_after.total_seconds() * 1000)
            pending = pb.PendingConnection(wait_ms=wait_ms)
            return pb.GetBuildKitConnectionResponse(
                connection=Oneof[Literal["pending"], pb.PendingConnection]("pending", pending)
            )
        active = pb.ActiveConnection(
            endpoint=connection.endpoint, server_name=connection.server_name
        )
        if (credentials := connection.credentials) is not None:
            active.ca_cert = pb.Cert(cert=credentials.ca_cert)
            if credentials.cert is not None:
                active.cert = pb.Cert(cert=credentials.cert, key=credentials.key or "")
        return pb.GetBuildKitConnectionResponse(
            connection=Oneof[Literal["active"], pb.ActiveConnection]("active", active)
        )

    async def report_build_health(
        self, request: pb.ReportBuildHealthRequest, ctx: Context
    ) -> pb.ReportBuildHealthResponse:
        try:
            principal = caller()
        except Unauthenticated:
            # Its token is gone, and so is the build that it drove: see Authentication.
            return pb.ReportBuildHealthResponse(cancels_at=to_timestamp(self._now()))
        cancels_at = await self._builds.report_health(principal, request.build_id)
        return pb.ReportBuildHealthResponse(cancels_at=to_timestamp(cancels_at))

    async def report_timings(
        self, request: pb.ReportTimingsRequest, ctx: Context
    ) -> pb.ReportTimingsResponse:
        await self._reports.report_timings(
            caller(), request.build_id, to_timed_steps(request.build_steps)
        )
        return pb.ReportTimingsResponse()

    async def report_status(
        self, request: pb.ReportStatusRequest, ctx: Context
    ) -> pb.ReportStatusResponse:
        await self._report(request.build_id, request.statuses)
        return pb.ReportStatusResponse()

    async def report_status_stream(
        self, requests: AsyncIterator[pb.ReportStatusStreamRequest], ctx: Context
    ) -> pb.ReportStatusStreamResponse:
        batches = batched(
            requests,
            _log_bytes,
            linger_seconds=_STREAM_LINGER_SECONDS,
            max_size=_STREAM_BATCH_BYTES,
        )
        try:
            async with aclosing(batches):
                async for batch in batches:
                    # Kept as it comes: what came before the client went away stays.
                    for build_id, group in groupby(batch, lambda request: request.build_id):
                        await self._report(
                            build_id, [status for request in group for status in request.statuses]
                        )
        except ConnectError as error:
            if error.code is not Code.CANCELED:
                raise
            _log.info("status_stream_cut", reason=error.message)
        return pb.ReportStatusStreamResponse()

    async def report_build_context(
        self, request: pb.ReportBuildContextRequest, ctx: Context
    ) -> pb.ReportBuildContextResponse:
        await self._reports.report_dockerfiles(
            caller(),
            request.build_id,
            [Dockerfile(file.target, file.filename, file.contents) for file in request.dockerfiles],
        )
        return pb.ReportBuildContextResponse()

    async def list_builds(
        self, request: pb.ListBuildsRequest, ctx: Context
    ) -> pb.ListBuildsResponse:
        page = await self._listing.list_page(
            caller(), request.project_id or None, request.page_size, request.page_token
        )
        return pb.ListBuildsResponse(
            builds=[
                pb.Build(
                    id=build.id,
                    status=DEPOT_STATUSES[build.status],
                    created_at=to_timestamp(build.created_at),
                    finished_at=to_timestamp(build.finished_at),
                )
                for build in page.builds
            ],
            next_page_token=page.next_token or "",
        )

    async def get_pull_info(
        self, request: pb.GetPullInfoRequest, ctx: Context
    ) -> pb.GetPullInfoResponse:
        info = await self._pulls.pull_info(caller(), request.build_id)
        return pb.GetPullInfoResponse(
            reference=info.reference,
            username=USERNAME,
            password=info.token,
            options=from_options(info.build.options),
        )

    async def get_pull_token(
        self, request: pb.GetPullTokenRequest, ctx: Context
    ) -> pb.GetPullTokenResponse:
        token = await self._pulls.pull_token(
            caller(), request.project_id or None, request.build_id or None
        )
        return pb.GetPullTokenResponse(token=token)

    async def _report(self, build_id: str, statuses: Iterable[StatusResponse]) -> None:
        steps, log = to_report(statuses, self._now())
        await self._reports.report(caller(), build_id, steps, log)


def _log_bytes(request: pb.ReportStatusStreamRequest) -> int:
    return sum(len(entry.msg) for status in request.statuses for entry in status.logs)


def _platform(platform: pb.BuilderPlatform) -> str:
    name = PLATFORMS.get(platform)
    if name is None:
        raise InvalidBuildRequest(f"unknown platform {int(platform)}: 1 is amd64, 2 is arm64")
    return name
