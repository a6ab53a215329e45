"""`layover pull`, listings and logins as a user types them, on a terminal and off."""

import csv
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]  # it has no stubs
import pytest

from tests.certificates import Certificates
from tests.e2e.conftest import ServerFactory
from tests.e2e.engines import DockerEngine
from tests.e2e.images import busybox_context
from tests.e2e.processes import environment, find, run
from tests.e2e.server import LAYOVER, LayoverServer, SavedBuild

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(scope="module")
def build(server: LayoverServer, tmp_path_factory: pytest.TempPathFactory) -> SavedBuild:
    """A build with a name of its own."""
    context = busybox_context(tmp_path_factory.mktemp("pull") / "context", "to be pulled")
    return server.save(context, "-t", "to-be/pulled:1.0")


def on_terminal(server: LayoverServer, *arguments: str, **env: str) -> Any:
    return pexpect.spawn(
        str(LAYOVER),
        list(arguments),
        env={**server.cli_env(), "TERM": "xterm", **env},
        encoding="utf-8",
        dimensions=(30, 140),
        timeout=30,
    )


def names_beside(docker: DockerEngine, before: set[str]) -> set[str]:
    return {name for name in docker.image_names() - before if "@" not in name}


def test_without_a_name_the_build_s_own_are_given_and_ours_is_taken_away(
    server: LayoverServer, docker: DockerEngine, build: SavedBuild
) -> None:
    before = docker.image_names()
    pulled = server.cli("pull", build.id, env={"DOCKER_HOST": docker.host})
    assert pulled.stdout == "to-be/pulled:1.0\n"
    assert names_beside(docker, before) == {"to-be/pulled:1.0"}
    # Nor is there a digest's name left of the registry.
    assert not any(name.startswith(server.host) for name in docker.image_names() - before)
    docker("image", "rm", "to-be/pulled:1.0")


def test_a_name_that_docker_has_already_of_the_registry_stays(
    server: LayoverServer, docker: DockerEngine, build: SavedBuild
) -> None:
    docker("login", server.host, "-u", "x-token", "--password-stdin", stdin=server.token)
    docker("pull", build.reference)
    server.cli("pull", build.id, "-t", "stays:mine", env={"DOCKER_HOST": docker.host})
    assert {build.reference, "stays:mine"} <= docker.image_names()
    docker("image", "rm", build.reference, "stays:mine")


def test_a_build_is_pulled_by_its_full_reference_and_by_its_project_and_tag(
    server: LayoverServer, docker: DockerEngine, build: SavedBuild
) -> None:
    env = {"DOCKER_HOST": docker.host}
    for what in (build.reference, f"{server.project_id}:{build.id}"):
        pulled = server.cli("pull", what, env=env)
        assert pulled.stdout == f"{build.reference}\n"
        docker("image", "rm", build.reference)
    digest = server.manifest(build.id).headers["Docker-Content-Digest"]
    by_digest = f"{server.host}/{server.project_id}@{digest}"
    server.cli("pull", by_digest, "-t", "by:digest", env=env)
    assert docker("run", "--rm", "by:digest").stdout == "to be pulled\n"
    docker("image", "rm", "by:digest")


def test_docker_is_found_by_its_context(
    server: LayoverServer, docker: DockerEngine, build: SavedBuild, tmp_path: Path
) -> None:
    env = environment(tmp_path, DOCKER_CONFIG=str(tmp_path / "docker"))
    create = ("context", "create", "elsewhere", "--docker", f"host={docker.host}")
    run([find("docker"), *create], env=env)
    in_use = {"DOCKER_CONFIG": env["DOCKER_CONFIG"]}
    named = {**in_use, "DOCKER_CONTEXT": "elsewhere"}
    assert server.cli("pull", build.id, "-t", "by:context", env=named).stdout == "by:context\n"
    run([find("docker"), "context", "use", "elsewhere"], env=env)
    assert server.cli("pull", build.id, "-t", "by:context", env=in_use).stdout == "by:context\n"
    docker("image", "rm", "by:context")
    unknown = {**in_use, "DOCKER_CONTEXT": "nowhere"}
    missing = server.cli("pull", build.id, "-t", "by:context", env=unknown, check=False)
    assert missing.returncode == 1
    assert "nowhere" in missing.stderr


def test_the_token_goes_to_no_other_registry(server: LayoverServer, docker: DockerEngine) -> None:
    env = {"DOCKER_HOST": docker.host}
    for what in ("docker.io/library/busybox:1", "registry.example.com/aaaaaaaaaa:latest"):
        refused = server.cli("pull", what, env=env, check=False)
        assert refused.returncode == 2
        assert "is not the registry of" in refused.stderr


