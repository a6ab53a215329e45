"""Replicas that are killed under docker, buildx and skopeo: their own retries are enough."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.contract.daemons import Daemon
from tests.e2e.engines import DockerEngine, Skopeo
from tests.e2e.images import MIB, OciLayout, random_file
from tests.e2e.processes import find, run, wait_until
from tests.e2e.replicas import Replicas, replicas
from tests.objects import S3Server
from tests.postgres import Postgres

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
        skopeo(
            *("copy", "--preserve-digests", "--retry-times", "5", "--src-tls-verify=false"),
            *("--src-creds", creds, target, f"oci:{copy}:copy"),
        )
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
