"""A PostgreSQL of the tests' own: a private server in a temporary folder, databases by the dozen.

It sorts as people do (ICU, American English), so that what relies on the order of bytes has to
ask for it. It does not wait for the disk (fsync=off): the tests end its processes, never the
machine, and what a process wrote the system keeps.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg

from tests.e2e.processes import MissingEngineError, free_port

# Has to say a password, once a test has made it.
GUARDED_USER = "guarded"

_USER = "postgres"
_PROGRAMS = ("postgres", "initdb", "pg_ctl")
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    # Several servers, each with its pool, and the tests beside them.
    "max_connections": "300",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
}


def programs() -> Path:
    """The folder of the server's programs, which Debian keeps off the PATH, the newest version's.

    Raises MissingEngineError: a missing engine fails the tests.
    """
    found = shutil.which("postgres")
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name)
    )
    for folder in (*folders, *([Path(found).resolve().parent] if found else [])):
        if all((folder / program).exists() for program in _PROGRAMS):
            return folder
    raise MissingEngineError("postgres is not installed; run scripts/install-engines")


class Postgres:
    """A server on a port of 127.0.0.1 that outlives its restarts; everybody but one is trusted."""

    def __init__(self) -> None:
        """Make it and start it. `remove` ends it."""
        self._programs = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="layover-pg-", dir="/tmp"))
        self._data = self.folder / "data"
        self.port = free_port()
        self._as_owner: list[str] = []
        if os.getuid() == 0:
            # It refuses to run as root.
            owner = pwd.getpwnam(_USER)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            ids = (f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}")
            self._as_owner = ["setpriv", *ids, "--clear-groups", "--"]
        try:
            self._run(
                *("initdb", "-D", str(self._data), "-U", _USER, "--auth=trust", "--no-sync"),
                *("--encoding=UTF8", "--locale=C", "--locale-provider=icu", "--icu-locale=en-US"),
            )
            with (self._data / "postgresql.conf").open("a") as conf:
                conf.write("listen_addresses = '127.0.0.1'\n")
                conf.write(f"port = {self.port}\nunix_socket_directories = '{self.folder}'\n")
                conf.writelines(f"{name} = {value}\n" for name, value in _SETTINGS.items())
            rules = self._data / "pg_hba.conf"
            rules.write_text(f"host all {GUARDED_USER} all scram-sha-256\n{rules.read_text()}")
            self.start()
        except BaseException:
            self.remove()
            raise

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        self._run(
            *("pg_ctl", "start", "-D", str(self._data), "-w", "-t", "60"),
            *("-l", str(self.folder / "log")),
        )

    def stop(self, mode: str = "immediate") -> None:
        """End it; "immediate" is as if it had crashed."""
        self._run("pg_ctl", "stop", "-D", str(self._data), "-m", mode, "-w", "-t", "60")

    def restart(self) -> None:
        """Crash it and start it again."""
        self.stop()
        self.start()

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement outside of any transaction; return the rows, if there are any."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            # The tests' own text, never a caller's.
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create(self, template: str = "template1") -> str:
        """Make a database like `template`, which nobody may be using; return its name."""
        name = f"test_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextlib.contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a database that is dropped in the end."""
        name = self.create(template)
        try:
            yield self.url(name)
        finally:
            self.drop(name)

    def wait_for_connections(self, database: str, count: int, *, timeout: float = 30) -> None:
        """Wait until so many clients are connected to a database."""
        deadline = time.monotonic() + timeout
        query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
        while self.execute(query) != [(count,)]:
            assert time.monotonic() < deadline, f"never {count} connections to {database}"
            time.sleep(0.05)

    def remove(self) -> None:
        """End it, whatever it does, and remove all of it."""
        if (self._data / "postmaster.pid").exists():
            with contextlib.suppress(AssertionError):
                self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        # Not into a pipe: the server that pg_ctl starts would hold it open.
        said = self.folder / f"{program}.log"
        with said.open("wb") as output:
            done = subprocess.run(
                [*self._as_owner, str(self._programs / program), *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        assert done.returncode == 0, f"{program} ended with {done.returncode}: {said.read_text()}"