@pytest.mark.parametrize("what", ["Not/An:image", "busybox", "aaaaaaaaaa/b:c:d", ":tag"])
def test_what_is_no_build_is_wrong_usage(server: LayoverServer, what: str) -> None:
    refused = server.cli("pull", what, check=False)
    assert refused.returncode in (1, 2)
    assert refused.stderr.startswith("error: ")
    assert "Traceback" not in refused.stderr


def test_an_error_in_docker_s_own_stream_fails_the_pull(
    server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "for another machine")
    # Nothing is run in it, so this builder makes it without emulation.
    arm = server.save(context, "--platform=linux/arm64", "--build-platform=linux/amd64")
    env = {"DOCKER_HOST": docker.host}
    failed = server.cli("pull", arm.id, "-t", "arm:only", env=env, check=False)
    assert failed.returncode == 1
    assert "linux/arm64" in failed.stderr
    assert "arm:only" not in docker.image_names()


def test_plain_progress_tells_each_layer_and_quiet_tells_nothing(
    server: LayoverServer, docker: DockerEngine, build: SavedBuild
) -> None:
    env = {"DOCKER_HOST": docker.host}
    plain = server.cli("pull", build.id, "-t", "plain:one", env=env)
    assert "Pull complete" in plain.stderr or "Already exists" in plain.stderr
    assert "\x1b" not in plain.stderr
    assert plain.stdout == "plain:one\n"
    quiet = server.cli("pull", build.id, "-t", "plain:one", "--progress", "quiet", env=env)
    assert (quiet.stdout, quiet.stderr) == ("plain:one\n", "")
    docker("image", "rm", "plain:one")


