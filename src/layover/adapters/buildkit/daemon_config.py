"""The embedded daemon's buildkitd.toml (BuildKit's docs/buildkitd.toml.md)."""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

DEFAULT_CACHE_BYTES = 20 * 1024**3

# unix(7): sun_path has 108 bytes, the last one zero.
_MAX_SOCKET_PATH = 107


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """How the daemon reaches Layover's own registry to push to it.

    `host` is as image references name it, port included. `ca_cert` is a certificate to trust for
    it, an authority's or the server's own; None for what the machine trusts anyway.
    """

    host: str
    plain_http: bool = False
    ca_cert: Path | None = None


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """What the file says; all below `folder`."""

    folder: Path
    listen: str
    """`tcp://host:port`."""
    cert: Path
    key: Path
    ca_cert: Path
    cache_bytes: int
    registry: RegistryAccess

    @property
    def path(self) -> Path:
        return self.folder / "buildkitd.toml"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def trace_socket(self) -> Path:
        path = self.folder / "otel.sock"
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
            return path
        folder_id = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"layover-{folder_id}.sock"

    def to_toml(self) -> str:
        lines = [
            f"root = {_text(self.root)}",
            "",
            "[log]",
            'format = "json"',
            "",
            "[grpc]",
            f"address = [{_text(self.listen)}]",
            "",
            "[grpc.tls]",
            f"cert = {_text(self.cert)}",
            f"key = {_text(self.key)}",
            f"ca = {_text(self.ca_cert)}",
            "",
            "[otel]",
            # Its default lies in /run and would collide with another daemon's.
            f"socketPath = {_text(self.trace_socket)}",
            "",
            # Devices are not handed to builds, and their folders need not be watched.
            "[cdi]",
            "disabled = true",
            "",
            "[worker.containerd]",
            "enabled = false",
            "",
            "[worker.oci]",
            "enabled = true",
            # overlayfs where the disk has it, else copies.
            'snapshotter = "auto"',
            "gc = true",
            "",
            "[[worker.oci.gcpolicy]]",
            # The newest stay, whatever they are, until the cache has the size it may have.
            "all = true",
            f"maxUsedSpace = {self.cache_bytes}",
            "",
            f"[registry.{_text(self.registry.host)}]",
        ]
        # Said either way: left out, the daemon takes a registry on loopback for plain HTTP.
        lines.append(f"http = {'true' if self.registry.plain_http else 'false'}")
        if self.registry.ca_cert is not None:
            lines.append(f"ca = [{_text(self.registry.ca_cert.absolute())}]")
        return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    # JSON's strings are TOML's, as long as nothing outside the basic plane is escaped.
    return json.dumps(str(value), ensure_ascii=False)
