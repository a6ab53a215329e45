"""Builds on a pool of builders and on the embedded one, and what happens when one dies."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layover.adapters.buildkit.processes import (
    ProcessIdentity,
    processes_rooted_in,
    processes_with_command,
)
from tests.contract.daemons import Daemon
from tests.e2e.conftest import ServerFactory
from tests.e2e.images import busybox_context
from tests.e2e.processes import environment, find, free_port, wait_until
from tests.e2e.server import LAYOVER, LayoverServer


def sleeping_context(folder: Path) -> Path:
    """A context whose build stops in the middle of a step, for as long as anybody waits."""
    context = busybox_context(folder, "never")
    with (context / "Dockerfile").open("a") as file:
        file.write('RUN ["/bin/busybox", "sh", "-c", "echo asleep; sleep 1000"]\n')
    return context


def pool_of(*daemons: Daemon) -> dict[str, str]:
    """The setting that names the daemons as the pool."""
    return {
        "BUILDERS": json.dumps(
            [
                {
                    "name": f"builder{number}",
                    "address": daemon.config.address,
                    "server_name": daemon.config.server_name,
                    "ca_cert": daemon.config.ca_cert,
                    "cert": daemon.config.cert,
                    "key": daemon.config.key,
                }
                for number, daemon in enumerate(daemons, start=1)
            ]
        )
    }


@pytest.fixture
def make_daemon(own_folder: Path) -> Iterator["DaemonFactory"]:
    factory = DaemonFactory(own_folder)
    yield factory
    factory.stop()


class DaemonFactory:
    """Daemons of a test's own, which end with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Daemon] = []

    def __call__(self, *, with_tls: bool = False) -> Daemon:
        folder = self._folder / f"daemon{len(self._made)}"
        folder.mkdir()
        daemon = Daemon(folder, with_tls=with_tls)
        self._made.append(daemon)
        daemon.start()
        return daemon

    def stop(self) -> None:
        for daemon in self._made:
            daemon.stop()
            # What a killed daemon left running.
            for process in processes_rooted_in(daemon.folder):
                process.send(signal.SIGKILL)


