"""The private folder that buildx is configured from, for one build.

It holds a Docker configuration that is the user's own plus the registry's credentials, the
builder's certificates, and buildx's state. Secrets are in files of mode 0600 in a folder of
mode 0700, never in an argument or the environment; nothing of the user's is written to.

    docker/config.json     the user's, with the registry's credentials added
    docker/*               links to everything else of the user's
    buildx/                instances, refs/BUILDER/NODE/REF (a file a build that has started)
    tls/N/                 ca.pem, cert.pem, key.pem of a builder
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from layover.client.buildkit import BuilderAddress
from layover.client.docker_context import docker_folder
from layover.client.errors import ClientError
from layover.client.login_file import config_folder, replace_file

BUILDER_NAME = "layover"

# Variables that would send buildx elsewhere than to this folder and this builder.
_REMOVED = ("BUILDX_BUILDER", "BUILDX_CONFIG", "DOCKER_CONFIG")

# Layover's own secrets: no business of buildx's, unless a build's secret is taken from one.
_OWN_SECRETS = (
    *("LAYOVER_TOKEN", "DEPOT_TOKEN", "LAYOVER_ID_TOKEN"),
    *("LAYOVER_PUSH_REGISTRY_PASSWORD", "DEPOT_PUSH_REGISTRY_PASSWORD"),
)

_NODE_ID = ".buildNodeID"


def without_own_secrets(env: Mapping[str, str], arguments: Sequence[str]) -> dict[str, str]:
    """The environment for buildx, which lets a bake file read all of it: without Layover's own
    secrets, unless the command line names their variable."""
    return {
        name: value
        for name, value in env.items()
        if name not in _OWN_SECRETS or any(name in argument for argument in arguments)
    }


class Workspace:
    """The folder of one build. Use it as a context manager: leaving removes the folder."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        _sweep(Path(tempfile.gettempdir()))
        self._folder = Path(tempfile.mkdtemp(prefix=f"layover-build-{os.getpid()}-"))
        self.docker = self._folder / "docker"
        self.buildx = self._folder / "buildx"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def path(self, name: str) -> Path:
        """A file of this folder's own."""
        return self._folder / name

    def environment(self, arguments: Iterable[str]) -> dict[str, str]:
        """The environment for buildx: the user's, with this folder's configuration.

        The token stays out of it, unless the command line names its variable, as
        `--secret id=token,env=LAYOVER_TOKEN` does.
        """
        env = without_own_secrets(self._env, tuple(arguments))
        for name in _REMOVED:
            env.pop(name, None)
        env["DOCKER_CONFIG"] = str(self.docker)
        env["BUILDX_CONFIG"] = str(self.buildx)
        return env

    def prepare(self, credentials: Mapping[str, str]) -> None:
        """Write the Docker configuration. `credentials` are base64 of USER:TOKEN, by host."""
        user_folder = docker_folder(self._env)
        self.docker.mkdir(mode=0o700)
        self.buildx.mkdir(mode=0o700)
        for entry in user_folder.iterdir() if user_folder.is_dir() else ():
            if entry.name not in ("config.json", "buildx"):
                (self.docker / entry.name).symlink_to(entry.absolute())
        config = with_credentials(_read_config(user_folder / "config.json"), credentials)
        replace_file(self.docker / "config.json", json.dumps(config).encode(), mode=0o600)
        self._keep_identity(user_folder)

    def _keep_identity(self, user_folder: Path) -> None:
        # buildx marks what it sends with this name, and BuildKit sends again only what changed
        # for the same name: with a new one each time, every build would send its context whole.
        user_buildx = Path(self._env.get("BUILDX_CONFIG") or user_folder / "buildx")
        for kept in (user_buildx / _NODE_ID, config_folder(self._env) / "buildx-node-id"):
            if kept.is_file():
                name = kept.read_bytes()
                break
        else:
            name = os.urandom(8).hex().encode()
            try:
                kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                replace_file(kept, name, mode=0o600)
            except OSError:
                pass  # A home folder that cannot be written to costs the speed, not the build.
        replace_file(self.buildx / _NODE_ID, name, mode=0o600)

    def driver_options(self, index: int, address: BuilderAddress) -> list[str]:
        """Write a builder's certificates; returns the options of buildx's remote driver."""
        if not address.uses_tls:
            return []
        folder = self._folder / "tls" / str(index)
        folder.mkdir(mode=0o700, parents=True)
        options = []
        for option, text in (
            ("cacert", address.ca_cert),
            ("cert", address.cert),
            ("key", address.key),
        ):
            if text:
                path = folder / f"{option}.pem"
                replace_file(path, text.encode(), mode=0o600)
                options.append(f"{option}={path}")
        if address.server_name:
            options.append(f"servername={address.server_name}")
        return options


def _sweep(folder: Path) -> None:
    """Remove what builds left whose process was killed: there are credentials in it."""
    for path in folder.glob("layover-build-*-*"):
        pid = path.name.split("-")[2]
        try:
            is_ours = path.lstat().st_uid == os.getuid() and path.is_dir() and pid.isdigit()
            if is_ours and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue


def with_credentials(config: Mapping[str, Any], credentials: Mapping[str, str]) -> dict[str, Any]:
    """A Docker configuration with credentials for some hosts added, all others as they are.

    A user's credential store would be asked before `auths`; an empty helper for a host sends
    Docker's libraries to the file for that host alone (docker/cli, config/configfile).
    """
    changed = dict(config)
    changed["auths"] = {
        **(config.get("auths") or {}),
        **{host: {"auth": auth} for host, auth in credentials.items()},
    }
    if config.get("credsStore") or config.get("credHelpers"):
        changed["credHelpers"] = {
            **(config.get("credHelpers") or {}),
            **dict.fromkeys(credentials, ""),
        }
    return changed


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8") or "{}")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ClientError(f"cannot read Docker's {path}: {error}") from error
    if not isinstance(content, dict):
        raise ClientError(f"cannot read Docker's {path}: it is no JSON object")
    return content


def node_name(index: int) -> str:
    """buildx's name of a builder, which its refs lie under."""
    return f"builder-{index}"


def create_commands(
    workspace: Workspace, addresses: Sequence[tuple[BuilderAddress, Iterable[str]]]
) -> list[list[str]]:
    """The `buildx create` commands that make one builder of these addresses.

    With several, each is told its platforms, so that buildx sends each platform's build to
    the builder that is native to it.
    """
    commands = []
    for index, (address, platforms) in enumerate(addresses):
        command = ["create", "--name", BUILDER_NAME, "--node", node_name(index)]
        command += ["--driver", "remote"]
        if index:
            command.append("--append")
        if len(addresses) > 1:
            command += ["--platform", ",".join(platforms)]
        for option in workspace.driver_options(index, address):
            command += ["--driver-opt", option]
        commands.append([*command, address.url])
    return commands
