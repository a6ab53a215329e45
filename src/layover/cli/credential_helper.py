"""`docker-credential-layover`: the program that Docker asks for a registry's token.

The protocol of docker-credential-helpers 0.9: an action as the only argument, its input on
standard input, its result on standard output. An error goes to standard output too, as one line,
with status 1: clients show it, and know some by their very words. Docker, podman, skopeo and
BuildKit's clients speak it.

| action | input | output |
|---|---|---|
| get | a registry's address | `{"ServerURL": ..., "Username": "x-token", "Secret": ...}` |
| store | the same object | |
| erase | a registry's address | |
| list | | `{HOST: "x-token", ...}` |
"""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from layover.cli.errors import DONE, FAILED, INTERRUPTED, WRONG_USAGE, CliError, say
from layover.cli.process import environment, leave, open_closed_streams
from layover.client import login_file, registry_logins
from layover.client.ci_systems import may_have_token
from layover.client.docker_config import PROGRAM
from layover.client.registries import parse_registry
from layover.client.registry_logins import USER_NAME
from layover.errors import LayoverError

_USAGE = f"Usage: {PROGRAM} <get|store|erase|list|version>"

# Sentences of the protocol, which clients compare.
_NOT_FOUND = "credentials not found in native keychain"
_NO_SERVER = "no credentials server URL"
_NO_USER = "no credentials username"

_MAX_INPUT_BYTES = 64 << 10


class HelperRefused(CliError):
    """What the helper was asked cannot be done."""


def main() -> None:
    """The entry point of `docker-credential-layover`."""
    open_closed_streams()
    status, answer = run(sys.argv[1:], _read_input, environment())
    if answer:
        print(answer)
    leave(status)


def run(
    arguments: Sequence[str], read: Callable[[], bytes], env: Mapping[str, str]
) -> tuple[int, str]:
    """Do an action; return its status and what goes to standard output. Never raises."""
    match list(arguments):
        case ["-h" | "--help" | "help"]:
            return DONE, _USAGE
        case ["version" | "--version"]:
            return DONE, f"{PROGRAM} {version('layover')}"
        case [name] if name in _ACTIONS:
            action = _ACTIONS[name]
        case _:
            say(_USAGE)
            return WRONG_USAGE, ""
    try:
        return DONE, action(read, env)
    except KeyboardInterrupt:
        return INTERRUPTED, ""
    except LayoverError as error:
        return FAILED, " ".join(str(error).split())
    except Exception as error:
        # Its text might hold the token.
        return FAILED, f"unexpected {type(error).__name__}"


def _get(read: Callable[[], bytes], env: Mapping[str, str]) -> str:
    asked = _server_of(read)
    path = login_file.login_path(env)
    if login_file.is_readable_by_others(path):
        say(f"warning: others can read {path}, which holds tokens: run `chmod 600 {path}`")

    def job_token(url: str, has_login: bool) -> str:
        if not may_have_token(env):
            return ""
        # Loads an HTTP client, which nobody else who asks has to wait for.
        from layover.cli.job_login import token_of_job

        return asyncio.run(token_of_job(url, None, Path(), env, has_login=has_login))

    token = registry_logins.find_token(parse_registry(asked), env, job_token)
    if not token:
        raise HelperRefused(_NOT_FOUND)
    return json.dumps({"ServerURL": asked, "Username": USER_NAME, "Secret": token})


def _store(read: Callable[[], bytes], env: Mapping[str, str]) -> str:
    credentials = _credentials(read())
    server, user = credentials["ServerURL"].strip(), credentials["Username"]
    if not server:
        raise HelperRefused(_NO_SERVER)
    if not user:
        raise HelperRefused(_NO_USER)
    if user != USER_NAME:
        raise HelperRefused(f"the user name has to be {USER_NAME}, with a token as password")
    if not credentials["Secret"].strip():
        raise HelperRefused("the token is empty")
    registry_logins.keep_token(parse_registry(server), credentials["Secret"], env)
    return ""


def _erase(read: Callable[[], bytes], env: Mapping[str, str]) -> str:
    registry_logins.forget_token(parse_registry(_server_of(read)), env)
    return ""


def _list(read: Callable[[], bytes], env: Mapping[str, str]) -> str:
    return json.dumps(dict.fromkeys(registry_logins.list_registries(env), USER_NAME))


_ACTIONS: Mapping[str, Callable[[Callable[[], bytes], Mapping[str, str]], str]] = {
    "get": _get,
    "store": _store,
    "erase": _erase,
    "list": _list,
}


def _read_input() -> bytes:
    return sys.stdin.buffer.read(_MAX_INPUT_BYTES + 1)


def _server_of(read: Callable[[], bytes]) -> str:
    server = _text(read()).strip()
    if not server:
        raise HelperRefused(_NO_SERVER)
    return server


def _text(content: bytes) -> str:
    if len(content) > _MAX_INPUT_BYTES:
        raise HelperRefused(f"the input is longer than {_MAX_INPUT_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise HelperRefused("the input is not UTF-8") from None


def _credentials(content: bytes) -> dict[str, str]:
    try:
        value: Any = json.loads(_text(content))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise HelperRefused("the input is not a JSON object")
    fields = {name: value.get(name, "") for name in ("ServerURL", "Username", "Secret")}
    if not all(isinstance(text, str) for text in fields.values()):
        raise HelperRefused("ServerURL, Username and Secret have to be texts")
    return fields
