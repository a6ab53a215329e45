"""Which Docker Engine a user means, as Docker's own client finds it.

DOCKER_HOST, else DOCKER_CONTEXT, else the context in use, else the usual socket. The `docker`
package knows contexts only where there is a config.json beside them, so they are read here:

    CONFIG/contexts/meta/SHA256(NAME)/meta.json
    CONFIG/contexts/tls/SHA256(NAME)/docker/{ca,cert,key}.pem
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layover.client.errors import ClientError

_DEFAULT = "default"


class NoContext(ClientError):
    """There is no such Docker context."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is no Docker context {name!r}: `docker context ls` shows those there are"
        )
        self.name = name


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An engine's address; an empty one is the usual socket. Files are PEM."""

    host: str = ""
    skips_tls_verification: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def uses_tls(self) -> bool:
        return self.skips_tls_verification or self.ca is not None or self.cert is not None


def docker_folder(env: Mapping[str, str]) -> Path:
    """Where the user's Docker configuration is, whether it exists or not."""
    if named := env.get("DOCKER_CONFIG"):
        return Path(named)
    return Path(env.get("HOME") or Path.home()) / ".docker"


def context_name(env: Mapping[str, str]) -> str:
    """The context in use; `default` is no context."""
    if named := env.get("DOCKER_CONTEXT"):
        return named
    return str(_read(docker_folder(env) / "config.json").get("currentContext") or _DEFAULT)


def find_endpoint(env: Mapping[str, str]) -> Endpoint:
    """The engine of the context in use. Raises NoContext."""
    name = context_name(env)
    if name == _DEFAULT:
        return Endpoint()
    contexts, digest = docker_folder(env) / "contexts", hashlib.sha256(name.encode()).hexdigest()
    described = _read(contexts / "meta" / digest / "meta.json").get("Endpoints", {}).get("docker")
    if not described:
        raise NoContext(name)
    files = {
        part: path
        for part in ("ca", "cert", "key")
        if (path := contexts / "tls" / digest / "docker" / f"{part}.pem").is_file()
    }
    return Endpoint(
        str(described.get("Host") or ""),
        bool(described.get("SkipTLSVerify")),
        files.get("ca"),
        files.get("cert"),
        files.get("key"),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ClientError(f"cannot read Docker's {path}: {error}") from error
    return content if isinstance(content, dict) else {}
