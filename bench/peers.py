"""The registries that are compared, each started on a free port with a folder of its own."""

import base64
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_START_TIMEOUT_SECONDS = 30

_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Answer:
    """A successful response."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Peer:
    """A running server and how to reach one repository of it."""

    name: str
    port: int
    repository: str
    folder: Path
    headers: Callable[[], dict[str, str]] = dict
    """What to send along; asked before each run, as a token may have run out."""
    start_seconds: float = 0.0
    """From its start until it was ready."""

    def url(self, path: str) -> str:
        """The address of a path within the repository."""
        return f"http://127.0.0.1:{self.port}/v2/{self.repository}/{path}"

    def request(
        self, method: str, path: str, body: bytes | None = None, content_type: str = ""
    ) -> Answer:
        """Ask; `path` is within the repository, or absolute when it begins with a slash."""
        target = path if path.startswith("/") else f"/v2/{self.repository}/{path}"
        return ask(self.port, method, target, self.headers(), body, content_type)

    def start_upload(self) -> str:
        """Open an upload session and return its path, with a query to append to."""
        location = self.request("POST", "blobs/uploads/", b"").headers["location"]
        return session_path(location)

    def push_blob(self, content: bytes) -> str:
        """Push a small blob; return its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        session = self.start_upload()
        self.request(
            "PUT", f"{session}digest={digest}", content, content_type="application/octet-stream"
        )
        return digest

    def push_manifest(self, tag: str) -> str:
        """Push an image of one small layer under `tag`; return the manifest's digest."""
        config, layer = b"{}", b"layer"
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST_TYPE,
                "config": self._descriptor(config, "application/vnd.oci.image.config.v1+json"),
                "layers": [self._descriptor(layer, "application/vnd.oci.image.layer.v1.tar")],
            }
        ).encode()
        self.request("PUT", f"manifests/{tag}", body, content_type=_MANIFEST_TYPE)
        return f"sha256:{hashlib.sha256(body).hexdigest()}"

    def _descriptor(self, content: bytes, media_type: str) -> dict[str, object]:
        return {"mediaType": media_type, "digest": self.push_blob(content), "size": len(content)}


def ask(
    port: int,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
    content_type: str = "",
) -> Answer:
    """One request on a connection of its own. Raises RuntimeError unless it succeeds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        sent = {**headers, **({"Content-Type": content_type} if content_type else {})}
        connection.request(method, target, body, sent)
        response = connection.getresponse()
        answered = {name.lower(): value for name, value in response.getheaders()}
        answer = Answer(answered, response.read())
    finally:
        connection.close()
    if response.status >= 300:
        raise RuntimeError(f"{method} {target} gave {response.status}: {answer.body[:200]!r}")
    return answer


def session_path(location: str) -> str:
    """An upload session's path with its query, ready for more parameters."""
    parts = urllib.parse.urlsplit(location)
    return f"{parts.path}?{parts.query + '&' if parts.query else ''}"


@contextmanager
def layover(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Peer]:
    """Layover as a user starts it, on the data that is in its folder; without a builder, which
    nothing here needs. `settings` are variables."""
    port = _free_port()
    environment = {
        **os.environ,
        # A builder that nobody asks anything of, so that no BuildKit is started.
        "LAYOVER_BUILDERS": '[{"name": "none", "address": "tcp://127.0.0.1:1"}]',
        **(settings or {}),
    }
    command = [
        str(Path(".venv/bin/layover").absolute()),
        "serve",
        "--data-dir",
        str(folder / "data"),
        "--listen",
        f"127.0.0.1:{port}",
    ]
    began = time.perf_counter()
    with _process("layover", command, port, folder, environment):
        _wait_until_ready(port)
        start_seconds = time.perf_counter() - began
        token = (folder / "data" / "admin-token").read_text().strip()
        listing = subprocess.run(
            [command[0], "list", "projects", "--output", "json"],
            env={**os.environ, "LAYOVER_URL": f"http://127.0.0.1:{port}", "LAYOVER_TOKEN": token},
            check=True,
            capture_output=True,
        ).stdout
        project = json.loads(listing)[0]["id"]

        def headers() -> dict[str, str]:
            # Clients come with a registry token, so that is what is measured.
            path = f"/token?scope={urllib.parse.quote(f'repository:{project}:pull,push')}"
            basic = base64.b64encode(f"x-token:{token}".encode()).decode()
            answer = ask(port, "GET", path, {"Authorization": f"Basic {basic}"})
            return {"Authorization": f"Bearer {json.loads(answer.body)['token']}"}

        yield Peer("layover", port, project, folder, headers, start_seconds)


@contextmanager
def distribution(folder: Path) -> Iterator[Peer]:
    """CNCF Distribution, without authentication, its log at errors only."""
    port = _free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'data'}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with _process("distribution", [find("registry"), "serve", str(config)], port, folder):
        yield Peer("distribution", port, "bench/image", folder)


@contextmanager
def nginx(folder: Path) -> Iterator[Peer]:
    """nginx with sendfile over a folder of files: how fast bytes can leave this machine."""
    port = _free_port()
    (folder / "v2" / "bench" / "blobs").mkdir(parents=True, exist_ok=True)
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {folder}/pid; error_log stderr error; worker_processes 1;\n"
        "user root;\n"
        "events {}\n"
        "http { access_log off; sendfile on;\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    with _process("nginx", [find("nginx"), "-p", str(folder), "-c", str(config)], port, folder):
        yield Peer("nginx", port, "bench", folder)


@contextmanager
def _process(
    name: str,
    command: Sequence[str],
    port: int,
    folder: Path,
    environment: dict[str, str] | None = None,
) -> Iterator[None]:
    """Run a server until the block ends; its log lies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=Path.cwd())
        try:
            _wait_for(port, process, name, folder / "log")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _wait_for(port: int, process: subprocess.Popen[bytes], name: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"error: {name} did not start:\n{log.read_text()[-2000:]}")


def _wait_until_ready(port: int) -> None:
    """The address is taken before the server is ready."""
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while True:
        try:
            ask(port, "GET", "/readyz", {})
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def find(program: str) -> str:
    """Where a program is. Ends the benchmark when it is not there."""
    path = shutil.which(program)
    if path is None:
        raise SystemExit(f"error: no {program} here: run scripts/install-engines bench")
    return path
