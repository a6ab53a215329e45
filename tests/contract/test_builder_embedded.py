"""The BuildKit that the server runs itself: it comes back, it ends, and it lets nobody else in."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from layover.adapters.buildkit import embedded as embedded_module
from layover.adapters.buildkit import processes
from layover.adapters.buildkit.daemon_config import RegistryAccess
from layover.adapters.buildkit.embedded import EmbeddedBuilder
from layover.adapters.buildkit.mounts import mounts_below
from layover.adapters.buildkit.probe import probe
from layover.adapters.buildkit.processes import (
    ProcessIdentity,
    processes_rooted_in,
    processes_with_command,
)
from layover.builds.errors import BuilderUnhealthy
from tests.contract.daemons import eventually, now, short_folder
from tests.e2e.images import busybox_context
from tests.e2e.processes import ROOT, environment, find

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def folder() -> AsyncIterator[Path]:
    async with short_folder() as folder:
        yield folder


def make(folder: Path, binary: str = "buildkitd") -> EmbeddedBuilder:
    return EmbeddedBuilder(
        folder / "buildkit", RegistryAccess("127.0.0.1:5000", plain_http=True), now, binary=binary
    )


@asynccontextmanager
async def running(builder: EmbeddedBuilder) -> AsyncIterator[None]:
    task = asyncio.create_task(builder.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def healthy(builder: EmbeddedBuilder) -> None:
    async def check() -> bool:
        return await trouble(builder) is None

    await eventually(check, "the embedded daemon")


async def trouble(builder: EmbeddedBuilder) -> BuilderUnhealthy | None:
    try:
        await builder.check()
    except BuilderUnhealthy as error:
        return error
    return None


async def told(builder: EmbeddedBuilder, text: str) -> BuilderUnhealthy:
    """Wait until the builder's trouble says `text`."""
    found: list[BuilderUnhealthy] = []

    async def check() -> bool:
        error = await trouble(builder)
        if error is not None and text in error.reason:
            found.append(error)
        return bool(found)

    await eventually(check, f"{text!r}")
    return found[0]


def daemons(folder: Path) -> list[ProcessIdentity]:
    return processes_with_command(["--config", str(folder / "buildkit" / "buildkitd.toml")])


def containers(folder: Path) -> list[ProcessIdentity]:
    return processes_rooted_in(folder / "buildkit" / "root")


def mounts(folder: Path) -> list[str]:
    return mounts_below(folder, Path("/proc/self/mountinfo").read_text())


async def gone(folder: Path) -> None:
    async def check() -> bool:
        return not daemons(folder) and not containers(folder)

    await eventually(check, "the daemon's and its containers' end")


@asynccontextmanager
async def building(builder: EmbeddedBuilder, folder: Path) -> AsyncIterator[None]:
    """A build in the middle of a long step."""
    context = busybox_context(folder / "context", "hello")
    with (context / "Dockerfile").open("a") as file:
        file.write('RUN ["/bin/busybox", "sleep", "1000"]\n')
    credentials = await builder.credentials("build1")
    for name in ("ca_cert", "cert", "key"):
        (folder / name).write_text(str(getattr(credentials, name)))
    build = await asyncio.create_subprocess_exec(
        *(find("buildctl"), "--addr", builder.address, "--tlsservername", builder.server_name),
        *("--tlscacert", folder / "ca_cert", "--tlscert", folder / "cert"),
        *("--tlskey", folder / "key", "build", "--frontend", "dockerfile.v0"),
        *("--local", f"context={context}", "--local", f"dockerfile={context}"),
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        async def runs() -> bool:
            return bool(containers(folder))

        await eventually(runs, "the build's step")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            build.kill()
        await build.wait()


async def test_a_certificate_of_somebody_else_opens_nothing(folder: Path) -> None:
    builder, other = make(folder), make(folder / "other")
    async with running(builder), running(other):
        await healthy(builder)
        await healthy(other)
        foreign, own = await other.credentials("b"), await builder.credentials("b")
        for credentials in (
            None,
            replace(own, cert=None, key=None),
            replace(own, cert=foreign.cert, key=foreign.key),
        ):
            with pytest.raises(BuilderUnhealthy):
                await probe(builder.address, builder.server_name, credentials)


async def test_a_daemon_that_is_killed_comes_back_at_its_address(folder: Path) -> None:
    builder = make(folder)
    async with running(builder):
        await healthy(builder)
        address = builder.address
        (daemon,) = daemons(folder)
        async with building(builder, folder):
            daemon.send(signal.SIGKILL)
            await told(builder, "was killed by SIGKILL; it is started again")
            await healthy(builder)
        assert builder.address == address
        (successor,) = daemons(folder)
        assert successor != daemon
        # The step that it ran died with it, and its file system is gone.
        assert containers(folder) == []
        assert mounts(folder) == []


async def test_a_daemon_that_answers_nobody_any_more_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_module, "_WEDGED_SECONDS", 2.0)
    monkeypatch.setattr(processes, "STOP_TIMEOUT_SECONDS", 1.0)
    builder = make(folder)
    async with running(builder):
        await healthy(builder)
        (daemon,) = daemons(folder)
        daemon.send(signal.SIGSTOP)
        await told(builder, "did not answer for 2 s")
        await healthy(builder)
        (successor,) = daemons(folder)
        assert successor != daemon


