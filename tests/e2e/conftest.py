"""What the end-to-end tests share: one server, one Docker Engine, clients with own homes.

A missing engine is an error of the fixture that needs it, so its tests fail; none is skipped.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from tests.certificates import Certificates, make_certificates
from tests.e2e import processes
from tests.e2e.engines import Containerd, DockerEngine, Podman, Skopeo
from tests.e2e.pairs import REPLICATED, Storage, pairs_of, storage_of
from tests.e2e.server import LayoverServer
from tests.oidc_provider import OidcProvider, oidc_provider


class ServerFactory(Protocol):
    """Starts servers of a test's own, which end with it."""

    def __call__(
        self,
        *,
        data_folder: Path | None = None,
        certificates: Certificates | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> LayoverServer: ...


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """A folder with a short path, which sockets need; pytest's own can be too long."""
    folder = Path(tempfile.mkdtemp(prefix="layover-e2e-", dir="/tmp"))
    yield folder
    processes.remove(folder)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "pairs(*names): the pairs of stores that it runs on")
    config.addinivalue_line("markers", "embedded_only: it looks into the data folder")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "pair" in metafunc.fixturenames:
        every = metafunc.config.getoption("--every-pair")
        pairs = pairs_of(metafunc.definition, every=every)
        metafunc.parametrize("pair", pairs, indirect=True, scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # One pair behind the other: the shared server is started once for each.
    items.sort(key=_is_replicated)


def _is_replicated(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("pair") == REPLICATED


@pytest.fixture(scope="session")
def pair(request: pytest.FixtureRequest) -> str:
    """The pair of stores that a test's servers run on."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def server(short_tmp: Path, pair: str, request: pytest.FixtureRequest) -> Iterator[LayoverServer]:
    """The server that most tests share."""
    with storage_of(pair, request) as storage:
        server = LayoverServer(short_tmp / pair, storage=storage)
        try:
            server.start()
            # Asked for once here, so that every later command has it in its environment.
            assert server.project_id
            yield server
        finally:
            server.remove()


@pytest.fixture(autouse=True)
def shown_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print what the shared server logged during a test; pytest shows it when the test fails."""
    if "server" not in request.fixturenames:
        yield
        return
    server: LayoverServer = request.getfixturevalue("server")
    start = len(server.process.log())
    yield
    print(server.process.log()[start:])


@pytest.fixture(scope="session")
def docker(short_tmp: Path) -> Iterator[DockerEngine]:
    """A Docker Engine of the tests' own."""
    engine = DockerEngine(short_tmp / "docker")
    yield engine
    engine.stop()


@pytest.fixture(scope="session")
def containerd(short_tmp: Path) -> Iterator[Containerd]:
    """A containerd of the tests' own."""
    containerd = Containerd(short_tmp / "containerd")
    yield containerd
    containerd.stop()


@pytest.fixture(scope="session")
def tls_provider(short_tmp: Path, certificates: Certificates) -> Iterator[OidcProvider]:
    """An OpenID Connect provider with HTTPS, whose authority `tls_server` trusts."""
    folder = short_tmp / "oidc"
    folder.mkdir()
    with oidc_provider(folder, certificates) as provider:
        yield provider


@pytest.fixture(scope="session")
def tls_server(
    short_tmp: Path, certificates: Certificates, tls_provider: OidcProvider
) -> Iterator[LayoverServer]:
    """A server with HTTPS that tests share, on SQLite and files.

    It ends before the provider, whose end waits for half a minute for open connections.
    """
    server = LayoverServer(
        short_tmp / "tls",
        certificates=certificates,
        settings={"OUTBOUND_CA_CERT": str(certificates.ca)},
    )
    try:
        server.start()
        assert server.project_id
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def certificates(short_tmp: Path) -> Certificates:
    return make_certificates(short_tmp / "certificates")


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder with a short path for one test."""
    folder = Path(tempfile.mkdtemp(prefix="layover-e2e-", dir="/tmp"))
    yield folder
    processes.remove(folder)


@pytest.fixture
def storage(pair: str, request: pytest.FixtureRequest) -> Iterator[Storage]:
    """What the servers of a test's own share, but for the embedded pair's, which share nothing."""
    with storage_of(pair, request) as storage:
        yield storage


@pytest.fixture
def start_server(own_folder: Path, storage: Storage) -> Iterator[ServerFactory]:
    """Start servers of a test's own: with settings, with TLS, on a data folder of its choice."""
    started: list[LayoverServer] = []

    def start(
        *,
        data_folder: Path | None = None,
        certificates: Certificates | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> LayoverServer:
        server = LayoverServer(
            own_folder / f"server{len(started)}",
            data_folder=data_folder,
            certificates=certificates,
            settings=settings,
            storage=storage,
        )
        started.append(server)
        server.start()
        assert server.project_id
        return server

    yield start
    for server in started:
        server.stop()
        print(server.process.log())
        server.remove()


@pytest.fixture
def skopeo(tmp_path: Path) -> Skopeo:
    return Skopeo(tmp_path / "skopeo")


@pytest.fixture
def podman(own_folder: Path) -> Iterator[Podman]:
    podman = Podman(own_folder / "podman")
    yield podman
    podman.remove()