@contextmanager
def building(server: LayoverServer, context: Path) -> Iterator["subprocess.Popen[str]"]:
    """`layover build --save` in the middle of its long step."""
    with subprocess.Popen(
        [LAYOVER, "build", "--save", "--progress=plain", context],
        env=server.cli_env(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            assert process.stdout is not None
            said = ""
            # The Dockerfile's own line is echoed too; the step's output comes with a time.
            while " asleep" not in said or "RUN" in said:
                said = process.stdout.readline()
                assert said, f"the build ended early with {process.wait()}"
            yield process
        finally:
            process.kill()


def build_status(server: LayoverServer) -> tuple[str, str]:
    """The ID and the status of the newest build."""
    builds = json.loads(server.cli("list", "builds", "--output", "json").stdout)
    return builds[0]["id"], builds[0]["status"]


def embedded_daemons(server: LayoverServer) -> list[ProcessIdentity]:
    config = server.data_folder / "buildkit" / "buildkitd.toml"
    return processes_with_command(["--config", str(config)])


def test_a_build_goes_to_the_healthy_one_of_a_pool_over_tls(
    start_server: ServerFactory, make_daemon: DaemonFactory, tmp_path: Path
) -> None:
    dead, living = make_daemon(), make_daemon(with_tls=True)
    dead.stop()
    server = start_server(settings=pool_of(dead, living))
    saved = server.save(busybox_context(tmp_path / "context", "hello"))
    assert server.manifest(saved.id).status == 200
    # With builders configured the server starts none of its own.
    assert embedded_daemons(server) == []


def test_a_projects_next_build_finds_its_cache_warm(
    start_server: ServerFactory, make_daemon: DaemonFactory, tmp_path: Path
) -> None:
    server = start_server(settings=pool_of(*(make_daemon() for _ in range(3))))
    context = busybox_context(tmp_path / "context", "hello")
    for expect_cached in (False, True, True):
        done = server.cli("build", "--save", "--progress=plain", str(context))
        assert ("CACHED" in done.stderr + done.stdout) == expect_cached


def test_builders_that_are_unreachable_are_named_when_the_wait_is_over(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    builders = json.dumps([{"name": "away", "address": address}])
    server = start_server(settings={"BUILDERS": builders, "BUILDER_WAIT": "2s"})
    context = busybox_context(tmp_path / "context", "hello")
    done = server.cli("build", "--save", str(context), check=False, timeout=60)
    assert done.returncode == 1
    assert f"away ({address})" in done.stderr
    assert "Connection refused" in done.stderr
    assert build_status(server)[1] == "failed"


def test_a_build_whose_builder_dies_fails_and_the_next_one_finds_another(
    start_server: ServerFactory, make_daemon: DaemonFactory, tmp_path: Path
) -> None:
    daemons = [make_daemon(), make_daemon()]
    server = start_server(settings=pool_of(*daemons))
    with building(server, sleeping_context(tmp_path / "asleep")) as process:
        (used,) = (daemon for daemon in daemons if processes_rooted_in(daemon.folder))
        used.kill()
        assert process.wait(60) == 1
    assert build_status(server)[1] == "failed"
    saved = server.save(busybox_context(tmp_path / "context", "hello"))
    assert server.manifest(saved.id).status == 200


def test_the_embedded_builder_comes_back_after_its_death_in_the_middle_of_a_build(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    server = start_server()
    with building(server, sleeping_context(tmp_path / "asleep")) as process:
        (daemon,) = embedded_daemons(server)
        daemon.send(signal.SIGKILL)
        assert process.wait(60) == 1
    assert build_status(server)[1] == "failed"
    saved = server.save(busybox_context(tmp_path / "context", "hello"))
    assert server.manifest(saved.id).status == 200


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_embedded_builder_does_not_outlive_its_server(
    start_server: ServerFactory, tmp_path: Path, end: str
) -> None:
    server = start_server()
    server.save(busybox_context(tmp_path / "context", "hello"))
    assert len(embedded_daemons(server)) == 1
    server.stop() if end == "stop" else server.kill()
    wait_until(lambda: not embedded_daemons(server), timeout=20, what="the daemon's end")
    # Its cache is still there for the next one.
    server.start()
    done = server.cli("build", "--save", "--progress=plain", str(tmp_path / "context"))
    assert "CACHED" in done.stderr + done.stdout


def test_a_build_whose_client_was_killed_ends_as_canceled(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    server = start_server(settings={"BUILD_CLIENT_TIMEOUT": "8s"})
    with building(server, sleeping_context(tmp_path / "asleep")) as process:
        assert build_status(server)[1] == "running"
        process.kill()
    wait_until(
        lambda: build_status(server)[1] == "canceled",
        timeout=30,
        what="the build's end",
        interval=1,
    )
    build_id, _ = build_status(server)
    refused = server.cli("pull", build_id, check=False)
    assert refused.returncode == 1
    assert "was canceled" in refused.stderr
    assert "not heard of for 8 s" in refused.stderr


def test_deleting_a_running_build_stops_its_client(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    server = start_server()
    with building(server, sleeping_context(tmp_path / "asleep")) as process:
        build_id, _ = build_status(server)
        server.cli("builds", "rm", "--yes", build_id)
        # Its next report of health, within five seconds, is answered with "stop".
        assert process.wait(30) == 1
    assert server.cli("pull", build_id, check=False).returncode == 1
    assert json.loads(server.cli("list", "builds", "--output", "json").stdout) == []


def test_a_server_without_buildkit_serves_its_registry_and_says_what_builds_need(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "env"):
        (programs / name).symlink_to(find(name))
    server = start_server()
    server.stop()
    server.env = {**environment(server.folder), "PATH": str(programs)}
    server.start()
    assert server.request("GET", "/v2/").status == 200
    context = busybox_context(tmp_path / "context", "hello")
    done = server.cli("build", "--save", str(context), check=False)
    assert done.returncode == 1
    assert "buildkitd was not found: install BuildKit" in done.stderr
