"""Replicas that are killed under docker, buildx and skopeo, whose own retries are enough, and under
pushes to other registries, which another one goes on with."""

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from layover.adapters.sql.builds import end_builds
from layover.adapters.sql.schema import builds
from layover.builds.models import BuildStatus
from tests.contract.daemons import Daemon
from tests.destinations import Distribution, Distribution3, TokenServer, started
from tests.e2e.engines import DockerEngine, Skopeo
from tests.e2e.images import MIB, OciLayout, random_file
from tests.e2e.processes import Background, environment, find, run, wait_until
from tests.e2e.registry import Registry, Tenant, add_tenant, basic, digest_of
from tests.e2e.replicas import Replicas, replicas
from tests.e2e.server import LAYOVER
from tests.objects import S3Server
from tests.postgres import Postgres
from tests.throttle import Throttle
from tests.token_server import CREDENTIALS

LAYERS, LAYER_BYTES = 4, 12 * MIB


@pytest.fixture(scope="module")
def cluster(short_tmp: Path, postgres: Postgres, s3: S3Server) -> Iterator[Replicas]:
    with replicas(short_tmp / "replicas", postgres, s3) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def shown_logs(cluster: Replicas) -> Iterator[None]:
    """Print what nginx said during a test; pytest shows it when the test fails."""
    start = len(cluster.nginx.log())
    yield
    print(cluster.nginx.log()[start:][-20_000:])


def context_of_random_layers(folder: Path) -> Path:
    folder.mkdir()
    lines = ["FROM scratch"]
    for number in range(LAYERS):
        random_file(folder / f"layer{number}", LAYER_BYTES)
        lines.append(f"COPY layer{number} /layer{number}")
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    return folder


def test_docker_pushes_and_pulls_while_replicas_are_killed(
    cluster: Replicas, docker: DockerEngine, tmp_path: Path
) -> None:
    docker("login", cluster.host, "-u", "x-token", "--password-stdin", stdin=cluster.token)
    names = []
    for number in range(4):
        context = context_of_random_layers(tmp_path / f"context{number}")
        name = f"{cluster.host}/{cluster.project_id}/docker{number}:killed"
        docker("build", "-t", name, str(context))
        names.append(name)
    ids = {name: docker("image", "inspect", "-f", "{{.Id}}", name).stdout for name in names}
    with cluster.one_killed_now_and_then(2, seed=1) as kills, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: docker("push", name), names))
        for name in names:
            docker("rmi", name)
        list(pool.map(lambda name: docker("pull", name), names))
        assert kills
    for name in names:
        assert docker("image", "inspect", "-f", "{{.Id}}", name).stdout == ids[name]
        docker("rmi", name)
    cluster.servers[0].assert_whole()


def test_skopeo_copies_there_and_back_while_replicas_are_killed(
    cluster: Replicas, skopeo: Skopeo, tmp_path: Path
) -> None:
    creds = f"x-token:{cluster.token}"

    def there_and_back(number: int) -> None:
        layout = OciLayout(tmp_path / f"layout{number}", [LAYER_BYTES] * LAYERS)
        target = f"docker://{cluster.host}/{cluster.project_id}/skopeo{number}:killed"
        skopeo(
            *("copy", "--preserve-digests", "--retry-times", "5", "--dest-tls-verify=false"),
            *("--dest-creds", creds, f"oci:{layout.folder}", target),
        )
        copy = tmp_path / f"copy{number}"
        copy_back = (
            *("copy", "--preserve-digests", "--retry-times", "5", "--src-tls-verify=false"),
            *("--src-creds", creds, target, f"oci:{copy}:copy"),
        )
        # Of what it reads, Debian's skopeo retries what was not answered, not what was cut while
        # it came: no server can mend that, so whoever runs it does.
        for _ in range(5):
            done = skopeo(*copy_back, check=False)
            if "unexpected EOF" not in done.stderr:
                break
        assert done.returncode == 0, done.stderr
        copied = json.loads((copy / "index.json").read_text())["manifests"][0]["digest"]
        assert copied == layout.digest

    with cluster.one_killed_now_and_then(2, seed=2) as kills, ThreadPoolExecutor(2) as pool:
        list(pool.map(there_and_back, range(6)))
        assert kills
    cluster.servers[0].assert_whole()


def test_buildx_pushes_while_replicas_are_killed(
    cluster: Replicas, docker: DockerEngine, own_folder: Path, tmp_path: Path
) -> None:
    daemon = Daemon(own_folder, with_tls=False)
    daemon.start()
    docker("login", cluster.host, "-u", "x-token", "--password-stdin", stdin=cluster.token)
    try:
        buildx = find("buildx")
        env = {**docker.env, "BUILDX_CONFIG": str(own_folder / "buildx")}
        create = ("create", "--name", "killed", "--driver", "remote", daemon.config.address)
        wait_until(
            lambda: (
                run([buildx, "inspect", "killed"], env=env, check=False).returncode == 0
                or run([buildx, *create], env=env, check=False).returncode == 0
            ),
            timeout=30,
            what="a builder",
        )
        with cluster.one_killed_now_and_then(2, seed=3) as kills:
            for number in range(4):
                context = context_of_random_layers(tmp_path / f"context{number}")
                name = f"{cluster.host}/{cluster.project_id}/buildx{number}:killed"
                run(
                    [buildx, "build", "--builder", "killed", "--push", "-t", name, context],
                    env=env,
                )
            assert kills
        cluster.servers[0].assert_whole()
    finally:
        daemon.stop()


