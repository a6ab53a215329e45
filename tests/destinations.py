"""Other registries that tests push to: real ones, each a process of its own on 127.0.0.1.

    registry = Distribution3(folder, tokens=TokenServer(folder))
    registry.start()
    registry.host, registry.credentials     # 127.0.0.1:PORT, what a user signs in with, or None
    registry.authorization("acme/app")      # what a push shows it
    registry.remove()

A registry keeps its port and what it has when it is stopped and started again.
"""

import http.client
import json
import signal
import ssl
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from layover.promotion.models import Authorization, AuthorizationScheme
from tests.certificates import Certificates
from tests.e2e import processes
from tests.e2e.processes import Background, environment, find, free_port, wait_until
from tests.e2e.server import LayoverServer
from tests.token_server import CREDENTIALS, SERVICE, Credentials, TokenServer

__all__ = [
    "Credentials",
    "Distribution2",
    "Distribution3",
    "LayoverDestination",
    "LocalRegistry",
    "OtherRegistry",
    "TokenServer",
    "Zot",
    "docker_config",
    "started",
]

# `htpasswd -B` of CREDENTIALS.
_HTPASSWD = "pusher:$2b$04$Layoverstestsownsalt.up/8T661.j5lPHKBt3GmGR4gIJTUsTdS\n"


class OtherRegistry(Protocol):
    """A registry that is pushed to."""

    @property
    def host(self) -> str:
        """HOST:PORT, as an image's name has it."""
        ...

    @property
    def url(self) -> str:
        """How the tests themselves reach it."""
        ...

    @property
    def credentials(self) -> Credentials | None:
        """What a user signs in with; None where nobody has to."""
        ...

    def repository(self, name: str) -> str:
        """A repository that can be pushed to there, named for `name`."""
        ...

    def authorization(
        self, *repositories: str, life: timedelta | None = None
    ) -> Authorization | None:
        """What lets one pull from and push into these repositories."""
        ...

    def start(self) -> None:
        """Start it and wait until it answers."""
        ...

    def stop(self) -> None:
        """End it as a service manager does. Idempotent."""
        ...

    def remove(self) -> None:
        """End it, with all that it has."""
        ...


