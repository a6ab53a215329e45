"""A saved build and the Docker Engine: pulled by its ID, by its reference, and pushed to."""

import json
from pathlib import Path

import pytest

from tests.e2e.engines import DockerEngine
from tests.e2e.images import busybox_context
from tests.e2e.pairs import REPLICATED
from tests.e2e.processes import find, run
from tests.e2e.server import LAYOVER, LayoverServer

pytestmark = pytest.mark.pairs(REPLICATED)


def test_a_build_pulled_by_its_id_runs_under_the_names_that_were_asked_for(
    server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    build = server.save(busybox_context(tmp_path / "context", "pulled by its build ID"))
    before = docker.image_names()
    names = ("pulled-by-id:one", "pulled-by-id:two")
    server.cli("pull", build.id, "-t", names[0], "-t", names[1], env={"DOCKER_HOST": docker.host})
    assert {name for name in docker.image_names() - before if "@" not in name} == set(names)
    for name in names:
        assert docker("run", "--rm", name).stdout == "pulled by its build ID\n"


def test_the_lines_of_the_documentation_work_as_they_are_written(
    server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "as it is written")
    script = """
        set -eu
        depot build --save --metadata-file=build.json .
        depot pull $(cat build.json | jq -r .\\[\\"depot.build\\"\\].buildID)
        id=$(jq -r '.["depot.build"].buildID' build.json)
        project=$(jq -r '.["depot.build"].projectID' build.json)
        depot pull "$id" -t written:latest
        docker login "$HOST" -u x-token -p "$LAYOVER_TOKEN"
        docker pull "$HOST/$project:$id"
        docker run --rm "$HOST/$project:$id"
    """
    env = {
        **server.cli_env(),
        "HOST": server.host,
        "DOCKER_HOST": docker.host,
        "DOCKER_CONFIG": str(tmp_path / "docker-config"),
    }
    done = run([find("sh"), "-c", script], env=env, cwd=context)
    assert done.stdout.endswith("as it is written\n")
    assert docker("run", "--rm", "written:latest").stdout == "as it is written\n"


def test_docker_pulls_only_with_a_token_that_opens_the_project(
    server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    build = server.save(busybox_context(tmp_path / "context", "not for everybody"))
    docker("logout", server.host)
    anonymous = docker("pull", build.reference, check=False)
    assert anonymous.returncode != 0
    wrong = docker(
        *("login", server.host, "-u", "x-token", "--password-stdin"), check=False, stdin="wrong"
    )
    assert wrong.returncode != 0
    assert "unauthorized" in wrong.stderr.lower()
    docker("login", server.host, "-u", "x-token", "--password-stdin", stdin=server.token)
    docker("pull", build.reference)
    assert docker("run", "--rm", build.reference).stdout == "not for everybody\n"


def test_what_docker_pushes_it_pulls_back_with_the_same_digest(
    server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    build = server.save(busybox_context(tmp_path / "context", "there and back"))
    server.cli("pull", build.id, "-t", "back:latest", env={"DOCKER_HOST": docker.host})
    docker("login", server.host, "-u", "x-token", "--password-stdin", stdin=server.token)
    target = f"{server.host}/{server.project_id}/there/and:back"
    docker("tag", "back:latest", target)
    pushed = docker("push", target).stdout
    docker("image", "rm", target, "back:latest")
    pulled = docker("pull", target).stdout
    digest = next(line for line in pulled.splitlines() if line.startswith("Digest: ")).split()[1]
    assert digest in pushed
    assert docker("run", "--rm", target).stdout == "there and back\n"


def test_a_build_needs_no_docker_daemon(server: LayoverServer, tmp_path: Path) -> None:
    context = busybox_context(tmp_path / "context", "built without Docker")
    env = {"DOCKER_HOST": f"unix://{tmp_path}/nobody-listens.sock"}
    metadata_file = tmp_path / "build.json"
    server.cli(*("build", "--save", f"--metadata-file={metadata_file}", str(context)), env=env)
    assert server.manifest(server.saved(metadata_file).id).status == 200
    pull = server.cli("pull", server.saved(metadata_file).id, "-t", "a:b", env=env, check=False)
    assert pull.returncode == 1
    assert "docker" in pull.stderr.lower()


def test_a_build_that_was_never_saved_and_an_unknown_one_cannot_be_pulled(
    server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "not saved")
    metadata_file = tmp_path / "build.json"
    server.cli("build", f"--metadata-file={metadata_file}", str(context))
    build_id = json.loads(metadata_file.read_text())["depot.build"]["buildID"]
    env = {"DOCKER_HOST": docker.host}
    not_saved = server.cli("pull", build_id, "-t", "never:saved", env=env, check=False)
    assert not_saved.returncode == 1
    assert build_id in not_saved.stderr
    assert "--save" in not_saved.stderr
    unknown = server.cli("pull", "aaaaaaaaaa", "-t", "un:known", env=env, check=False)
    assert unknown.returncode == 1
    assert "aaaaaaaaaa" in unknown.stderr


def test_an_error_in_the_dockerfile_is_shown_in_the_builders_own_words(
    server: LayoverServer, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "never built")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY no-such-file /\n")
    failed = server.cli("build", "--save", str(context), check=False)
    assert failed.returncode == 1
    assert '"/no-such-file": not found' in failed.stderr
    (context / "Dockerfile").write_text("FROM scratch\nFETCH everything\n")
    wrong = server.cli("build", "--save", str(context), check=False)
    assert wrong.returncode == 1
    assert "unknown instruction: FETCH" in wrong.stderr
    builds = json.loads(server.cli("list", "builds", "--output", "json").stdout)
    assert [build["status"] for build in builds[:2]] == ["failed", "failed"]


def test_no_secret_is_on_a_command_line_while_a_build_runs(
    server: LayoverServer, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "watched")
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\n"
        'RUN ["/bin/busybox", "sleep", "3"]\nCMD ["/bin/busybox", "true"]\n'
    )
    watcher = r"""
        "$LAYOVER" build --save . >build.log 2>&1 &
        build=$!
        while kill -0 $build 2>/dev/null; do
            cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' >>command-lines
            sleep 0.2
        done
        wait $build
    """
    env = {**server.cli_env(), "LAYOVER": str(LAYOVER)}
    run([find("sh"), "-c", watcher], env=env, cwd=context)
    command_lines = (context / "command-lines").read_text(errors="replace")
    assert "buildx" in command_lines
    assert server.token not in command_lines
