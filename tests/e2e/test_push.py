"""`layover push` to real registries: what arrives, and what becomes of pushes that meet trouble."""

import base64
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]  # it has no stubs
import pytest

from tests.destinations import (
    Distribution,
    Distribution2,
    Distribution3,
    LayoverDestination,
    OtherRegistry,
    TokenServer,
    Zot,
    docker_config,
    started,
)
from tests.e2e.conftest import ServerFactory
from tests.e2e.engines import DockerEngine, Skopeo
from tests.e2e.images import busybox_context
from tests.e2e.processes import Background, wait_until
from tests.e2e.server import LAYOVER, LayoverServer, SavedBuild
from tests.throttle import Throttle

MIB = 1 << 20


@pytest.fixture(scope="module")
def build(server: LayoverServer, tmp_path_factory: pytest.TempPathFactory) -> SavedBuild:
    """A build of a few layers, with an attestation beside the image in its index."""
    folder = tmp_path_factory.mktemp("push") / "context"
    context = busybox_context(folder, "pushed on", [2 * MIB] * 3)
    return server.save(context)


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    server = TokenServer(tmp_path / "tokens")
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["open", "Basic", "tokens", "another Layover"])
def destination(
    request: pytest.FixtureRequest, tmp_path: Path, start_server: ServerFactory
) -> Iterator[OtherRegistry]:
    if request.param == "another Layover":
        other = start_server(settings={"BUILDERS": NO_BUILDER})
        yield LayoverDestination(other)
        return
    folder = tmp_path / "registry"
    registry: Distribution
    match request.param:
        case "open":
            registry = Distribution3(folder)
        case "Basic":
            registry = Distribution2(folder, basic=True)
        case _:
            registry = Distribution3(folder, tokens=request.getfixturevalue("tokens"))
    with started(registry):
        yield registry


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    """One that asks nobody."""
    with started(Distribution3(tmp_path_factory.mktemp("open") / "registry")) as registry:
        yield registry


NO_BUILDER = '[{"name": "none", "address": "tcp://127.0.0.1:1"}]'


def digest_of(server: LayoverServer, build: SavedBuild) -> str:
    digest = server.manifest(build.id).headers["Docker-Content-Digest"]
    assert digest
    return digest


def shown(server: LayoverServer, push_id: str) -> dict[str, Any]:
    (document,) = json.loads(server.cli("pushes", "show", push_id, "--output", "json").stdout)
    assert isinstance(document, dict)
    return document


@pytest.mark.embedded_only
def test_an_image_arrives_whole_and_is_pulled_from_there(
    server: LayoverServer,
    docker: DockerEngine,
    skopeo: Skopeo,
    build: SavedBuild,
    destination: OtherRegistry,
    tmp_path: Path,
) -> None:
    repository = f"{destination.host}/{destination.repository('acme/app')}"
    env = docker_config(tmp_path / "docker", destination.host, destination)
    pushed = server.cli(
        "push", build.id, "-t", f"{repository}:v1", "-t", f"{repository}:2", env=env
    )
    digest = digest_of(server, build)
    assert pushed.stdout.splitlines() == [f"{repository}:v1@{digest}", f"{repository}:2@{digest}"]
    login = destination.credentials
    creds = [f"--creds={login.user}:{login.password}"] if login else ["--no-creds"]
    inspected = skopeo("inspect", *creds, "--tls-verify=false", f"docker://{repository}:2")
    assert json.loads(inspected.stdout)["Digest"] == digest
    if login is not None:
        docker(
            "login", destination.host, "-u", login.user, "--password-stdin", stdin=login.password
        )
    docker("pull", f"{repository}:v1")
    assert docker("run", "--rm", f"{repository}:v1").stdout == "pushed on\n"
    docker("image", "rm", f"{repository}:v1")
    # The login went no further than it had to, and was not kept.
    if login is not None:
        log = server.process.log()
        for secret in (login.password, login.basic):
            assert secret not in log
            assert secret.encode() not in _database(server)
    # What is there is found there.
    again = server.cli("push", build.id, "-t", f"{repository}:v1", "--progress=plain", env=env)
    assert "Layer already exists" in again.stderr
    assert "Pushed" not in again.stderr.replace("Pushed by", "")


def _database(server: LayoverServer) -> bytes:
    return b"".join(path.read_bytes() for path in server.data_folder.glob("layover.db*"))


def test_zot_takes_an_image_and_says_that_it_takes_no_index(
    server: LayoverServer,
    skopeo: Skopeo,
    build: SavedBuild,
    tokens: TokenServer,
    tmp_path: Path,
) -> None:
    with started(Zot(tmp_path / "registry", tokens=tokens)) as registry:
        login = registry.credentials
        assert login is not None
        env = docker_config(tmp_path / "docker", registry.host, registry)
        one = f"{registry.host}/acme/app:v1"
        # A copy in another repository, which is mounted there.
        other = f"{registry.host}/acme/other:v1"
        pushed = server.cli(
            *("push", build.id, "-t", one, "-t", other, "--platform=linux/amd64"), env=env
        )
        creds = f"--creds={login.user}:{login.password}"
        for line, reference in zip(pushed.stdout.splitlines(), (one, other), strict=True):
            inspected = skopeo("inspect", creds, "--tls-verify=false", f"docker://{reference}")
            assert line == f"{reference}@{json.loads(inspected.stdout)['Digest']}"
        whole = f"{registry.host}/acme/app:whole"
        refused = server.cli("push", build.id, "-t", whole, env=env, check=False)
        assert refused.returncode == 1
        assert "415" in refused.stderr
        assert "application/vnd.oci.image.index.v1+json" in refused.stderr
        missing = skopeo("inspect", creds, "--tls-verify=false", f"docker://{whole}", check=False)
        assert missing.returncode


