"""The build API and Layover's own, over HTTP.

    async with Client(Server("https://layover.example.com", token)) as client:
        build = await client.create_build(CreateBuildRequest(project_id="..."))

A method is a call; it raises a ClientError when the call did not do what it was for.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from connectrpc.errors import ConnectError
from protobuf.wkt import Duration
from pyqwest import Client as HTTPClient
from pyqwest import HTTPTransport

from layover.client.address import Server
from layover.client.errors import ClientError, NotLayover, ServerUnreachable
from layover.client.wire import from_connect
from layover.rpc.depot.cli.v1 import build_pb as wire
from layover.rpc.depot.cli.v1.build_connect import BuildServiceClient
from layover.rpc.depot.cli.v1beta1.projects_connect import ProjectsServiceClient
from layover.rpc.depot.cli.v1beta1.projects_pb import ListProjectsRequest
from layover.rpc.layover.v1 import audit_pb, builds_pb, projects_pb, tokens_pb
from layover.rpc.layover.v1.audit_connect import AuditServiceClient
from layover.rpc.layover.v1.builds_connect import BuildsServiceClient
from layover.rpc.layover.v1.projects_connect import (
    ProjectsServiceClient as OwnProjectsServiceClient,
)
from layover.rpc.layover.v1.tokens_connect import TokensServiceClient

Answer = TypeVar("Answer")

# A call that changes nothing, or the same thing twice, is tried this often before the caller
# hears that the server is gone: a server that restarts is back within seconds.
ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.25
CALL_TIMEOUT_MS = 30_000


def trusted_certificates(env: Mapping[str, str]) -> bytes | None:
    """Read the authorities that SSL_CERT_FILE names; None means the system's.

    As OpenSSL and Go have it, the file replaces the system's list.
    """
    path = env.get("SSL_CERT_FILE")
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ClientError(f"cannot read SSL_CERT_FILE {path}: {error.strerror}") from error


class Client:
    """One server's API, for one token. Close it, or use it as a context manager."""

    def __init__(self, server: Server, *, env: Mapping[str, str] | None = None) -> None:
        self.server = server
        certificates = trusted_certificates(os.environ if env is None else env)
        try:
            self._transport = HTTPTransport(
                tls_ca_cert=certificates,
                tls_include_system_certs=certificates is None,
                connect_timeout=10,
                # A request carries the token: it goes where the user said and nowhere else.
                follow_redirects=False,
                # The system's own resolver reads /etc/hosts and what a container was given.
                use_system_dns=True,
            )
        except (ValueError, RuntimeError) as error:
            if certificates is None:
                raise
            raise ClientError(f"cannot use SSL_CERT_FILE, which has to be PEM: {error}") from error
        http = HTTPClient(self._transport)
        self._builds = BuildServiceClient(server.url, http_client=http)
        self._projects = ProjectsServiceClient(server.url, http_client=http)
        self._details = BuildsServiceClient(server.url, http_client=http)
        self._policies = OwnProjectsServiceClient(server.url, http_client=http)
        self._tokens = TokensServiceClient(server.url, http_client=http)
        self._audit = AuditServiceClient(server.url, http_client=http)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; repeating it does nothing."""
        await self._transport.aclose()

    def with_token(self, token: str) -> "Client":
        """The same server for another token, as the one that a build was given."""
        return Client(Server(self.server.url, token))

    @property
    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.server.token}"} if self.server.token else {}

    async def _once(self, call: Awaitable[Answer]) -> Answer:
        task = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        try:
            answer = await call
        except ConnectError as error:
            # connectrpc tells a canceled task as an error of the call; asyncio has to see it.
            if task is not None and task.cancelling() > before:
                raise asyncio.CancelledError from error
            raise from_connect(error, self.server.url) from error
        # It waits by asyncio.wait_for, which before Python 3.12 forgets that it was canceled when
        # the answer came at the same moment.
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
        return answer

    async def _again(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        pause = _FIRST_PAUSE_SECONDS
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._once(call())
            except ServerUnreachable:
                await asyncio.sleep(pause)
                pause *= 2
        return await self._once(call())

    # The build service.

    async def create_build(self, request: wire.CreateBuildRequest) -> wire.CreateBuildResponse:
        """Start a build. Tried once: a second try could start a second build."""
        return await self._once(
            self._builds.create_build(request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS)
        )

    async def finish_build(self, request: wire.FinishBuildRequest) -> None:
        """Record how a build ended. Repeating it is harmless."""
        await self._again(
            lambda: self._builds.finish_build(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )

    async def get_buildkit_connection(
        self, build_id: str, platform: wire.BuilderPlatform
    ) -> wire.GetBuildKitConnectionResponse:
        """Ask for a builder of a platform: a connection, or how long to wait for one."""
        request = wire.GetBuildKitConnectionRequest(build_id=build_id, platform=platform)
        return await self._again(
            lambda: self._builds.get_build_kit_connection(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )

    async def report_build_health(
        self, build_id: str, platform: wire.BuilderPlatform
    ) -> wire.ReportBuildHealthResponse:
        """Say that the build's client lives. The next report is the next try."""
        request = wire.ReportBuildHealthRequest(build_id=build_id, platform=platform)
        return await self._once(
            self._builds.report_build_health(request, headers=self._headers, timeout_ms=5_000)
        )

    async def report_status(self, request: wire.ReportStatusRequest) -> None:
        """Report what steps did."""
        await self._once(
            self._builds.report_status(request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS)
        )

    async def report_status_stream(
        self, requests: AsyncIterator[wire.ReportStatusStreamRequest]
    ) -> None:
        """Report what steps did, for as long as `requests` goes on."""
        await self._once(self._builds.report_status_stream(requests, headers=self._headers))

    async def report_build_context(self, build_id: str, dockerfiles: list[wire.Dockerfile]) -> None:
        """Report the Dockerfiles that are built."""
        request = wire.ReportBuildContextRequest(build_id=build_id, dockerfiles=dockerfiles)
        await self._once(
            self._builds.report_build_context(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )

    async def get_pull_info(self, build_id: str) -> wire.GetPullInfoResponse:
        """Ask where a saved build is, and for the credentials to pull it."""
        request = wire.GetPullInfoRequest(build_id=build_id)
        return await self._again(
            lambda: self._builds.get_pull_info(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )

    async def get_pull_token(self, project_id: str) -> str:
        """Ask for a token that pulls from a project, for a while."""
        request = wire.GetPullTokenRequest(project_id=project_id)
        answer = await self._again(
            lambda: self._builds.get_pull_token(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )
        return answer.token

    # Projects.

    async def list_projects(self) -> list[projects_pb.Project]:
        """The projects that the token may see.

        Of a server that serves the public build API alone they have no policy.
        """
        try:
            own = await self._again(
                lambda: self._policies.list_projects(
                    projects_pb.ListProjectsRequest(),
                    headers=self._headers,
                    timeout_ms=CALL_TIMEOUT_MS,
                )
            )
        except NotLayover:
            answer = await self._again(
                lambda: self._projects.list_projects(
                    ListProjectsRequest(), headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
                )
            )
            return [
                projects_pb.Project(
                    id=project.id,
                    name=project.name,
                    organization_id=project.org_id,
                    organization_name=project.org_name,
                )
                for project in answer.projects
            ]
        return list(own.projects)

    async def get_project(self, project_id: str) -> projects_pb.Project:
        """A project with its policy."""
        request = projects_pb.GetProjectRequest(project_id=project_id)
        answer = await self._again(
            lambda: self._policies.get_project(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )
        return _project(answer.project)

    async def update_project(
        self, request: projects_pb.UpdateProjectRequest
    ) -> projects_pb.Project:
        """Change what the request names of a project's policy; return the project."""
        answer = await self._again(
            lambda: self._policies.update_project(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )
        return _project(answer.project)

    async def create_project(
        self, request: projects_pb.CreateProjectRequest
    ) -> projects_pb.Project:
        """Make a project. Tried once: a second try could make a second one."""
        answer = await self._once(
            self._policies.create_project(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )
        return _project(answer.project)

    async def delete_project(self, project_id: str) -> None:
        """Delete a project with all that is in it."""
        await self._once(
            self._policies.delete_project(
                projects_pb.DeleteProjectRequest(project_id=project_id),
                headers=self._headers,
                timeout_ms=CALL_TIMEOUT_MS,
            )
        )

    # Tokens.

    async def create_token(
        self, request: tokens_pb.CreateTokenRequest
    ) -> tokens_pb.CreateTokenResponse:
        """Make a token. Tried once: a second try could make a second one."""
        return await self._once(
            self._tokens.create_token(request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS)
        )

    async def exchange_token(
        self, project_id: str, *, pull_only: bool = False
    ) -> tokens_pb.ExchangeTokenResponse:
        """Trade the ID token that this client has for a token of a project that trusts it.

        Without a project, of the only one that does. One that nobody heard of ends by itself soon,
        so it is tried again.
        """
        request = tokens_pb.ExchangeTokenRequest(project_id=project_id, pull_only=pull_only)
        return await self._again(
            lambda: self._tokens.exchange_token(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )

    # Layover's own.

    async def list_builds(self, project_id: str, limit: int) -> list[builds_pb.Build]:
        """A project's newest builds, newest first, `limit` at most."""
        found: list[builds_pb.Build] = []
        page_token = ""
        while len(found) < limit:
            request = builds_pb.ListBuildsRequest(
                project_id=project_id,
                page_size=min(limit - len(found), 1000),
                page_token=page_token,
            )
            answer = await self._again(
                partial(
                    self._details.list_builds,
                    request,
                    headers=self._headers,
                    timeout_ms=CALL_TIMEOUT_MS,
                )
            )
            found.extend(answer.builds)
            page_token = answer.next_page_token
            if not page_token:
                break
        return found[:limit]

    async def list_audit_events(
        self, request: audit_pb.ListAuditEventsRequest, limit: int
    ) -> list[audit_pb.AuditEvent]:
        """The newest events that `request` asks for, newest first, `limit` at most.

        Its page size and token are this method's own.
        """
        found: list[audit_pb.AuditEvent] = []
        while len(found) < limit:
            request.page_size = min(limit - len(found), 1000)
            answer = await self._again(
                partial(
                    self._audit.list_audit_events,
                    request,
                    headers=self._headers,
                    timeout_ms=CALL_TIMEOUT_MS,
                )
            )
            found.extend(answer.events)
            request.page_token = answer.next_page_token
            if not request.page_token:
                break
        return found[:limit]

    async def get_build(self, build_id: str) -> builds_pb.GetBuildResponse:
        """A build's facts, its steps and its Dockerfiles."""
        request = builds_pb.GetBuildRequest(build_id=build_id)
        return await self._again(
            lambda: self._details.get_build(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )

    async def find_build(self, build_id: str) -> builds_pb.GetBuildResponse | None:
        """As `get_build`; None from a server that serves the public build API alone."""
        try:
            return await self.get_build(build_id)
        except NotLayover:
            return None

    async def get_build_log(self, build_id: str) -> AsyncIterator[builds_pb.GetBuildLogResponse]:
        """A build's log, in the order in which it was reported."""
        request = builds_pb.GetBuildLogRequest(build_id=build_id)
        try:
            async for part in self._details.get_build_log(request, headers=self._headers):
                yield part
        except ConnectError as error:
            raise from_connect(error, self.server.url) from error

    async def keep_build(self, build_id: str, retention: timedelta) -> datetime:
        """Let an ended build live for `retention` from now on; return when it is gone then."""
        request = builds_pb.KeepBuildRequest(
            build_id=build_id, retention=Duration.from_timedelta(retention)
        )
        answer = await self._again(
            lambda: self._details.keep_build(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )
        if answer.expires_at is None:
            raise ClientError("the server answered without the time")
        return answer.expires_at.to_datetime().astimezone(UTC)

    async def get_receipt(self, build_id: str) -> builds_pb.GetReceiptResponse:
        """The signed receipt of a build that is gone; `client.receipts` reads it."""
        request = builds_pb.GetReceiptRequest(build_id=build_id)
        return await self._again(
            lambda: self._details.get_receipt(
                request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS
            )
        )

    async def get_receipt_key(self) -> bytes:
        """The public key that the server signs receipts with: Ed25519, 32 bytes."""
        answer = await self._again(
            lambda: self._details.get_receipt_key(
                builds_pb.GetReceiptKeyRequest(),
                headers=self._headers,
                timeout_ms=CALL_TIMEOUT_MS,
            )
        )
        return answer.public_key

    async def delete_build(self, build_id: str) -> None:
        """Delete a build and what it saved; a running one is canceled first."""
        request = builds_pb.DeleteBuildRequest(build_id=build_id)
        await self._once(
            self._details.delete_build(request, headers=self._headers, timeout_ms=CALL_TIMEOUT_MS)
        )


def _project(project: projects_pb.Project | None) -> projects_pb.Project:
    if project is None:
        raise ClientError("the server answered without the project")
    return project
