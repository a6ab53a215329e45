"""The public depot client, unmodified, over HTTPS: the proof that the API is what it should be."""

import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.certificates import Certificates, make_certificates
from tests.connect_proxy import connect_proxy
from tests.destinations import Distribution, Distribution3, started
from tests.e2e.conftest import ServerFactory
from tests.e2e.engines import DockerEngine
from tests.e2e.images import busybox_context
from tests.e2e.processes import ENGINES, MissingEngineError, environment, run
from tests.e2e.server import LayoverServer
from tests.token_server import CREDENTIALS, TokenServer

DEPOT = ENGINES / "depot" / "node_modules" / "@depot" / "cli-linux-x64" / "bin" / "depot"


@pytest.fixture
def https_server(start_server: ServerFactory, certificates: Certificates) -> LayoverServer:
    return start_server(certificates=certificates)


class Depot:
    """The client in an environment that keeps it off the network but for the server."""

    def __init__(
        self, server: LayoverServer, docker: DockerEngine, home: Path, **more: str
    ) -> None:
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
            **more,
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


# Where the client asks for blobs: an address that is fixed in it.
BLOB_HOST = "blob.depot.dev"


@pytest.fixture
def blob_certificates(tmp_path: Path) -> Certificates:
    """For a server that is reached by the blobs' address as well."""
    return make_certificates(tmp_path / "certificates", BLOB_HOST)


@pytest.fixture
def destination(blob_certificates: Certificates, tmp_path: Path) -> Iterator[Distribution]:
    """A registry with TLS, as the client expects every one to have, and with tokens."""
    tokens = TokenServer(tmp_path / "tokens")
    registry = Distribution3(tmp_path / "registry", tokens=tokens, certificates=blob_certificates)
    try:
        with started(registry):
            yield registry
    finally:
        tokens.stop()


def test_the_depot_client_pushes_on(
    destination: Distribution,
    blob_certificates: Certificates,
    start_server: ServerFactory,
    docker: DockerEngine,
    tmp_path: Path,
) -> None:
    ca = blob_certificates.ca
    server = start_server(certificates=blob_certificates, settings={"OUTBOUND_CA_CERT": str(ca)})
    name = f"{destination.host}/acme/app:v1"
    with connect_proxy(BLOB_HOST, server.port) as proxy:
        depot = Depot(server, docker, tmp_path / "home", HTTPS_PROXY=proxy.url)
        folder = tmp_path / "home" / "docker"
        folder.mkdir()
        login = {"auths": {destination.host: {"auth": CREDENTIALS.basic}}}
        (folder / "config.json").write_text(json.dumps(login))
        context = busybox_context(tmp_path / "context", "pushed by the depot client")
        depot("build", "--save", "--metadata-file=build.json", ".", cwd=context)
        build_id = json.loads((context / "build.json").read_text())["depot.build"]["buildID"]
        depot("push", build_id, "-t", name)
    assert set(proxy.asked) == {f"{BLOB_HOST}:443"}

    pushed = Request(f"{destination.url}/v2/acme/app/manifests/v1")
    pushed.add_header("Accept", "application/vnd.oci.image.index.v1+json")
    authorization = destination.authorization("acme/app")
    assert authorization is not None
    pushed.add_header("Authorization", authorization.header)
    with urlopen(pushed, context=ssl.create_default_context(cafile=str(ca))) as answer:
        assert answer.read() == server.manifest(build_id).body
    (push,) = json.loads(server.cli("pushes", "list", "--output", "json").stdout)
    assert (push["status"], push["buildId"]) == ("done", build_id)
    assert push["destinations"] == [name]