async def test_the_end_of_the_server_is_the_end_of_the_daemon_and_of_its_containers(
    folder: Path,
) -> None:
    builder = make(folder)
    async with running(builder):
        await healthy(builder)
        async with building(builder, folder):
            pass
    assert daemons(folder) == []
    assert containers(folder) == []


async def test_the_daemon_of_a_killed_server_ends_and_its_folder_serves_the_next(
    folder: Path,
) -> None:
    # A server's stand-in: a process that runs the builder and nothing else.
    script = (
        "import asyncio, sys; from pathlib import Path; from tests.contract import"
        " test_builder_embedded as t; asyncio.run(t.make(Path(sys.argv[1])).run())"
    )
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(folder)), env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    builder = make(folder)
    try:

        async def has_started() -> bool:
            return any("buildkitd" in process.command[0] for process in daemons(folder))

        await eventually(has_started, "the other server's daemon")
        async with running(builder):
            # Two servers never share a folder, and the second one says so.
            await told(builder, "another server")
            server.kill()
            await server.wait()
            await healthy(builder)
            assert len(daemons(folder)) == 1
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill()
        await server.wait()
    await gone(folder)


async def test_a_daemon_that_was_left_over_is_ended_before_a_new_one_starts(folder: Path) -> None:
    builder = make(folder)
    async with running(builder):
        await healthy(builder)
    # As if the kernel had not told it that its server died.
    config = folder / "buildkit" / "buildkitd.toml"
    stale = await asyncio.create_subprocess_exec(
        *(find("buildkitd"), "--config", config),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    async with running(builder):
        await healthy(builder)
        assert await stale.wait() is not None
        (daemon,) = daemons(folder)
        assert daemon.pid != stale.pid


async def test_a_missing_buildkitd_is_named_with_how_to_get_it(folder: Path) -> None:
    builder = make(folder, binary="no-such-buildkitd")
    async with running(builder):
        error = await told(builder, "no-such-buildkitd was not found: install BuildKit")
        assert not error.can_recover


async def test_a_missing_runc_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = folder / "bin"
    programs.mkdir()
    (programs / "buildkitd").symlink_to(find("buildkitd"))
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(embedded_module, "_MORE_PATH", str(programs))
    builder = make(folder)
    async with running(builder):
        error = await told(builder, "runc")
        assert not error.can_recover


async def test_a_user_that_is_not_root_is_told_about_rootless_buildkit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    builder = make(folder)
    async with running(builder):
        error = await told(builder, "rootlesskit")
        assert not error.can_recover


async def test_a_daemon_that_ends_at_once_is_unhealthy_with_its_last_words(folder: Path) -> None:
    script = folder / "buildkitd"
    script.write_text("#!/bin/sh\necho 'the disk is on fire' >&2\nexit 3\n")
    script.chmod(0o755)
    builder = make(folder, binary=str(script))
    async with running(builder):
        error = await told(builder, "ended with 3: the disk is on fire; it is started again")
        assert error.can_recover


async def test_nobody_else_reads_the_keys(folder: Path) -> None:
    builder = make(folder)
    async with running(builder):
        await healthy(builder)
    assert (folder / "buildkit").stat().st_mode & 0o077 == 0
    for path in (folder / "buildkit" / "certs").iterdir():
        assert path.stat().st_mode & 0o077 == 0


async def test_a_folder_with_a_long_path_serves_too(folder: Path) -> None:
    builder = make(folder / ("long" * 30))
    async with running(builder):
        await healthy(builder)
