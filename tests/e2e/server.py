"""A Layover server as a user starts it, and what a user then types."""

import base64
import contextlib
import http.client
import json
import signal
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from layover.adapters.sql.database import Database
from layover.adapters.sql.schema import blobs
from tests.certificates import Certificates
from tests.e2e import processes
from tests.e2e.pairs import Storage
from tests.e2e.processes import ROOT, Background, environment, run

LAYOVER = ROOT / ".venv" / "bin" / "layover"


@dataclass(frozen=True)
class Response:
    """An HTTP answer, whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class SavedBuild:
    """What a build's metadata file says; `reference` is the image's full name in the registry."""

    id: str
    reference: str
    metadata: dict[str, Any]


class LayoverServer:
    """`layover serve` as a process of its own, on a data folder and a port that outlive it."""

    def __init__(
        self,
        folder: Path,
        *,
        data_folder: Path | None = None,
        certificates: Certificates | None = None,
        settings: Mapping[str, str] | None = None,
        storage: Storage | None = None,
    ) -> None:
        """Prepare a server, not started yet; `settings` are LAYOVER_* variables without prefix."""
        storage = storage or Storage()
        settings = {**storage.settings, **(settings or {})}
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data_folder = data_folder or folder / "data"
        self.certificates = certificates
        self.port = processes.free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if certificates else 'http'}://{self.host}"
        self.database_url = settings.get("DATABASE_URL") or (
            f"sqlite:///{self.data_folder / 'layover.db'}"
        )
        self.blob_folder = storage.blob_folder or self.data_folder / "blobs"
        self.env = environment(
            folder, **{f"LAYOVER_{name}": value for name, value in settings.items()}
        )
        self._process: Background | None = None
        self._project_id: str | None = None

    # -- Its life ---------------------------------------------------------------------------------

    def start(self, *, timeout: float = 60) -> None:
        """Start it and wait until /readyz says so; called again, it is a restart."""
        tls: tuple[str | Path, ...] = ()
        if self.certificates is not None:
            tls = ("--tls-cert", self.certificates.certificate, "--tls-key", self.certificates.key)
        command = [LAYOVER, "serve", "--data-dir", self.data_folder, "--listen", self.host, *tls]
        self._process = Background(command, env=self.env, log=self.folder / "server.log")
        try:
            processes.wait_until(self._is_ready, timeout=timeout, what=f"{self.url}/readyz")
        except AssertionError as error:
            raise AssertionError(
                f"the server did not start: {self.process.log()[-4000:]}"
            ) from error

    def _is_ready(self) -> bool:
        if not self.process.is_running:
            raise AssertionError(f"the server ended with {self.process.exit_status}")
        try:
            return self.request("GET", "/readyz", authenticate=False).status == 200
        except OSError:
            return False

    @property
    def process(self) -> Background:
        assert self._process is not None, "the server was never started"
        return self._process

    def kill(self) -> None:
        """End it as a power cut does; what it had started may live on, as after a real SIGKILL."""
        self.process.signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> None:
        """Stop it as a service manager does. Idempotent."""
        if self._process is not None:
            self._process.stop(timeout=60)

    def remove(self) -> None:
        """Stop it and remove all it wrote, mounts that its builder left included."""
        self.stop()
        processes.remove(self.folder)

    # -- What a user sees of it -------------------------------------------------------------------

    @property
    def token(self) -> str:
        return (self.data_folder / "admin-token").read_text().strip()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Write into the server's database behind its back, as another replica does."""
        database = Database(self.database_url)
        try:
            with database.engine.begin() as connection:
                yield connection
        finally:
            database.close()

    def blob_paths(self, digest: str | None = None) -> set[Path]:
        """The files of the blobs that the server has, or of one; what else lies there is none."""
        query = select(blobs.c.key)
        if digest is not None:
            query = query.where(blobs.c.digest == digest)
        with self.transaction() as connection:
            return {self.blob_folder / key for key in connection.scalars(query)}

    @property
    def project_id(self) -> str:
        """The project that the first start made."""
        if self._project_id is None:
            projects = json.loads(self.cli("list", "projects", "--output", "json").stdout)
            self._project_id = str(projects[0]["id"])
        return self._project_id

    def cli_env(self, home: Path | None = None) -> dict[str, str]:
        """Return the environment in which `layover` and `depot` talk to this server."""
        more = {"LAYOVER_URL": self.url, "LAYOVER_TOKEN": self.token}
        if self._project_id is not None:
            more["LAYOVER_PROJECT_ID"] = self._project_id
        if self.certificates is not None:
            more["SSL_CERT_FILE"] = str(self.certificates.ca)
        home = home or self.folder / "home"
        home.mkdir(exist_ok=True)
        return environment(home, **more)

    def cli(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        check: bool = True,
        timeout: float = 300,
    ) -> "subprocess.CompletedProcess[str]":
        """Run `layover ARGUMENTS`; `env` is added to what makes it talk to this server."""
        return run(
            [LAYOVER, *arguments],
            env={**self.cli_env(), **(env or {})},
            cwd=cwd,
            check=check,
            timeout=timeout,
        )

    def save(self, context: Path, *flags: str, timeout: float = 600) -> "SavedBuild":
        """Run `layover build --save FLAGS CONTEXT` and read the build ID as a script does."""
        metadata_file = context / "build.json"
        self.cli(
            *("build", "--save", f"--metadata-file={metadata_file}", *flags, str(context)),
            timeout=timeout,
        )
        return self.saved(metadata_file)

    def saved(self, metadata_file: Path) -> "SavedBuild":
        metadata = json.loads(metadata_file.read_text())
        build = metadata["depot.build"]
        assert build["projectID"] == self.project_id
        return SavedBuild(
            id=build["buildID"],
            reference=f"{self.host}/{build['projectID']}:{build['buildID']}",
            metadata=metadata,
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        authenticate: bool = True,
        timeout: float = 60,
    ) -> Response:
        """Send one HTTP request, with the token as Basic credentials, user name x-token."""
        connection = self.connect(timeout=timeout)
        try:
            connection.request(
                method,
                path,
                body=body,
                headers={**(self.basic_auth if authenticate else {}), **(headers or {})},
            )
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def connect(self, *, timeout: float = 60) -> http.client.HTTPConnection:
        if self.certificates is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        context = ssl.create_default_context(cafile=str(self.certificates.ca))
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=context)

    @property
    def basic_auth(self) -> dict[str, str]:
        credentials = base64.b64encode(f"x-token:{self.token}".encode()).decode()
        return {"Authorization": f"Basic {credentials}"}

    def manifest(self, reference: str, repository: str | None = None) -> Response:
        """Get a manifest or index by tag or digest, whatever its type."""
        repository = repository or self.project_id
        types = (
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        )
        response = self.request(
            "GET", f"/v2/{repository}/manifests/{reference}", headers={"Accept": ", ".join(types)}
        )
        assert response.status == 200, (response.status, response.body)
        return response

    def verify(self, *flags: str) -> tuple[int, dict[str, Any]]:
        """Run `layover admin verify` as its operator does; its status and what it printed."""
        done = run(
            [LAYOVER, "admin", "verify", "--data-dir", self.data_folder, "-o", "json", *flags],
            env=self.env,
            cwd=self.folder,
            check=False,
            timeout=120,
        )
        assert done.returncode in (0, 1), done.stderr
        return done.returncode, json.loads(done.stdout)

    def assert_whole(self) -> None:
        """Read everything again: nothing is lost or half-written, and nothing too much."""
        status, result = self.verify()
        assert status == 0, result["findings"]

    # -- Memory -----------------------------------------------------------------------------------

    def reset_peak_memory(self) -> int:
        """Forget the highest resident size so far; return the present one, in bytes."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self._memory("VmRSS")

    def peak_memory(self) -> int:
        """Return the highest resident size since reset_peak_memory(), in bytes."""
        return self._memory("VmHWM")

    def _memory(self, name: str) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {name} in the server's /proc status")
