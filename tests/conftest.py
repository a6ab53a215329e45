"""Async tests run on asyncio alone, the loop that the server has. PostgreSQL and an S3 server are
there for whoever asks; a missing one is an error, so the tests that need it fail."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from layover.adapters.sql.database import Database
from layover.adapters.sql.migrate import migrate
from tests.objects import S3Server
from tests.oidc_provider import OidcProvider, oidc_provider
from tests.postgres import Postgres

# How long an example takes says nothing on a machine that has more to do.
settings.register_profile(
    "untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-pair", action="store_true", help="run every test on both pairs of stores"
    )


def pytest_configure() -> None:
    # Who is started in the background by a script, or with nohup, is told to ignore these, and so
    # would be all that the tests start and stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The PostgreSQL that most tests share, each with a database of its own."""
    postgres = Postgres()
    yield postgres
    postgres.remove()


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    """The name of a database that was migrated, to make others from: that takes no time."""
    name = postgres.create()
    database = Database(postgres.url(name))
    migrate(database.engine)
    database.close()
    return name


@pytest.fixture
def empty_postgres_url(postgres: Postgres) -> Iterator[str]:
    """A database with nothing in it."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def postgres_url(postgres: Postgres, postgres_template: str) -> Iterator[str]:
    """A database that was migrated."""
    with postgres.database(postgres_template) as url:
        yield url


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """The S3 server that most tests share, each with a place of its own in its bucket."""
    server = S3Server()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    """The OpenID Connect provider that the tests share, each with an issuer of its own name."""
    with oidc_provider(tmp_path_factory.mktemp("oidc")) as provider:
        yield provider
