"""One build from its creation on the server to its end.

CreateBuild, then health reports from that moment on; a builder for each platform; buildx on
them; FinishBuild with how it went, whatever happened. A server that is lost on the way does
not fail a build that can go on without it; but only one whose end was recorded is saved.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, TypeVar

from protobuf import Oneof
from protobuf.wkt import Duration

from layover.cli.buildx import builders, metadata
from layover.cli.buildx.process import Interruption, capture, last_error, run
from layover.cli.buildx.reporting import StatusReporter, report_health
from layover.cli.buildx.workspace import Workspace, create_commands
from layover.cli.errors import CliError, Interrupted, say
from layover.client.address import Server
from layover.client.api import Client
from layover.client.errors import ClientError, NotLayover, ServerFailed, ServerUnreachable
from layover.client.references import Image
from layover.rpc.depot.cli.v1 import build_pb as wire
from layover.units import told_duration

Value = TypeVar("Value")

# How long the end of a build is told to a server that does not answer. It ends builds whose
# client is silent by itself, a while after it is back: one that is to be saved is worth the wait.
_FINISH_WITHIN_SECONDS = 60.0
_SAVE_WITHIN_SECONDS = 300.0
_FINISH_PAUSE_SECONDS = 2.0
_LONGEST_ERROR = 4000
# What ends when a server, or a proxy in front of it, is back.
_MAY_COME_BACK = (ServerUnreachable, ServerFailed, NotLayover)
# How gRPC tells that the other side is gone, as it is and as buildx unwraps it.
_UNAVAILABLE = re.compile(r"(?:code = |: )Unavailable\b")


@dataclass(frozen=True, slots=True)
class Saved:
    """Where the server wants a build pushed to."""

    tags: tuple[str, ...]
    insecure_registry: bool
    several_builders: bool


# What a command line is tried with before anything is begun: wrong usage starts no build.
TRIAL = Saved(("registry.invalid/project:build",), insecure_registry=False, several_builders=False)


@dataclass(frozen=True)
class Plan:
    """What a command line asks for, in the terms of a build's life."""

    options: Sequence[wire.BuildOptions]
    platforms: Sequence[builders.BuilderPlatform]
    project_id: str
    # buildx's arguments, after `--builder`; None when the build is not saved.
    arguments: Callable[[Workspace, Saved | None], list[str]]
    command: str
    dockerfiles: Sequence[wire.Dockerfile] = ()
    stdin: BinaryIO | None = None
    metadata_file: Path | None = None
    retention: timedelta | None = None
    targets: Sequence[str] = ()
    # Variables that say what the arguments say already.
    settled_variables: Sequence[str] = field(default=())

    @property
    def is_saved(self) -> bool:
        return any(option.save for option in self.options)


async def build(server: Server, env: dict[str, str], buildx: Path, plan: Plan) -> int:
    """Do a build; returns buildx's status. Raises a LayoverError, Interrupted among them."""
    with Interruption() as interruption:
        async with Client(server, env=env) as client:
            created = await _interruptible(
                client.create_build(
                    wire.CreateBuildRequest(
                        project_id=plan.project_id or None,
                        options=list(plan.options),
                        retention=None
                        if plan.retention is None
                        else Duration.from_timedelta(plan.retention),
                    )
                )
            )
        if plan.retention is not None and created.retention is None:
            # It reads what it knows and skips the rest.
            say(
                "warning: this server does not know --retention, and keeps the build as it does any"
            )
        # From here on the build's own token does: it opens this build and nothing else.
        own = Server(server.url, created.build_token or server.token)
        async with Client(own, env=env) as client:
            session = _Session(client, env, buildx, plan, created, interruption)
            return await session.run()


