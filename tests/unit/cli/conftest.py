"""What the commands' tests share: an environment that is nobody's, and a server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.exchange import listening
from tests.unit.cli.fake_pushes import PROJECT, FakePushes, application
from tests.unit.client.fake_server import TOKEN, FakeServer, serving


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, in which a command runs without anything set."""
    for name in list(os.environ):
        if name.startswith(("LAYOVER_", "DEPOT_", "XDG_", "DOCKER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A server that commands find, with a token, in their environment."""
    with serving(FakeServer()) as fake:
        monkeypatch.setenv("LAYOVER_URL", fake.url)
        monkeypatch.setenv("LAYOVER_TOKEN", TOKEN)
        yield fake


@pytest.fixture
def pushes(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePushes]:
    """A server that pushes, which commands find, with a token and a project."""
    service = FakePushes()
    with listening(application(service)) as url:
        monkeypatch.setenv("LAYOVER_URL", url)
        monkeypatch.setenv("LAYOVER_TOKEN", TOKEN)
        monkeypatch.setenv("LAYOVER_PROJECT_ID", PROJECT)
        yield service
