"""Docker's config.json, as far as it says which credential helper a registry has.

    {"credHelpers": {"layover.example.com": "layover"}}

lets Docker ask the program `docker-credential-layover` for that host. podman, skopeo and
BuildKit's clients read the same entry, podman and skopeo also from an auth.json of their own. The
file is Docker's: what is not ours in it stays, to the byte.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layover.client import json_text
from layover.client.docker_context import docker_folder
from layover.client.errors import ClientError
from layover.client.login_file import replace_file
from layover.client.registries import Registry, RegistryInvalid, parse_registry

# The helper's name in the file; its program is called docker-credential-HELPER.
HELPER = "layover"
PROGRAM = f"docker-credential-{HELPER}"

_SECTION = "credHelpers"


class DockerConfigInvalid(ClientError):
    """Docker's config.json is not what Docker reads, so nothing in it was changed."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} is not a configuration that Docker reads: {reason}. Nothing was changed:"
            " correct it, or move it away, and try again"
        )
        self.path = path


class DockerConfigUnwritable(ClientError):
    """Docker's config.json cannot be written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"cannot write {path}: {reason}. DOCKER_CONFIG names the folder of another one"
        )
        self.path = path


class HelperTaken(ClientError):
    """The registry has a credential helper already, and not ours."""

    def __init__(self, path: Path, host: str, helper: str) -> None:
        super().__init__(
            f"{path} already names the credential helper {helper!r} for {host}. Nothing was"
            f" changed: take that entry out of {_SECTION} if Layover is to answer for it"
        )
        self.path, self.host, self.helper = path, host, helper


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """The file as it stands; one that is not there has no text."""

    path: Path
    text: str | None = field(repr=False)

    @property
    def content(self) -> dict[str, Any]:
        return {} if self.text is None else json_text.parse(self.text)

    def helper_of(self, host: str) -> str:
        """The credential helper that Docker asks for this very registry, if it has one."""
        return str(self._section().get(host, ""))

    def _section(self) -> Mapping[str, Any]:
        name = _section_name(self.content)
        return self.content.get(name) or {}


def config_path(env: Mapping[str, str]) -> Path:
    """Where Docker's config.json is, whether it exists or not."""
    return docker_folder(env) / "config.json"


