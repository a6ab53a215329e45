"""What a server process does around its application: locks its folder, takes its address,
checks its certificate, and greets whoever started it."""

import fcntl
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import structlog

from layover.http.tls import server_context
from layover.identity.models import FirstTenant
from layover.settings import Settings, SettingsError

ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105  # a file's name

# What marks a folder that no server may start in.
RESTORING_FILE = "restoring"
BACKUP_FILE = "backup.json"
_REFUSED = {
    RESTORING_FILE: "{} holds an unfinished restore: run `layover admin restore` again",
    BACKUP_FILE: "{} is a backup: restore it with `layover admin restore`, into another folder",
}

_BACKLOG = 2048

_LONGEST_SILENCE = timedelta(minutes=2)

_log = structlog.get_logger(__name__)


@contextmanager
def locked(data_dir: Path, *, restores: bool = False) -> Iterator[None]:
    """Hold the data folder, made when missing, so that no second server uses it.

    Raises SettingsError; also for a folder that is a backup, and, unless the caller `restores`,
    for one that is only half restored.
    """
    try:
        for name, reason in _REFUSED.items():
            if (data_dir / name).exists() and not (restores and name == RESTORING_FILE):
                raise SettingsError(f"data_dir: {reason.format(data_dir)}")
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (data_dir / "lock").open("w")
    except OSError as error:
        raise SettingsError(f"data_dir: cannot use {data_dir}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(
                f"data_dir: another server is using {data_dir}: stop it, or choose another folder"
            ) from error
        except OSError as error:
            raise SettingsError(f"data_dir: cannot lock {data_dir}: {error.strerror}") from error
        yield


@contextmanager
def listening(settings: Settings, silence: timedelta = _LONGEST_SILENCE) -> Iterator[socket.socket]:
    """Bind the address before anything else starts. Raises SettingsError when it is taken.

    A connection whose client takes none of what is sent to it for `silence` is given up.
    """
    host = settings.listen_host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server(
            (host, settings.listen_port), family=family, backlog=_BACKLOG
        )
    except OSError as error:
        raise SettingsError(
            f"listen: cannot listen on {settings.listen}: {error.strerror or error}"
        ) from error
    # A client that vanished without a word, or that takes nothing of its response, would hold its
    # request, and an upload's lock, for good. What is accepted inherits these: silence is asked
    # about after a minute, given up on after two.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 60),
        (socket.TCP_KEEPINTVL, 15),
        (socket.TCP_KEEPCNT, 4),
        (socket.TCP_USER_TIMEOUT, int(silence.total_seconds() * 1000)),
    ):
        listener.setsockopt(socket.IPPROTO_TCP, option, value)
    with listener:
        yield listener


def check_tls(settings: Settings) -> None:
    """Raise SettingsError when the certificate and its key cannot be served."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        server_context(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"tls_cert, tls_key: cannot be used: {error}") from error


class TlsRenewal:
    """Serves a certificate that was renewed from the next connection on, without a restart."""

    def __init__(self, context: ssl.SSLContext, settings: Settings) -> None:
        """`context` serves what the settings' files hold now."""
        self._context, self._settings = context, settings
        self._served = self._state()
        self._refused: object = None

    async def check(self) -> None:
        """Load the files if they changed; those that do not fit together yet are left alone."""
        state = self._state()
        if state == self._served:
            return
        cert, key = self._settings.tls_cert, self._settings.tls_key
        assert cert is not None
        try:
            # In a context of its own first: half a pair would be served to everybody.
            check_tls(self._settings)
            self._context.load_cert_chain(cert, key, password="")
        except (SettingsError, OSError) as error:
            if state != self._refused:
                _log.warning("tls_cert_unusable", error=str(error))
            self._refused = state
            return
        self._served = state
        _log.info("tls_cert_renewed")

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What tells files apart from those before: which they are, how long, and from when."""
        return tuple(map(_file_state, (self._settings.tls_cert, self._settings.tls_key)))


def _file_state(path: Path | None) -> tuple[int, int, int] | None:
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)


def keep_admin_token(data_dir: Path, secret: str) -> None:
    """Write the first token, durably, where only the server's user can read it.

    Raises SettingsError.
    """
    path = data_dir / ADMIN_TOKEN_FILE
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "w") as stream:
            os.fchmod(file, 0o600)
            stream.write(f"{secret}\n")
            stream.flush()
            os.fsync(file)
        folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise SettingsError(f"data_dir: cannot write {path}: {error.strerror}") from error


def discard_admin_token(data_dir: Path) -> None:
    """Remove a first token that came to nothing: another replica's is the one."""
    (data_dir / ADMIN_TOKEN_FILE).unlink(missing_ok=True)


def greeting(settings: Settings, tenant: FirstTenant | None) -> str:
    """What a starting server says; with the IDs, the token and what to do next on a first start."""
    lines = [f"Layover listens on {settings.url}"]
    if tenant is None:
        return f"{lines[0]}\n"
    token_path = settings.data_dir / ADMIN_TOKEN_FILE
    lines += [
        "",
        f"  organization  {tenant.organization_id}",
        f"  project       {tenant.project_id}",
        f"  user          {tenant.admin.user_id} ({tenant.user_name})",
        f"  token         {token_path.read_text().strip()}",
        "",
        f"The token is shown this once, and kept in {token_path}. Next, from another terminal:",
        "",
        f"  export LAYOVER_URL={settings.url} LAYOVER_PROJECT_ID={tenant.project_id}",
        f"  export LAYOVER_TOKEN=$(cat {token_path.absolute()})",
        "  layover build --save --metadata-file=build.json .",
        "  layover list builds",
        f"  layover passwd   # then sign in at {settings.url}/signin as {tenant.user_name}",
        f'  echo "$LAYOVER_TOKEN" | docker login {settings.registry_host}'
        " -u x-token --password-stdin",
    ]
    return "\n".join(lines) + "\n"
