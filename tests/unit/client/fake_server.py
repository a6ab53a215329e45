"""A Connect service on a free port: it answers as a test tells it, and remembers what it heard."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

import uvicorn
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.server import ConnectASGIApplication
from protobuf import Oneof
from protobuf.wkt import Duration, Timestamp

from layover.rpc.depot.cli.v1 import build_pb as wire
from layover.rpc.depot.cli.v1.build_connect import BuildService, BuildServiceASGIApplication
from layover.rpc.depot.cli.v1beta1 import projects_pb
from layover.rpc.depot.cli.v1beta1.projects_connect import (
    ProjectsService,
    ProjectsServiceASGIApplication,
)
from layover.rpc.layover.v1 import tokens_pb
from layover.rpc.layover.v1.tokens_connect import TokensService, TokensServiceASGIApplication

BUILD_ID, PROJECT_ID, TOKEN = "bbbbbbbbbb", "pppppppppp", "layover_user"
BUILD_TOKEN = "layover_build"
TOKEN_ID, PULL_TOKEN = "tttttttttt", "layover_pull"


class FakeServer(BuildService):
    """The build service as far as a build goes; its fields say how it is to answer."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[tuple[str, str, Any]] = []
        # What is given out first, then this server's own address, where somebody listens.
        self.dead_endpoints: list[str] = []
        self.pending_answers = 0
        self.unavailable: dict[str, int] = {}
        # By method: what it is refused with.
        self.refusals: dict[str, ConnectError] = {}
        self.cancels_at: datetime | None = None
        self.retention: Duration | None = None
        self.made = FakeTokens()

    def heard(self, name: str) -> list[Any]:
        """The requests of one method, in order."""
        return [request for called, _, request in self.calls if called == name]

    def tokens(self, name: str) -> set[str]:
        """The tokens that one method was called with."""
        return {token for called, token, _ in self.calls if called == name}

    def _note(self, name: str, request: Any, ctx: Any) -> None:
        authorization = ctx.request_headers.get("authorization", "")
        self.calls.append((name, authorization.removeprefix("Bearer "), request))
        if self.unavailable.get(name, 0) > 0:
            self.unavailable[name] -= 1
            raise ConnectError(Code.UNAVAILABLE, "away for a moment")
        if name in self.refusals:
            raise self.refusals[name]

    async def create_build(self, request: Any, ctx: Any) -> wire.CreateBuildResponse:
        self._note("create_build", request, ctx)
        host = self.url.removeprefix("http://")
        return wire.CreateBuildResponse(
            build_id=BUILD_ID,
            build_token=BUILD_TOKEN,
            project_id=PROJECT_ID,
            retention=self.retention,
            additional_credentials=[wire.Credential(host=host, token="eDp5")],
            additional_tags=[wire.AdditionalTag(tag=f"{host}/{PROJECT_ID}:{BUILD_ID}", push=True)],
        )

    async def get_build_kit_connection(
        self, request: Any, ctx: Any
    ) -> wire.GetBuildKitConnectionResponse:
        self._note("get_build_kit_connection", request, ctx)
        if self.pending_answers > 0:
            self.pending_answers -= 1
            pending: Oneof[Literal["pending"], wire.PendingConnection] = Oneof(
                "pending", wire.PendingConnection(wait_ms=10)
            )
            return wire.GetBuildKitConnectionResponse(connection=pending)
        listening = self.url.replace("http://", "tcp://")
        endpoint = self.dead_endpoints.pop(0) if self.dead_endpoints else listening
        active: Oneof[Literal["active"], wire.ActiveConnection] = Oneof(
            "active", wire.ActiveConnection(endpoint=endpoint)
        )
        return wire.GetBuildKitConnectionResponse(connection=active)

    async def report_build_health(self, request: Any, ctx: Any) -> wire.ReportBuildHealthResponse:
        self._note("report_build_health", request, ctx)
        cancels_at = None if self.cancels_at is None else Timestamp.from_datetime(self.cancels_at)
        return wire.ReportBuildHealthResponse(cancels_at=cancels_at)

    async def report_build_context(self, request: Any, ctx: Any) -> wire.ReportBuildContextResponse:
        self._note("report_build_context", request, ctx)
        return wire.ReportBuildContextResponse()

    async def report_status(self, request: Any, ctx: Any) -> wire.ReportStatusResponse:
        self._note("report_status", request, ctx)
        return wire.ReportStatusResponse()

    async def report_status_stream(
        self, request: AsyncIterator[Any], ctx: Any
    ) -> wire.ReportStatusStreamResponse:
        async for part in request:
            self._note("report_status_stream", part, ctx)
        return wire.ReportStatusStreamResponse()

    async def finish_build(self, request: Any, ctx: Any) -> wire.FinishBuildResponse:
        self._note("finish_build", request, ctx)
        return wire.FinishBuildResponse()

    async def get_pull_info(self, request: Any, ctx: Any) -> wire.GetPullInfoResponse:
        self._note("get_pull_info", request, ctx)
        raise ConnectError(Code.NOT_FOUND, f"unknown build {request.build_id!r}")