class _Session:
    def __init__(
        self,
        client: Client,
        env: dict[str, str],
        buildx: Path,
        plan: Plan,
        created: wire.CreateBuildResponse,
        interruption: Interruption,
    ) -> None:
        self._client, self._env, self._buildx = client, env, buildx
        self._plan, self._created, self._interruption = plan, created, interruption
        self._stopped_because = ""
        self._build_error = ""
        self._lost_builder = ""
        self._metadata: bytes | None = None

    async def run(self) -> int:
        result: Oneof[str, object] = Oneof("canceled", wire.FinishBuildRequest.Canceled())
        health = asyncio.create_task(self._watch_health())
        try:
            status = await _interruptible(self._build())
            if self._interruption.is_requested and status != 0:
                raise Interrupted
            if self._stopped_because and status != 0:
                raise self._stopped()
            if status == 0:
                result = Oneof("success", wire.FinishBuildRequest.Success())
            else:
                result = _failure(f"buildx ended with status {status}", self._build_error)
        except Interrupted:
            if self._stopped_because and not self._interruption.is_requested:
                raise self._stopped() from None
            raise Interrupted(f"build {self._created.build_id} was canceled") from None
        except Exception as error:
            if not self._stopped_because:
                result = _failure(str(error) or type(error).__name__, "")
            raise
        finally:
            health.cancel()
            is_to_be_saved = self._plan.is_saved and result.field == "success"
            within = _SAVE_WITHIN_SECONDS if is_to_be_saved else _FINISH_WITHIN_SECONDS
            problem = await self._uninterrupted(self._finish(result, within))
            await asyncio.gather(health, return_exceptions=True)
            # A build that the server stopped may be gone there, and its token with it.
            if problem is not None and not is_to_be_saved and not self._stopped_because:
                say(f"warning: the end of the build could not be recorded: {problem}")
        if problem is not None and is_to_be_saved:
            raise self._stopped() if self._stopped_because else self._not_saved(problem)
        try:
            if self._plan.metadata_file is not None and self._metadata is not None:
                metadata.write(self._plan.metadata_file, self._metadata)
        finally:
            # The build is good, and saved, also where the file cannot be written.
            self._tell(status)
        return status

    async def _build(self) -> int:
        with Workspace(self._env) as workspace:
            workspace.prepare(self._credentials())
            addresses = await builders.acquire(
                self._client, self._created.build_id, self._plan.platforms, say=say
            )
            saved = self._saved(several_builders=len(addresses) > 1)
            arguments = self._plan.arguments(workspace, saved)
            environment = workspace.environment(arguments)
            for name in self._plan.settled_variables if saved else ():
                environment.pop(name, None)
            for command in create_commands(workspace, addresses):
                await capture(
                    self._buildx, command, environment, what="use the builder", stdin=None
                )
            buildx_metadata = workspace.path("metadata.json")
            if self._plan.metadata_file is not None:
                arguments = ["--metadata-file", str(buildx_metadata), *arguments]
            reporter = StatusReporter(
                self._client,
                self._created.build_id,
                workspace.buildx,
                [address for address, _ in addresses],
            )
            async with reporter:
                context = asyncio.create_task(self._report_context())
                status, messages = await run(
                    self._buildx,
                    [self._plan.command, "--builder", "layover", *arguments],
                    environment,
                    interruption=self._interruption,
                    stdin=self._plan.stdin,
                )
                await context
            if status != 0:
                self._build_error = last_error(messages) or reporter.error
                lost = reporter.lost_builder
                if not lost and _UNAVAILABLE.search(self._build_error) and len(addresses) == 1:
                    # It went before it said a word of the build.
                    lost = addresses[0][0].endpoint
                if lost and not self._interruption.is_requested:
                    self._lost_builder = lost
                    self._build_error = f"{self._lost_message}: {self._build_error}"
            elif self._plan.metadata_file is not None:
                self._metadata = metadata.content_of(
                    buildx_metadata,
                    build_id=self._created.build_id,
                    project_id=self._created.project_id,
                    targets=self._plan.targets,
                )
            return status

    def _credentials(self) -> dict[str, str]:
        return {c.host: c.token for c in self._created.additional_credentials}

    def _saved(self, *, several_builders: bool) -> Saved | None:
        tags = tuple(t.tag for t in self._created.additional_tags if t.push)
        if not tags or not self._plan.is_saved:
            if self._plan.is_saved:
                raise CliError("the server gave no place to save this build in; see its log")
            return None
        server = self._client.server
        # BuildKit speaks HTTPS to every registry but one on its own loopback; what the user
        # reaches over plain HTTP it has to be told.
        insecure = server.is_plain_http and any(
            Image.parse(tag).host == server.registry_host and not _is_loopback(tag) for tag in tags
        )
        return Saved(tags, insecure, several_builders)

    async def _watch_health(self) -> None:
        reason = await report_health(self._client, self._created.build_id, self._plan.platforms)
        self._stopped_because = reason
        self._interruption.stop()

    async def _report_context(self) -> None:
        if self._plan.dockerfiles:
            with contextlib.suppress(ClientError):
                await self._client.report_build_context(
                    self._created.build_id, list(self._plan.dockerfiles)
                )

    async def _finish(self, result: Oneof[str, object], within: float) -> ClientError | None:
        """Record the end of the build, in so many seconds; returns why it could not, if so."""
        request = wire.FinishBuildRequest(build_id=self._created.build_id)
        request.result = result  # type: ignore[assignment]  # one of the three, by construction
        deadline = asyncio.get_running_loop().time() + within
        is_told = False
        while True:
            try:
                await self._client.finish_build(request)
            except _MAY_COME_BACK as error:
                if asyncio.get_running_loop().time() > deadline:
                    return error
                if not is_told:
                    say(
                        "Waiting for the server, to record the end of the build..."
                        " (Ctrl-C three times gives up)"
                    )
                    is_told = True
                await asyncio.sleep(_FINISH_PAUSE_SECONDS)
            except ClientError as error:
                return error
            else:
                return None

    async def _uninterrupted(self, work: Coroutine[None, None, Value]) -> Value:
        """Finish `work` even if a signal cancels the task that waits for it."""
        task = asyncio.ensure_future(work)
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                if self._interruption.is_impatient:
                    task.cancel()
                    raise Interrupted(
                        f"the end of build {self._created.build_id} may not be recorded:"
                        f" `layover builds show {self._created.build_id}` tells"
                    ) from None
        return task.result()

    @property
    def _lost_message(self) -> str:
        return f"the builder at {self._lost_builder} went away during the build"

    def _stopped(self) -> CliError:
        return CliError(f"build {self._created.build_id} was stopped: {self._stopped_because}")

    def _not_saved(self, problem: ClientError) -> CliError:
        build_id = self._created.build_id
        if isinstance(problem, _MAY_COME_BACK):
            # It may have been recorded, with the answer lost.
            return CliError(
                f"build {build_id} is done, and may not be saved, since its end was not"
                f" acknowledged: {problem}. `layover builds show {build_id}` tells"
            )
        return CliError(
            f"build {build_id} is done and not saved, since its end could not be recorded:"
            f" {problem}. Build again: what was built is in the builder's cache"
        )

    def _tell(self, status: int) -> None:
        build_id = self._created.build_id
        if status != 0:
            say(f"\nBuild {build_id} failed.")
            if self._lost_builder:
                say(f"{self._lost_message[0].upper()}{self._lost_message[1:]}: build again.")
            return
        say(f"\nBuild {build_id} is done.")
        if not self._plan.is_saved:
            return
        tags = [t.tag for t in self._created.additional_tags if t.push]
        names = [f"{tags[0]}-{t}" for t in self._plan.targets] if self._plan.targets else tags
        retention = self._created.retention
        kept = f" for {told_duration(retention.to_timedelta())}" if retention is not None else ""
        say(f"It is saved{kept}. To pull it:\n  layover pull {build_id}")
        for name in names:
            say(f"  docker pull {name}")


def _failure(what: str, reason: str) -> Oneof[str, object]:
    message = f"{what}: {reason}" if reason else what
    return Oneof("error", wire.FinishBuildRequest.Error(error=message[-_LONGEST_ERROR:]))


def _is_loopback(tag: str) -> bool:
    # BuildKit's own rule (containerd's docker.MatchLocalhost).
    host = Image.parse(tag).host.rpartition(":")[0] or Image.parse(tag).host
    return host in ("localhost", "::1", "[::1]") or host.startswith("127.")


async def _interruptible(work: Awaitable[Value]) -> Value:
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        raise Interrupted from error