def test_a_detached_push_is_listed_and_shown_until_it_is_done(
    server: LayoverServer, build: SavedBuild, tmp_path: Path
) -> None:
    with started(Distribution3(tmp_path / "registry")) as registry:
        env = docker_config(tmp_path / "docker", registry.host, registry)
        begun = server.cli("push", build.id, "-t", f"{registry.host}/app", "--detach", env=env)
        push_id = begun.stdout.strip()
        wait_until(
            lambda: shown(server, push_id)["status"] == "done", timeout=60, what="the push's end"
        )
        listed = json.loads(server.cli("pushes", "list", "--output", "json").stdout)
        assert listed[0]["id"] == push_id
        assert listed[0]["status"] == "done"
        # Ending it is no error any more, and changes nothing.
        assert shown(server, push_id)["digest"] == digest_of(server, build)


def test_a_server_that_is_killed_goes_on_and_sends_nothing_twice(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    server = start_server()
    context = busybox_context(tmp_path / "context", "goes on", [2 * MIB] * 4)
    build = server.save(context)
    with started(Distribution3(tmp_path / "registry", basic=True)) as registry:
        line = Throttle(registry.port)
        line.rate = MIB / 2
        try:
            env = docker_config(tmp_path / "docker", line.host, registry)
            client = Background(
                [LAYOVER, "push", build.id, "-t", f"{line.host}/app:v1", "--progress=plain"],
                env={**server.cli_env(), **env},
                log=tmp_path / "client.log",
            )
            wait_until(lambda: "Pushed" in client.log(), timeout=60, what="the first layer's end")
            server.kill()
            line.cut()
            before = _completed(registry)
            assert before
            line.rate = None
            server.start()
            # A login is not kept: the client that is still there gives it again.
            assert client.wait(90) == 0, client.log()
        finally:
            line.close()
        completed = _completed(registry)
        assert len(completed) == len(set(completed)), "a blob was sent twice"
        assert set(before) <= set(completed)
        digest = digest_of(server, build)
        assert f"{line.host}/app:v1@{digest}" in client.log()


def _completed(registry: Distribution) -> list[str]:
    """The blobs whose upload was completed, in order."""
    found = re.findall(
        r'"PUT /v2/[^ ]*/blobs/uploads/[^ ]*digest=sha256%3A([0-9a-f]{64})[^ ]* HTTP/1.1" 201',
        registry.process.log(),
    )
    return [str(digest) for digest in found]


@pytest.mark.embedded_only
def test_a_build_that_is_deleted_meanwhile_is_pushed_whole_and_collected_then(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    server = start_server(settings={"REAPER_INTERVAL": "1s", "GC_GRACE": "3s"})
    context = busybox_context(tmp_path / "context", "deleted meanwhile", [6 * MIB])
    build = server.save(context)
    digest = digest_of(server, build)
    with started(Distribution3(tmp_path / "registry")) as registry:
        line = Throttle(registry.port)
        line.rate = MIB / 2
        try:
            env = docker_config(tmp_path / "docker", line.host, registry)
            begun = server.cli("push", build.id, "-t", f"{line.host}/app:v1", "--detach", env=env)
            push_id = begun.stdout.strip()
            wait_until(
                lambda: any(
                    one["state"] == "sending" for one in shown(server, push_id)["transfers"]
                ),
                timeout=30,
                what="a layer on its way",
            )
            server.cli("builds", "rm", "--yes", build.id)
            for reference in (build.id, digest):
                path = f"/v2/{server.project_id}/manifests/{reference}"
                assert server.request("GET", path).status == 404
            wait_until(
                lambda: shown(server, push_id)["status"] not in ("queued", "running"),
                timeout=60,
                what="the push's end",
            )
        finally:
            line.close()
        ended = shown(server, push_id)
        assert (ended["status"], ended["digest"]) == ("done", digest), ended
    wait_until(
        lambda: not any(path.is_file() for path in server.blob_folder.rglob("*")),
        timeout=60,
        what="the bytes' end",
    )
    assert server.cli("admin", "verify", "--data-dir", str(server.data_folder)).returncode == 0


def test_ctrl_c_stops_the_push_on_the_server(
    server: LayoverServer, build: SavedBuild, tmp_path: Path
) -> None:
    with started(Distribution3(tmp_path / "registry")) as registry:
        line = Throttle(registry.port)
        line.rate = MIB / 8
        try:
            env = docker_config(tmp_path / "docker", line.host, registry)
            client = Background(
                [LAYOVER, "push", build.id, "-t", f"{line.host}/app:v1", "--progress=plain"],
                env={**server.cli_env(), **env},
                log=tmp_path / "client.log",
            )
            wait_until(lambda: "Pushing" in client.log(), timeout=60, what="a layer on its way")
            client.signal(signal.SIGINT)
            assert client.wait(30) == 130, client.log()
        finally:
            line.close()
        listed = json.loads(server.cli("pushes", "list", "--output", "json").stdout)
        assert listed[0]["status"] == "canceled"
        assert not list(registry.folder.rglob("tags/v1"))


def test_a_terminal_shows_a_bar_for_each_layer_and_takes_ctrl_c(
    server: LayoverServer, build: SavedBuild, tmp_path: Path
) -> None:
    with started(Distribution3(tmp_path / "registry")) as registry:
        line = Throttle(registry.port)
        line.rate = MIB / 2
        try:
            env = docker_config(tmp_path / "docker", line.host, registry)
            command = pexpect.spawn(
                str(LAYOVER),
                ["push", build.id, "-t", f"{line.host}/app:v1"],
                env={**server.cli_env(), **env, "TERM": "xterm"},
                encoding="utf-8",
                codec_errors="replace",  # What Ctrl-C is echoed as may come within a character.
                dimensions=(30, 140),
                timeout=30,
            )
            command.expect("Pushing.*━")
            command.sendintr()
            command.expect("Stopping push ([a-z2-7]{10}); Ctrl-C once more leaves at once")
            push_id = command.match[1]
            command.expect(f"push {push_id} was canceled")
            command.expect(pexpect.EOF)
            command.close()
        finally:
            line.close()
    assert command.exitstatus == 130
    assert shown(server, push_id)["status"] == "canceled"


@pytest.mark.parametrize("wrong", ["no login", "wrong password"])
def test_what_a_registry_does_not_let_in_says_what_to_do(
    server: LayoverServer, build: SavedBuild, tmp_path: Path, wrong: str
) -> None:
    with started(Distribution2(tmp_path / "registry", basic=True)) as registry:
        folder = tmp_path / "docker"
        folder.mkdir()
        auths = {}
        if wrong == "wrong password":
            auth = base64.b64encode(b"pusher:wrong").decode()
            auths[registry.host] = {"auth": auth}
        (folder / "config.json").write_text(json.dumps({"auths": auths}))
        failed = server.cli(
            *("push", build.id, "-t", f"{registry.host}/app:v1"),
            env={"DOCKER_CONFIG": str(folder)},
            check=False,
        )
        assert failed.returncode == 1
        assert f"docker login {registry.host}" in failed.stderr
        assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("aaaaaaaaaa", "-t", "REGISTRY/app"), 1, "unknown build"),
        (("BUILD", "-t", "REGISTRY/app:no good"), 2, "invalid"),
        (("BUILD", "-t", "REGISTRY/app", "--target", "web"), 2, "target"),
        (("BUILD", "-t", "REGISTRY/app", "--platform", "linux/s390x"), 2, "linux/amd64"),
        (("BUILD",), 2, "-t"),
    ],
)
def test_bad_input_is_named(
    server: LayoverServer,
    build: SavedBuild,
    open_registry: Distribution,
    arguments: tuple[str, ...],
    status: int,
    told: str,
) -> None:
    known = {"BUILD": build.id, "REGISTRY": open_registry.host}
    words = [re.sub("BUILD|REGISTRY", lambda found: known[found[0]], word) for word in arguments]
    failed = server.cli("push", *words, check=False)
    assert failed.returncode == status, failed.stderr
    assert told in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_build_that_failed_or_is_over_is_pushed_nowhere(
    server: LayoverServer, open_registry: Distribution, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "over")
    over = server.save(context, "--retention", "3s")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY nothing /\n")
    failed = server.cli("build", "--save", str(context), check=False)
    assert failed.returncode
    # The newest is listed first; other tests' builds failed before it.
    newest = json.loads(server.cli("list", "builds", "--output", "json").stdout)[0]
    assert newest["status"] == "failed"
    failed_id = newest["id"]
    path = f"/v2/{server.project_id}/manifests/{over.id}"
    wait_until(
        lambda: server.request("GET", path).status == 404, timeout=30, what="the end of its time"
    )
    for build_id, told in (
        (failed_id, f"build {failed_id} failed"),
        (over.id, f"build {over.id} expired at "),
    ):
        refused = server.cli("push", build_id, "-t", f"{open_registry.host}/over", check=False)
        assert refused.returncode == 1
        assert told in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_token_that_only_pulls_pushes_nothing_on(
    server: LayoverServer, build: SavedBuild, open_registry: Distribution
) -> None:
    token = server.cli("pull-token", build.id).stdout.strip()
    failed = server.cli(
        *("push", build.id, "-t", f"{open_registry.host}/app:v1"),
        env={"LAYOVER_TOKEN": token},
        check=False,
    )
    assert failed.returncode == 1
    assert "may not push builds on to other registries" in failed.stderr