class FakeProjects(ProjectsService):
    """The public API's projects: one."""

    async def list_projects(
        self, request: projects_pb.ListProjectsRequest, ctx: Any
    ) -> projects_pb.ListProjectsResponse:
        project = projects_pb.ListProjectsResponse.Project(
            id=PROJECT_ID, name="default", org_id="oooooooooo", org_name="acme"
        )
        return projects_pb.ListProjectsResponse(projects=[project])


class FakeTokens(TokensService):
    """Makes and trades tokens; `refusal` is what it says instead."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.refusal: ConnectError | None = None
        self.project_id = PROJECT_ID

    def _note(self, request: Any, ctx: Any) -> None:
        authorization = ctx.request_headers.get("authorization", "")
        self.calls.append((authorization.removeprefix("Bearer "), request))
        if self.refusal is not None:
            raise self.refusal

    async def create_token(
        self, request: tokens_pb.CreateTokenRequest, ctx: Any
    ) -> tokens_pb.CreateTokenResponse:
        self._note(request, ctx)
        lifetime = timedelta() if request.lifetime is None else request.lifetime.to_timedelta()
        token = tokens_pb.Token(
            id=TOKEN_ID,
            kind=request.kind,
            project_id=self.project_id,
            build_id=request.build_id,
            expires_at=Timestamp.from_datetime(now() + lifetime),
        )
        return tokens_pb.CreateTokenResponse(token=token, secret=PULL_TOKEN)

    async def get_caller(
        self, request: tokens_pb.GetCallerRequest, ctx: Any
    ) -> tokens_pb.GetCallerResponse:
        self._note(request, ctx)
        return tokens_pb.GetCallerResponse(token=tokens_pb.Token(id=TOKEN_ID))

    async def revoke_token(
        self, request: tokens_pb.RevokeTokenRequest, ctx: Any
    ) -> tokens_pb.RevokeTokenResponse:
        self._note(request, ctx)
        return tokens_pb.RevokeTokenResponse(revoked_tokens=1)

    async def exchange_token(
        self, request: tokens_pb.ExchangeTokenRequest, ctx: Any
    ) -> tokens_pb.ExchangeTokenResponse:
        self._note(request, ctx)
        return tokens_pb.ExchangeTokenResponse(
            token=PULL_TOKEN,
            expires_at=Timestamp.from_datetime(now() + timedelta(hours=1)),
            project_id=self.project_id,
        )


def now() -> datetime:
    return datetime.now(UTC)


@contextlib.contextmanager
def serving(fake: FakeServer, *more: ConnectASGIApplication[Any]) -> Iterator[FakeServer]:
    """Serve on a free port of the loopback until the block ends; `more` are other services."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # From here on a client's connection waits for the server to start.
        listener.listen()
        fake.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        builds: Callable[..., Any] = BuildServiceASGIApplication(fake)
        services = (
            ProjectsServiceASGIApplication(FakeProjects()),
            TokensServiceASGIApplication(fake.made),
            *more,
        )
        others: dict[str, Callable[..., Any]] = {
            app.path: app for app in cast("tuple[Any, ...]", services)
        }

        async def application(scope: Any, receive: Any, send: Any) -> None:
            app = others.get(scope["path"].rpartition("/")[0], builds)
            await app(scope, receive, send)

        server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="off"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            yield fake
        finally:
            server.should_exit = True
            thread.join()
