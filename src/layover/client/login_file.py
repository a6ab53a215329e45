"""The file that `layover login` keeps: tokens by their server's address.

    url = "https://layover.example.com"          # the server that commands use unless told

    made = ["https://layover.example.com"]       # whose token a login made, and a logout ends

    [tokens]
    "https://layover.example.com" = "..."

It lies in $LAYOVER_CONFIG_DIR, else $XDG_CONFIG_HOME/layover, else ~/.config/layover, in a
folder of mode 0700 and with mode 0600, and is replaced as a whole: a reader sees the old
file or the new one.
"""

import contextlib
import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from layover.client.errors import ClientError


class LoginFileInvalid(ClientError):
    """The login's file is not what `layover login` writes."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot read {path}: {reason}; `layover login --url URL` writes it anew")
        self.path = path


class LoginFileUnwritable(ClientError):
    """The login's file cannot be put where it belongs."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"cannot write {path}: {reason}. Set LAYOVER_CONFIG_DIR to a folder of your own, or"
            " do without a login: set LAYOVER_URL and LAYOVER_TOKEN"
        )
        self.path = path


@dataclass(frozen=True, slots=True)
class Login:
    """What the file holds: the server in use, and a token for each server logged in to."""

    url: str = ""
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    made: frozenset[str] = frozenset()
    """The servers whose token `layover login` had made: nobody else has that one."""

    def with_token(self, url: str, token: str, *, is_ours: bool = False) -> "Login":
        """Log in to `url`, which becomes the server in use; `is_ours` is a token made for this."""
        made = self.made | {url} if is_ours else self.made - {url}
        return Login(url, {**self.tokens, url: token}, made)

    def without(self, url: str) -> "Login":
        """Log out of `url`; the address stays, since only the token is a secret."""
        tokens = {k: v for k, v in self.tokens.items() if k != url}
        return replace(self, tokens=tokens, made=self.made - {url})


def config_folder(env: Mapping[str, str]) -> Path:
    """Where the client keeps its files."""
    if named := env.get("LAYOVER_CONFIG_DIR"):
        return Path(named)
    if base := env.get("XDG_CONFIG_HOME"):
        return Path(base) / "layover"
    return Path(env.get("HOME") or Path.home()) / ".config" / "layover"


def login_path(env: Mapping[str, str]) -> Path:
    """Where the login's file is, whether it exists or not."""
    return config_folder(env) / "config.toml"


def read(path: Path) -> Login:
    """Read the file; one that does not exist is an empty login. Raises LoginFileInvalid."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Login()
    except OSError as error:
        raise LoginFileInvalid(path, error.strerror or str(error)) from error
    except ValueError as error:
        # The text of a parse error quotes no value of the file, so no token shows.
        raise LoginFileInvalid(path, f"it is not TOML ({error})") from error
    url, tokens, made = content.get("url", ""), content.get("tokens", {}), content.get("made", [])
    if not isinstance(url, str) or not isinstance(tokens, dict):
        raise LoginFileInvalid(path, "`url` has to be text and `tokens` a table")
    if not all(isinstance(token, str) for token in tokens.values()):
        raise LoginFileInvalid(path, "every token has to be text")
    if not isinstance(made, list) or not all(isinstance(each, str) for each in made):
        raise LoginFileInvalid(path, "`made` has to be a list of addresses")
    return Login(url, tokens, frozenset(made) & tokens.keys())


def write(path: Path, login: Login) -> None:
    """Replace the file, readable by its owner alone. Raises LoginFileUnwritable."""
    lines = [f"url = {_quoted(login.url)}"]
    if login.made:
        lines.append(f"made = [{', '.join(_quoted(url) for url in sorted(login.made))}]")
    lines += ["", "[tokens]"]
    lines += [f"{_quoted(url)} = {_quoted(token)}" for url, token in sorted(login.tokens.items())]
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A link, as to a folder of dotfiles, goes on to point there.
        replace_file(path.resolve(), ("\n".join(lines) + "\n").encode(), mode=0o600)
    except OSError as error:
        raise LoginFileUnwritable(path, error.strerror or str(error)) from error


def is_readable_by_others(path: Path) -> bool:
    """Whether anyone but its owner may read the file, if there is one."""
    try:
        return path.stat().st_mode & 0o077 != 0
    except OSError:
        return False


def replace_file(
    path: Path, content: bytes, *, mode: int, owner: tuple[int, int] | None = None
) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, whole.

    `owner`, user and group, is whose it is to be, where that is not who runs this; only root may
    give a file away, and nobody else does.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            if owner is not None and os.geteuid() == 0:
                os.fchown(file.fileno(), *owner)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def _quoted(text: str) -> str:
    """`text` as a basic string of TOML 1.0."""
    parts = []
    for character in text:
        if character in '"\\':
            parts.append(f"\\{character}")
        elif character < " " or character == "\x7f":
            parts.append(f"\\u{ord(character):04X}")
        else:
            parts.append(character)
    return '"' + "".join(parts) + '"'
