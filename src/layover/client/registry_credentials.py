"""The user's own login for a registry, from wherever one is kept. The first that there is counts:

| | |
|---|---|
| `DOCKER_AUTH_CONFIG` | the text of a config.json, of which Docker reads `auths` alone |
| Docker's config.json | `credHelpers` of that registry, else `credsStore`, then `auths` |
| containers' auth.json | the same, at `REGISTRY_AUTH_FILE` or where podman has it |
| `LAYOVER_PUSH_REGISTRY_USERNAME`, `..._PASSWORD` | of no registry by name: the last resort |
| `DEPOT_PUSH_REGISTRY_USERNAME`, `..._PASSWORD` | the same, for existing scripts |
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layover.client import docker_config
from layover.client.credential_helpers import TIMEOUT_SECONDS, ask_helper
from layover.client.docker_logins import Credential, find_login, registry_names
from layover.client.push_errors import LoginUnusable
from layover.oci.references import Place

_VARIABLE = "DOCKER_AUTH_CONFIG"
_PREFIXES = ("LAYOVER_PUSH_REGISTRY_", "DEPOT_PUSH_REGISTRY_")


async def find_credential(
    place: Place, env: Mapping[str, str], *, helper_seconds: float = TIMEOUT_SECONDS
) -> Credential | None:
    """The login that is kept for the place's registry by its name, None when there is none.

    Raises LoginUnusable, HelperFailed, DockerConfigInvalid.
    """
    found = _in_variable(place, env)
    for path in (docker_config.config_path(env), *_containers_files(env)):
        if found is None:
            found = await _in_file(path, place, env, helper_seconds)
    return found


def credential_of_environment(registry: str, env: Mapping[str, str]) -> Credential | None:
    """The login that variables give without saying for which registry.

    It is the caller's to hand it to no more than one. Raises LoginUnusable when half of it is
    missing.
    """
    for prefix in _PREFIXES:
        names = f"{prefix}USERNAME", f"{prefix}PASSWORD"
        username, password = (env.get(name, "") for name in names)
        if username and password:
            return Credential(" and ".join(names), username, password)
        if username or password:
            given, missing = names if username else reversed(names)
            raise LoginUnusable(registry, given, f"{missing} is not set")
    return None


def _in_variable(place: Place, env: Mapping[str, str]) -> Credential | None:
    text = env.get(_VARIABLE)
    if not text:
        return None
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        # The error's own words could quote it.
        raise LoginUnusable(place.registry, _VARIABLE, "it is not a JSON object")
    return find_login(_member(content, "auths"), place, _VARIABLE)


async def _in_file(
    path: Path, place: Place, env: Mapping[str, str], helper_seconds: float
) -> Credential | None:
    content = docker_config.read(path).content
    found = None
    if helper := _helper_of(content, place.registry):
        name, server = helper
        found = await ask_helper(name, server, place.registry, env, timeout_seconds=helper_seconds)
    return found or find_login(_member(content, "auths"), place, str(path))


def _helper_of(content: Mapping[str, Any], registry: str) -> tuple[str, str] | None:
    """The helper to ask and the name to ask it for, None where there is none."""
    helpers = _member(content, "credHelpers") or {}
    names = registry_names(registry)
    for name in names:
        if name in helpers:
            # An empty one takes the registry out of what the store has.
            return (helpers[name], name) if helpers[name] else None
    store = _member(content, "credsStore")
    return (store, names[0]) if isinstance(store, str) and store else None


def _member(content: Mapping[str, Any], name: str) -> Any:
    # Go, and with it Docker, takes a key for a field's name whatever its case.
    return next((content[key] for key in content if key.lower() == name.lower()), None)


def _containers_files(env: Mapping[str, str]) -> list[Path]:
    """Where podman, skopeo and buildah keep logins."""
    if named := env.get("REGISTRY_AUTH_FILE"):
        return [Path(named)]
    folders = [Path(env[name]) for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME") if env.get(name)]
    if not env.get("XDG_CONFIG_HOME"):
        folders.append(Path(env.get("HOME") or Path.home()) / ".config")
    return [folder / "containers" / "auth.json" for folder in folders]