class LocalRegistry:
    """A registry's program on files, with its configuration in its folder."""

    program: str

    def __init__(
        self,
        folder: Path,
        *,
        basic: bool = False,
        tokens: TokenServer | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        """Prepare one that is not started yet: it asks for nothing, for Basic authentication, or
        for tokens of a server.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.tokens, self._basic, self._certificates = tokens, basic, certificates
        if basic:
            self._passwords.write_text(_HTPASSWD)
        self._process: Background | None = None

    @property
    def _passwords(self) -> Path:
        return self.folder / "htpasswd"

    def _configure(self, configuration: Mapping[str, Any]) -> None:
        # JSON is YAML too.
        (self.folder / "config.yml").write_text(json.dumps(configuration))

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'http' if self._certificates is None else 'https'}://{self.host}"

    @property
    def credentials(self) -> Credentials | None:
        return CREDENTIALS if self._basic or self.tokens is not None else None

    def repository(self, name: str) -> str:
        return name

    def authorization(
        self, *repositories: str, life: timedelta | None = None
    ) -> Authorization | None:
        if self.tokens is not None:
            scopes = [f"repository:{name}:pull,push" for name in repositories]
            token = self.tokens.sign(*scopes, life=life)
            return Authorization(AuthorizationScheme.BEARER, token)
        if self._basic:
            return Authorization(AuthorizationScheme.BASIC, CREDENTIALS.basic)
        return None

    def start(self) -> None:
        self._process = Background(
            [find(self.program), "serve", self.folder / "config.yml"],
            env=environment(self.folder, OTEL_TRACES_EXPORTER="none"),
            log=self.folder / "log",
        )
        wait_until(self._answers, timeout=30, what=f"{self.program} on {self.host}")

    def _answers(self) -> bool:
        if not self.process.is_running:
            raise AssertionError(f"{self.program} ended: {self.process.log()[-2000:]}")
        if self._certificates is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        else:
            context = ssl.create_default_context(cafile=str(self._certificates.ca))
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=5, context=context
            )
        try:
            connection.request("GET", "/v2/")
            connection.getresponse()
        except OSError:
            return False
        finally:
            connection.close()
        return True

    @property
    def process(self) -> Background:
        assert self._process is not None, "it was never started"
        return self._process

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(5)

    def remove(self) -> None:
        self.stop()
        processes.remove(self.folder)


class Distribution(LocalRegistry):
    """CNCF Distribution, of either version."""

    def __init__(
        self,
        folder: Path,
        *,
        basic: bool = False,
        tokens: TokenServer | None = None,
        realm: str | None = None,
        certificates: Certificates | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """`realm` is another than that server's to send clients to. `settings` are sections of its
        configuration beside what is set here.
        """
        super().__init__(folder, basic=basic, tokens=tokens, certificates=certificates)
        auth: dict[str, Any] = {}
        if basic:
            auth = {"htpasswd": {"realm": "tests", "path": str(self._passwords)}}
        elif tokens is not None:
            auth = {
                "token": {
                    "realm": realm or tokens.realm,
                    "service": SERVICE,
                    "issuer": "tests",
                    "rootcertbundle": str(tokens.root_certificate),
                }
            }
        listen: dict[str, Any] = {"addr": f"127.0.0.1:{self.port}", "secret": "of the tests"}
        if certificates is not None:
            listen["tls"] = {
                "certificate": str(certificates.certificate),
                "key": str(certificates.key),
            }
        sections: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": False}},
            "storage": {
                "filesystem": {"rootdirectory": str(folder / "data")},
                "delete": {"enabled": True},
            },
            "http": listen,
            **({"auth": auth} if auth else {}),
            **(settings or {}),
        }
        self._configure(sections)


class Distribution2(Distribution):
    """CNCF Distribution 2.8, as Debian has it."""

    program = "docker-registry"


class Distribution3(Distribution):
    """CNCF Distribution 3."""

    program = "registry"


class Zot(LocalRegistry):
    """zot, which mounts by itself what it has anywhere, and takes images alone: no indexes."""

    program = "zot"

    def __init__(
        self, folder: Path, *, basic: bool = False, tokens: TokenServer | None = None
    ) -> None:
        super().__init__(folder, basic=basic, tokens=tokens)
        listen: dict[str, Any] = {"address": "127.0.0.1", "port": str(self.port)}
        if basic:
            listen["auth"] = {"htpasswd": {"path": str(self._passwords)}}
        elif tokens is not None:
            listen["auth"] = {
                "bearer": {
                    "realm": tokens.realm,
                    "service": SERVICE,
                    "cert": str(tokens.root_certificate),
                }
            }
        self._configure(
            {
                "version": "0.1.0-dev",
                "storage": {"rootDirectory": str(folder / "data")},
                "http": listen,
                "log": {"level": "info"},
            }
        )


@dataclass
class LayoverDestination:
    """Another Layover as the registry that is pushed to. Whoever made the server ends it."""

    server: LayoverServer

    @property
    def host(self) -> str:
        return self.server.host

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def credentials(self) -> Credentials:
        return Credentials("x-token", self.server.token)

    def repository(self, name: str) -> str:
        return f"{self.server.project_id}/{name}"

    def authorization(self, *repositories: str, life: timedelta | None = None) -> Authorization:
        """Its tokens live for as long as it says, whatever `life` is."""
        scopes = [("scope", f"repository:{name}:pull,push") for name in repositories]
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            headers = {"Authorization": f"Basic {self.credentials.basic}"}
            connection.request("GET", f"/token?{urllib.parse.urlencode(scopes)}", headers=headers)
            token = json.loads(connection.getresponse().read())["token"]
        finally:
            connection.close()
        return Authorization(AuthorizationScheme.BEARER, token)

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.stop()

    def remove(self) -> None:
        self.server.remove()


Local = TypeVar("Local", bound=LocalRegistry)


@contextmanager
def started(registry: Local) -> Iterator[Local]:
    """The registry while the block runs."""
    try:
        registry.start()
        yield registry
    finally:
        registry.remove()


def docker_config(folder: Path, host: str, registry: OtherRegistry) -> dict[str, str]:
    """The environment in which Docker's own login for the registry is found."""
    folder.mkdir(exist_ok=True)
    auths = {}
    if registry.credentials is not None:
        auths[host] = {"auth": registry.credentials.basic}
    (folder / "config.json").write_text(json.dumps({"auths": auths}))
    return {"DOCKER_CONFIG": str(folder)}
