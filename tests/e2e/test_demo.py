"""`make demo`, and that it leaves nothing but the folder it names."""

import signal
from pathlib import Path

from tests.e2e import processes
from tests.e2e.engines import DockerEngine
from tests.e2e.processes import ROOT, Background, environment, run

DEMO = ROOT / "scripts" / "demo"


def mounts_under(folder: Path) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if f" {folder}/" in line]


def test_the_demo_builds_pulls_and_runs_on_an_engine_of_its_own(own_folder: Path) -> None:
    folder = own_folder / "demo"
    # No engine listens there, so that the demo starts one whatever runs on this machine.
    env = environment(own_folder, DOCKER_HOST=f"unix://{own_folder}/nobody.sock")
    done = run([DEMO, folder], env=env)
    assert "saved in Layover, pulled by its build ID." in done.stdout
    assert f"layover serve --data-dir {folder}/data" in done.stdout
    assert processes.processes_of(folder) == []
    assert mounts_under(folder) == []
    left = {path.name for path in folder.iterdir()}
    assert left == {"build.json", "context", "data", "server.log"}


def test_the_demo_leaves_the_users_docker_engine_as_it_was(
    docker: DockerEngine, own_folder: Path
) -> None:
    before = docker.image_names()
    folder = own_folder / "demo"
    env = {**environment(own_folder), "DOCKER_HOST": docker.host}
    done = run([DEMO, folder], env=env)
    assert "saved in Layover, pulled by its build ID." in done.stdout
    assert docker.image_names() == before
    assert docker("ps", "--all", "--quiet").stdout == ""


def test_an_interrupted_demo_stops_what_it_started(own_folder: Path) -> None:
    folder = own_folder / "demo"
    env = environment(own_folder, DOCKER_HOST=f"unix://{own_folder}/nobody.sock")
    demo = Background([DEMO, folder], env=env, log=own_folder / "demo.log")
    try:
        processes.wait_until(
            lambda: (folder / "docker" / "docker.sock").exists() or not demo.is_running,
            timeout=120,
            what="the demo's engine",
        )
        assert demo.is_running, demo.log()
        demo.signal(signal.SIGINT)
        assert demo.wait(timeout=90) == 130
        assert processes.processes_of(folder) == []
        assert mounts_under(folder) == []
    finally:
        demo.stop()
        processes.remove(folder)


def test_a_demo_that_fails_says_so_and_shows_what_the_server_logged(own_folder: Path) -> None:
    folder = own_folder / "demo"
    # An engine that answers with nothing but a closed connection is no engine, and neither is
    # a dockerd that cannot be found.
    env = environment(own_folder, DOCKER_HOST="tcp://127.0.0.1:1")
    hidden = own_folder / "bin"
    hidden.mkdir()
    (hidden / "dockerd").write_text("#!/bin/sh\necho this engine does not start >&2\nexit 1\n")
    (hidden / "dockerd").chmod(0o755)
    env["PATH"] = f"{hidden}:{env['PATH']}"
    failed = run([DEMO, folder], env=env, check=False)
    assert failed.returncode == 1
    assert "this engine does not start" in failed.stderr
    assert "dockerd did not start" in failed.stderr
    assert f"The end of {folder}/server.log" in failed.stderr
    assert processes.processes_of(folder) == []
