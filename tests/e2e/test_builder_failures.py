"""Builders that are missing, away or die, and build clients that vanish."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ServerFactory
from tests.e2e.images import busybox_context
from tests.e2e.processes import (
    PATH,
    Background,
    environment,
    find,
    free_port,
    processes_of,
    remove,
    wait_until,
)
from tests.e2e.server import LAYOVER, LayoverServer


def path_without(folder: Path, *programs: str) -> str:
    """Return a PATH on which everything is but these programs."""
    folder.mkdir()
    for directory in PATH.split(os.pathsep):
        for program in Path(directory).iterdir() if Path(directory).is_dir() else ():
            link = folder / program.name
            if program.name not in programs and not link.is_symlink():
                link.symlink_to(program)
    return str(folder)


def slow_context(folder: Path) -> Path:
    """Make a build context whose build takes longer than any test waits for it."""
    context = busybox_context(folder, "unused")
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\n"
        'RUN ["/bin/busybox", "sh", "-c", "echo it is running; /bin/busybox sleep 300"]\n'
    )
    return context


class RunningBuild:
    """`layover build` in the background, at its slow step."""

    def __init__(self, server: LayoverServer, context: Path) -> None:
        self._server = server
        self.process = Background(
            [LAYOVER, "build", "--save", "--progress=plain", context],
            env=server.cli_env(),
            log=context / "build.log",
        )
        wait_until(
            # The step's own output, not its name.
            lambda: "it is running\n" in self.process.log() or not self.process.is_running,
            timeout=60,
            what="the build's slow step",
        )
        assert self.process.is_running, self.process.log()


def newest_status(server: LayoverServer) -> str:
    builds: list[dict[str, Any]] = json.loads(
        server.cli("list", "builds", "--output", "json").stdout
    )
    return str(builds[0]["status"])


def buildkitd_of(server: LayoverServer) -> int:
    """Return the process of the builder that the server started."""
    for pid in processes_of(server.data_folder):
        if Path(f"/proc/{pid}/comm").read_text().strip() == "buildkitd":
            return pid
    raise AssertionError("the server runs no buildkitd")


def test_a_builder_that_dies_in_a_build_fails_it_and_is_there_for_the_next_one(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    server = start_server()
    running = RunningBuild(server, slow_context(tmp_path / "slow"))
    os.kill(buildkitd_of(server), signal.SIGKILL)
    assert running.process.wait(timeout=60) == 1, running.process.log()
    assert "The builder at tcp://127.0.0.1:" in running.process.log()
    assert "went away during the build: build again." in running.process.log()
    assert newest_status(server) == "failed"
    server.save(busybox_context(tmp_path / "next", "built by the next one"))


def test_a_build_whose_client_is_killed_ends_as_canceled(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    server = start_server(settings={"BUILD_CLIENT_TIMEOUT": "6s"})
    running = RunningBuild(server, slow_context(tmp_path / "slow"))
    assert newest_status(server) == "running"
    running.process.stop(timeout=0)
    wait_until(lambda: newest_status(server) == "canceled", timeout=30, what="its end", interval=1)


def test_a_builder_that_cannot_be_reached_is_told_after_the_wait(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    away = [{"name": "away", "address": f"tcp://127.0.0.1:{free_port()}"}]
    server = start_server(settings={"BUILDERS": json.dumps(away), "BUILDER_WAIT": "2s"})
    context = busybox_context(tmp_path / "context", "never built")
    start = time.monotonic()
    done = server.cli("build", "--save", str(context), check=False)
    assert done.returncode == 1
    assert "builder" in done.stderr
    assert 2 <= time.monotonic() - start < 30
    assert newest_status(server) == "failed"


def test_without_buildkitd_the_server_serves_and_a_build_is_told_what_is_missing(
    own_folder: Path, tmp_path: Path
) -> None:
    server = LayoverServer(own_folder / "server", settings={"BUILDER_WAIT": "2s"})
    server.env["PATH"] = path_without(tmp_path / "path", "buildkitd")
    try:
        server.start()
        assert server.request("GET", "/v2/").status == 200
        context = busybox_context(tmp_path / "context", "never built")
        done = server.cli("build", "--save", str(context), check=False)
        assert done.returncode == 1
        assert "buildkitd" in done.stderr
    finally:
        server.remove()


def test_without_buildx_a_build_says_how_to_get_it(server: LayoverServer, tmp_path: Path) -> None:
    path = path_without(tmp_path / "path", "buildx", "docker-buildx", "docker")
    context = busybox_context(tmp_path / "context", "never built")
    done = server.cli("build", "--save", str(context), env={"PATH": path}, check=False)
    assert done.returncode == 1
    assert "buildx" in done.stderr
    assert "https://" in done.stderr


class PoolBuilder:
    """A BuildKit daemon of a pool, in plain text on loopback, on an address that outlives it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.start()

    def start(self) -> None:
        folder = self._folder
        command: list[str | Path] = [find("buildkitd"), "--addr", self.address]
        command += ["--root", folder / "root", "--otel-socket-path", folder / "otel.sock"]
        self._daemon = Background(command, env=environment(folder), log=folder / "log")

    def kill(self) -> None:
        self._daemon.stop(timeout=0)

    def remove(self) -> None:
        self.kill()
        remove(self._folder)


@pytest.fixture
def pool(own_folder: Path) -> Iterator[list[PoolBuilder]]:
    builders = [PoolBuilder(own_folder / f"buildkitd{number}") for number in range(2)]
    yield builders
    for builder in builders:
        builder.remove()


def test_a_dead_builder_of_a_pool_is_passed_over(
    pool: list[PoolBuilder], start_server: ServerFactory, tmp_path: Path
) -> None:
    described = [
        {"name": f"builder{number}", "address": builder.address}
        for number, builder in enumerate(pool)
    ]
    server = start_server(settings={"BUILDERS": json.dumps(described), "BUILDER_WAIT": "30s"})
    context = busybox_context(tmp_path / "context", "built by one of two")
    server.save(context)
    # One of the two has the warm cache and is asked for first: its death shows in one turn.
    for builder in pool:
        builder.kill()
        server.save(context)
        builder.start()
        server.save(context)