def test_a_terminal_shows_a_bar_for_each_layer(
    server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    fresh = server.save(busybox_context(tmp_path / "context", f"bars {time.time_ns()}"))
    command = on_terminal(server, "pull", fresh.id, "-t", "with:bars", DOCKER_HOST=docker.host)
    command.expect("Pull complete")
    command.expect("━")
    command.expect("with:bars")
    command.expect(pexpect.EOF)
    command.close()
    assert command.exitstatus == 0
    docker("image", "rm", "with:bars")


def test_off_a_terminal_the_list_is_csv_on_standard_error(
    server: LayoverServer, build: SavedBuild
) -> None:
    listed = server.cli("pull", check=False)
    assert listed.returncode == 2
    assert listed.stdout == ""
    rows = list(csv.DictReader(io.StringIO(listed.stderr)))
    assert [*rows[0]][:2] == ["id", "status"]
    (row,) = (row for row in rows if row["id"] == build.id)
    assert row["expiresIn"] in ("in 7 d", "in 6 d 23 h")
    assert row["expiresAt"].endswith("Z")


def test_on_a_terminal_a_build_is_picked_by_typing_part_of_it(
    server: LayoverServer, docker: DockerEngine, build: SavedBuild, tmp_path: Path
) -> None:
    other = server.save(busybox_context(tmp_path / "context", "another one"), "-t", "other:1")
    command = on_terminal(server, "pull", "-t", "picked:one", DOCKER_HOST=docker.host)
    for shown in ("ID +STATUS +AGE +DURATION +SIZE +EXPIRES +TAGS", other.id, build.id):
        command.expect(shown)
    command.send("be/pulled")
    time.sleep(0.5)  # The list has no prompt to wait for: what was typed is drawn in pieces.
    command.send("\r")
    command.expect("picked:one")
    command.expect(pexpect.EOF)
    command.close()
    assert command.exitstatus == 0
    assert docker("run", "--rm", "picked:one").stdout == "to be pulled\n"


def test_on_a_terminal_arrow_keys_move_and_control_c_leaves(
    server: LayoverServer, docker: DockerEngine, build: SavedBuild, tmp_path: Path
) -> None:
    first = server.save(busybox_context(tmp_path / "first", "the older one"))
    server.save(busybox_context(tmp_path / "second", "the newer one"))
    command = on_terminal(server, "pull", "-t", "picked:older", DOCKER_HOST=docker.host)
    command.expect(first.id)
    time.sleep(0.5)
    command.send("\x1b[B")
    time.sleep(0.5)
    command.send("\r")
    command.expect("picked:older")
    command.expect(pexpect.EOF)
    command.close()
    assert command.exitstatus == 0
    assert docker("run", "--rm", "picked:older").stdout == "the older one\n"

    command = on_terminal(server, "pull", "-t", "picked:none", DOCKER_HOST=docker.host)
    command.expect(build.id)
    time.sleep(0.5)
    command.sendintr()
    command.expect("interrupted")
    command.expect(pexpect.EOF)
    command.close()
    assert command.exitstatus == 130


def test_listings_begin_with_what_scripts_read(server: LayoverServer, build: SavedBuild) -> None:
    builds = json.loads(server.cli("list", "builds", "--output", "json").stdout)
    listed = next(row for row in builds if row["id"] == build.id)
    assert [*listed][:3] == ["id", "status", "createdAt"]
    assert listed["status"] == "finished"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", listed["createdAt"])
    assert listed["tags"] == ["to-be/pulled:1.0"]
    assert listed["sizeBytes"] > 0
    assert server.cli("builds", "list", "-o", "json").stdout.startswith("[")
    projects = json.loads(server.cli("list", "projects", "-o", "json").stdout)
    assert [*projects[0]][:2] == ["id", "name"]
    assert projects[0]["id"] == server.project_id
    assert server.cli("list", "projects", "-o", "csv").stdout.startswith("id,name,")
    table = server.cli("list", "builds").stdout.splitlines()
    assert table[0].split() == ["ID", "STATUS", "AGE", "DURATION", "SIZE", "EXPIRES", "TAGS"]
    assert len(server.cli("list", "builds", "--limit=1", "-o", "csv").stdout.splitlines()) == 2


def test_a_deleted_build_is_gone_and_deleting_asks_first_on_a_terminal(
    server: LayoverServer, tmp_path: Path
) -> None:
    doomed = server.save(busybox_context(tmp_path / "context", "doomed"))
    command = on_terminal(server, "builds", "rm", doomed.id)
    command.expect("Delete")
    command.sendline("n")
    command.expect(pexpect.EOF)
    command.close()
    assert command.exitstatus == 130
    assert server.cli("builds", "show", doomed.id).returncode == 0
    removed = server.cli("builds", "rm", doomed.id, "aaaaaaaaaa", check=False)
    assert removed.returncode == 1
    assert removed.stdout == f"{doomed.id}\n"
    assert "aaaaaaaaaa" in removed.stderr
    for command_line in (("pull", doomed.id), ("builds", "show", doomed.id)):
        gone = server.cli(*command_line, check=False)
        assert gone.returncode == 1
        assert doomed.id in gone.stderr


def test_a_wrong_token_and_a_server_that_is_away_are_told_apart(server: LayoverServer) -> None:
    wrong = server.cli("list", "builds", env={"LAYOVER_TOKEN": "layover_wrong"}, check=False)
    assert wrong.returncode == 1
    assert "token" in wrong.stderr
    assert "layover_wrong" not in wrong.stderr
    away = server.cli("list", "builds", env={"LAYOVER_URL": "http://127.0.0.1:9"}, check=False)
    assert away.returncode == 1
    assert "cannot reach the server at http://127.0.0.1:9" in away.stderr


def test_a_login_serves_every_later_command(
    start_server: ServerFactory, certificates: Certificates, tmp_path: Path
) -> None:
    server = start_server(certificates=certificates)
    env = environment(tmp_path, SSL_CERT_FILE=str(certificates.ca))

    def layover(*arguments: str, stdin: str = "", status: int = 0, **more: str) -> str:
        done = run(
            [LAYOVER, *arguments], env={**env, **more}, cwd=tmp_path, check=False, stdin=stdin
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    assert "--url" in layover("list", "projects", status=2)
    assert "--token" in layover("list", "projects", "--url", server.url, status=2)
    layover("login", "--url", server.url, "--token", "layover_wrong", status=1)
    login = tmp_path / ".config" / "layover" / "config.toml"
    assert not login.exists()
    layover("login", "--url", f"{server.url}/", "--token-stdin", stdin=f"{server.token}\n")
    assert login.stat().st_mode & 0o777 == 0o600
    assert login.parent.stat().st_mode & 0o777 == 0o700
    assert server.project_id in layover("list", "projects")
    login.chmod(0o644)
    assert "chmod 600" in layover("list", "projects")
    login.write_text("[broken")
    told = layover("list", "projects", status=1)
    assert "`layover login --url URL` writes it anew" in told
    layover("login", "--url", server.url, "--token-stdin", stdin=server.token)
    assert server.project_id in layover("list", "projects")
    layover("init", "--project", "aaaaaaaaaa", status=2)
    layover("init")
    assert json.loads((tmp_path / "depot.json").read_text()) == {"id": server.project_id}
    layover("init", status=2)
    context = busybox_context(tmp_path / "deep" / "down", "logged in")
    layover("build", "--save", str(context))
    # Without the authority the certificate is not trusted.
    untrusted = layover(
        "list", "projects", status=1, SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt"
    )
    assert "certificate" in untrusted.lower()
    layover("logout")
    assert server.token not in login.read_text()
    assert "--token" in layover("list", "projects", status=2)
