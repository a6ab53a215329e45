"""A registry with HTTPS, and the environment of somebody who trusts it and has no login."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from layover.client import registry_dialing
from tests.certificates import Certificates, make_certificates
from tests.unit.client.registry_server import Env, RegistryServer, serving


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(registry_dialing, "_PAUSES_SECONDS", (0.0, 0.0))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def registry(certificates: Certificates) -> AsyncIterator[RegistryServer]:
    async with serving(certificates) as server:
        yield server


@pytest.fixture
def env(tmp_path: Path, certificates: Certificates) -> Env:
    return {"HOME": str(tmp_path), "PATH": "/bin", "SSL_CERT_FILE": str(certificates.ca)}