def read(path: Path) -> DockerConfig:
    """Read the file. Raises DockerConfigInvalid for one that Docker could not read either."""
    try:
        text = path.read_bytes().decode()
        if not text.strip():
            # Docker takes an empty one for none.
            return DockerConfig(path, None)
        content = json_text.parse(text)
    except FileNotFoundError:
        return DockerConfig(path, None)
    except OSError as error:
        raise DockerConfigInvalid(path, error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise DockerConfigInvalid(path, "it is not UTF-8") from None
    except ValueError as error:
        # The error's own text quotes nothing of the file, which may hold passwords.
        raise DockerConfigInvalid(path, f"it is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise DockerConfigInvalid(path, "it is no JSON object")
    named = [member.key for member in json_text.read_object(text).members if _is_section(member)]
    if len(named) > 1:
        raise DockerConfigInvalid(path, f"it has {_SECTION} {len(named)} times")
    section = content.get(named[0]) if named else None
    if section is not None and not (
        isinstance(section, dict) and all(isinstance(helper, str) for helper in section.values())
    ):
        raise DockerConfigInvalid(path, f"{_SECTION} has to be an object of texts")
    return DockerConfig(path, text)


def install(config: DockerConfig, host: str) -> bool:
    """Make ours the credential helper of `host`; false when it is that already.

    Raises HelperTaken, DockerConfigUnwritable.
    """
    helper = config.helper_of(host)
    if helper == HELPER:
        return False
    if helper:
        raise HelperTaken(config.path, host, helper)
    _write(config.path, _with_helper(config.text, host))
    return True


def uninstall(config: DockerConfig, host: str) -> bool:
    """Take out what `install` put in; false when ours is not the helper of `host`.

    What `install` has not touched since is then as it was, to the byte, and a file that it made
    is gone. Raises DockerConfigUnwritable.
    """
    if config.text is None or config.helper_of(host) != HELPER:
        return False
    if config.text == _new_file(host) and not config.path.is_symlink():
        try:
            config.path.unlink()
        except OSError as error:
            raise DockerConfigUnwritable(config.path, error.strerror or str(error)) from None
        return True
    _write(config.path, _without_helper(config.text, host))
    return True


def warnings(config: DockerConfig, registry: Registry, env: Mapping[str, str]) -> list[str]:
    """What else in the file, or the environment, speaks for the same registry."""
    found = []
    auths = config.content.get("auths")
    for name, entry in auths.items() if isinstance(auths, dict) else ():
        # An empty one is how Docker notes that a helper has the login.
        if _means(name, registry) and isinstance(entry, dict) and any(entry.values()):
            found.append(
                f"{config.path} holds a login for {name} as well, readable by whoever reads the"
                " file. Docker no longer uses it, other programs may: take it out of auths"
            )
    store = config.content.get("credsStore")
    if store == HELPER:
        found.append(
            f'{config.path} has "credsStore": "{HELPER}", which makes Layover answer for every'
            f" registry, and it knows its own servers alone: {_SECTION} is enough"
        )
    elif isinstance(store, str) and store:
        found.append(
            f"{config.path} keeps other logins with the credential store {store!r}. For"
            f" {registry.host} it is no longer asked, and an older login there stays in it"
        )
    if env.get("DOCKER_AUTH_CONFIG"):
        found.append("DOCKER_AUTH_CONFIG is set, and Docker prefers the logins in it to any helper")
    return found


def _means(name: str, registry: Registry) -> bool:
    try:
        return parse_registry(name).is_same(registry)
    except RegistryInvalid:
        return False


def _is_section(member: json_text.Member) -> bool:
    # Go, and with it Docker, takes a key for a field's name whatever its case.
    return member.key.lower() == _SECTION.lower()


def _section_name(content: Mapping[str, Any]) -> str:
    return next((key for key in content if key.lower() == _SECTION.lower()), _SECTION)


def _new_file(host: str) -> str:
    """As Docker itself writes one."""
    return json.dumps({_SECTION: {host: HELPER}}, indent="\t")


def _with_helper(text: str | None, host: str) -> str:
    if text is None:
        return _new_file(host)
    document = json_text.read_object(text)
    section = next((member for member in document.members if _is_section(member)), None)
    if section is None:
        return json_text.with_member(text, document, _SECTION, {host: HELPER})
    if text.startswith("null", section.value_start):
        start, end = section.value_start, section.value_end
        return text[:start] + json.dumps({host: HELPER}) + text[end:]
    helpers = json_text.read_object(text, section.value_start)
    if (empty := helpers.find(host)) is not None:
        text = json_text.without_member(text, helpers, empty)
        return _with_helper(text, host)
    return json_text.with_member(text, helpers, host, HELPER)


def _without_helper(text: str, host: str) -> str:
    document = json_text.read_object(text)
    section = next(member for member in document.members if _is_section(member))
    helpers = json_text.read_object(text, section.value_start)
    if all(member.key == host for member in helpers.members):
        return json_text.without_member(text, document, section)
    while (member := helpers.find(host)) is not None:
        text = json_text.without_member(text, helpers, member)
        helpers = json_text.read_object(text, section.value_start)
    return text


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A link, as to a folder of dotfiles, goes on to point there.
        place = path.resolve()
        try:
            status: os.stat_result | None = place.stat()
        except FileNotFoundError:
            status = None
        mode = 0o600 if status is None else status.st_mode & 0o777
        owner = None if status is None else (status.st_uid, status.st_gid)
        replace_file(place, text.encode(), mode=mode, owner=owner)
    except OSError as error:
        raise DockerConfigUnwritable(path, error.strerror or str(error)) from None
