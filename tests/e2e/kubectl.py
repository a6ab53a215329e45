"""kubectl without a cluster: it asks a server which kinds of objects there are, and no more."""

import contextlib
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.processes import environment, find, run

# What an API server answers of itself, as far as secrets go.
_SECRETS = {
    "name": "secrets",
    "singularName": "secret",
    "namespaced": True,
    "kind": "Secret",
    "verbs": ["create", "delete", "get", "list", "patch", "update"],
}
_DOCUMENTS: dict[str, Any] = {
    "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [_SECRETS]},
}


class _Discovery(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        document = _DOCUMENTS.get(self.path.partition("?")[0])
        content = json.dumps(document).encode()
        self.send_response(404 if document is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass(frozen=True)
class Kubectl:
    """kubectl with a home of its own, talking to `url`."""

    home: Path
    url: str

    def __call__(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        env = environment(self.home, KUBECONFIG=str(self.home / "kubeconfig"))
        return run([find("kubectl"), "--server", self.url, *arguments], env=env, stdin=stdin)


@contextlib.contextmanager
def kubectl(home: Path) -> Iterator[Kubectl]:
    """kubectl, and what answers it, until the block ends."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Discovery)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Kubectl(home, f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
