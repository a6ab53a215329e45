"""Finding buildx: on the PATH, or among Docker's plugins."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from layover.cli.errors import BuildxMissing
from layover.client.docker_context import docker_folder

# docker/cli looks for its plugins here, in this order, after the user's own.
_PLUGIN_FOLDERS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
    # Homebrew's and Docker Desktop's.
    "/opt/homebrew/lib/docker/cli-plugins",
    "/Applications/Docker.app/Contents/Resources/cli-plugins",
)


def find_buildx(env: Mapping[str, str], folders: tuple[str, ...] = _PLUGIN_FOLDERS) -> Path:
    """The path of a buildx that can be run. Raises BuildxMissing, which says how to get it."""
    path = env.get("PATH", os.defpath)
    for name in ("buildx", "docker-buildx"):
        if found := shutil.which(name, path=path):
            return Path(found).absolute()
    for folder in (docker_folder(env) / "cli-plugins", *map(Path, folders)):
        plugin = folder / "docker-buildx"
        if plugin.is_file() and os.access(plugin, os.X_OK):
            return plugin.absolute()
    raise BuildxMissing