@pytest.mark.parametrize("kind", ["token", "basic"])
def test_another_replica_goes_on_with_a_push_whose_own_is_killed(
    cluster: Replicas, tmp_path: Path, kind: str
) -> None:
    """With tokens by itself, since they are kept sealed; with a login its client gives it anew."""
    tenant, digest = _finished_build(cluster, kind)
    tokens = TokenServer(tmp_path / "tokens")
    auth = {"tokens": tokens} if kind == "token" else {"basic": True}
    with started(Distribution3(tmp_path / "registry", **auth)) as registry:
        line = Throttle(registry.port)
        line.rate = MIB / 2
        image = f"{line.host}/acme/app:v1"
        (tmp_path / "config.json").write_text(
            json.dumps({"auths": {line.host: {"auth": CREDENTIALS.basic}}})
        )
        env = environment(
            tmp_path,
            LAYOVER_URL=cluster.url,
            LAYOVER_TOKEN=tenant.user,
            DOCKER_CONFIG=str(tmp_path),
        )
        is_attached = kind == "basic"
        mode = "--progress=plain" if is_attached else "--detach"
        client = Background(
            [LAYOVER, "push", tenant.build_id, "-t", image, mode], env=env, log=tmp_path / "client"
        )
        killed = None
        try:
            if not is_attached:
                assert client.wait(30) == 0, client.log()
            wait_until(
                lambda: len(_sent(registry)) == 2 or client.exit_status not in (None, 0),
                timeout=30,
                what="the small layers",
            )
            asked = len(tokens.asked)
            ((killed, push_id, _),) = _takers(cluster, tenant.build_id)
            cluster.servers[killed].kill()
            line.cut()
            before = _sent(registry)
            assert not _tagged(registry)
            line.rate = None
            if is_attached:
                assert client.wait(60) == 0, client.log()
                assert f"{image}@{digest}" in client.log()
            else:
                wait_until(
                    lambda: _tagged(registry) != [], timeout=60, what="the tag", interval=0.2
                )
                assert len(tokens.asked) == asked
        finally:
            client.stop()
            line.close()
            if killed is not None:
                cluster.servers[killed].start()
            tokens.stop()
        (first, second) = _takers(cluster, tenant.build_id)
        assert {first[2], second[2]} == {False, True}
        assert first[0] != second[0]
        assert first[1] == second[1] == push_id
        sent = _sent(registry)
        assert set(before) < set(sent)
        assert len(sent) == len(set(sent)), "a blob that had arrived was sent again"
        # The tag came once, behind everything else.
        puts = re.findall(r'"(PUT /v2/[^ ]*) HTTP/1.1" 201', registry.process.log())
        assert [put.endswith("/manifests/v1") for put in puts] == [False] * (len(puts) - 1) + [True]


def _finished_build(cluster: Replicas, name: str) -> tuple[Tenant, str]:
    """A project with a build as if a builder had saved it, and its image's digest. A build's ID
    has 10 characters, of which the name is five."""
    server = cluster.servers[0]
    tenant = add_tenant(server, name)
    pushed = Registry(server, tenant.project_id, basic(tenant.build)).push_image(
        tenant.build_id, os.urandom(64 << 10), os.urandom(5 * MIB)
    )
    with server.transaction() as connection:
        own = builds.c.id == tenant.build_id
        assert end_builds(connection, own, BuildStatus.FINISHED, None, datetime.now(UTC))
    return tenant, digest_of(pushed)


def _sent(registry: Distribution) -> list[str]:
    """The blobs whose upload was completed, in order."""
    return re.findall(
        r'"PUT /v2/[^ ]*/blobs/uploads/[^ ]*digest=sha256%3A([0-9a-f]{64})[^ ]* HTTP/1.1" 201',
        registry.process.log(),
    )


def _tagged(registry: Distribution) -> list[str]:
    return re.findall(r'"PUT /v2/[^ ]*/manifests/v1 HTTP/1.1" 201', registry.process.log())


def _takers(cluster: Replicas, build_id: str) -> list[tuple[int, str, bool]]:
    """Which replicas worked on the build's push, its ID, and whether it had been begun."""
    lines = [
        (number, json.loads(line))
        for number, server in enumerate(cluster.servers)
        for line in server.process.log().splitlines()
        if '"push_created"' in line or '"push_taken"' in line
    ]
    (push_id,) = {line["push_id"] for _, line in lines if line.get("build_id") == build_id}
    return sorted(
        (
            (number, push_id, line["takeovers"] > 0)
            for number, line in lines
            if line["event"] == "push_taken" and line["push_id"] == push_id
        ),
        key=lambda taken: taken[2],
    )
