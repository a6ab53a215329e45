"""The public depot client, unmodified, over HTTPS: the proof that the API is what it should be."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.certificates import Certificates
from tests.e2e.conftest import ServerFactory
from tests.e2e.engines import DockerEngine
from tests.e2e.images import busybox_context
from tests.e2e.processes import ENGINES, MissingEngineError, environment, run
from tests.e2e.server import LayoverServer

DEPOT = ENGINES / "depot" / "node_modules" / "@depot" / "cli-linux-x64" / "bin" / "depot"


@pytest.fixture
def https_server(start_server: ServerFactory, certificates: Certificates) -> LayoverServer:
    return start_server(certificates=certificates)


class Depot:
    """The client in an environment that keeps it off the network but for the server."""

    def __init__(self, server: LayoverServer, docker: DockerEngine, home: Path) -> None:
        if not DEPOT.is_file():
            raise MissingEngineError("no depot client; run scripts/install-engines depot-client")
        assert server.certificates is not None
        home.mkdir()
        self._env = environment(
            home,
            DEPOT_API_URL=server.url,
            DEPOT_TOKEN=server.token,
            DEPOT_PROJECT_ID=server.project_id,
            SSL_CERT_FILE=str(server.certificates.ca),
            DEPOT_NO_UPDATE_NOTIFIER="1",
            DEPOT_ERROR_TELEMETRY="0",
            DEPOT_DISABLE_OTEL="1",
            DOCKER_HOST=docker.host,
            DOCKER_CONFIG=str(home / "docker"),
            # It asks for API 1.44, which Docker Engine 20.10 does not have.
            DOCKER_API_VERSION="1.41",
        )

    def __call__(
        self, *arguments: str, cwd: Path | None = None, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        return run([DEPOT, *arguments], env=self._env, cwd=cwd, check=check)


@pytest.fixture
def depot(https_server: LayoverServer, docker: DockerEngine, tmp_path: Path) -> Depot:
    return Depot(https_server, docker, tmp_path / "depot-home")


def test_the_depot_client_builds_saves_pulls_and_lists(
    https_server: LayoverServer, depot: Depot, docker: DockerEngine, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "built by the depot client")
    depot("build", "--save", "--metadata-file=build.json", ".", cwd=context)
    build = json.loads((context / "build.json").read_text())["depot.build"]
    assert build["projectID"] == https_server.project_id

    # Its push holds a provenance attestation beside the image.
    index = https_server.manifest(build["buildID"]).json()
    types = [
        descriptor.get("annotations", {}).get("vnd.docker.reference.type")
        for descriptor in index["manifests"]
    ]
    assert types == [None, "attestation-manifest"]

    depot("pull", build["buildID"], "-t", "by-depot:latest")
    assert docker("run", "--rm", "by-depot:latest").stdout == "built by the depot client\n"

    builds = json.loads(depot("list", "builds", "--output", "json").stdout)
    assert [listed["id"] for listed in builds] == [build["buildID"]]
    assert builds[0]["status"] == "finished"
    ours = json.loads(https_server.cli("list", "builds", "--output", "json").stdout)
    assert [listed["id"] for listed in ours] == [build["buildID"]]


def test_the_depot_client_records_a_failed_build(
    https_server: LayoverServer, depot: Depot, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "never built")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY no-such-file /\n")
    failed = depot("build", "--save", ".", cwd=context, check=False)
    assert failed.returncode != 0
    assert '"/no-such-file": not found' in failed.stderr
    builds = json.loads(depot("list", "builds", "--output", "json").stdout)
    assert [listed["status"] for listed in builds] == ["failed"]
    unknown = depot("pull", builds[0]["id"], "-t", "failed:latest", check=False)
    assert unknown.returncode != 0
