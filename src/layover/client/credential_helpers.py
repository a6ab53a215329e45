"""Asks the programs that keep logins for Docker: `docker-credential-NAME get`.

The protocol of docker-credential-helpers: the registry's name on standard input, an object of
ServerURL, Username and Secret on standard output. With an error comes another status than 0 and a
sentence on standard output, one of which says that there is no login. What a helper writes to
standard error is meant for its user, and gets there.
"""

import asyncio
import json
import re
import shutil
from collections.abc import Mapping
from typing import Any

from layover.client.docker_logins import Credential
from layover.client.push_errors import HelperFailed
from layover.redaction import redact

# A user may have to unlock a keychain first.
TIMEOUT_SECONDS = 60.0

_NOT_FOUND = "credentials not found in native keychain"

# The user name that marks a secret as an identity token.
_MARK = "<token>"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_MAX_ANSWER_BYTES = 256 << 10
_MAX_REASON = 200


async def ask_helper(
    name: str,
    server: str,
    registry: str,
    env: Mapping[str, str],
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Credential | None:
    """What the helper `docker-credential-NAME` keeps under `server`, None when that is nothing.

    Raises HelperFailed, in `registry`'s name, when it is not installed, fails, takes longer than
    `timeout_seconds` or says something else than a login. It is not left running.
    """
    program = f"docker-credential-{name}"
    # As a path it would be another program than the one that its name says.
    if _NAME.fullmatch(name) is None:
        raise HelperFailed(repr(name[:100]), registry, "that is not a helper's name")
    path = shutil.which(program, path=env.get("PATH"))
    if path is None:
        raise HelperFailed(program, registry, "it is not on the PATH")
    try:
        async with asyncio.timeout(timeout_seconds):
            status, answer = await _run(path, server, env)
    except TimeoutError:
        reason = f"it took longer than {timeout_seconds:g} s"
        raise HelperFailed(program, registry, reason) from None
    except OSError as error:
        reason = f"it cannot be run ({error.strerror or type(error).__name__})"
        raise HelperFailed(program, registry, reason) from None
    if answer is None:
        raise HelperFailed(program, registry, f"it said more than {_MAX_ANSWER_BYTES} bytes")
    if status != 0:
        told = answer.decode(errors="replace").strip()
        if told == _NOT_FOUND:
            return None
        raise HelperFailed(program, registry, f"it ended with status {status}{_quoted(told)}")
    return _credential(program, registry, answer)


async def _run(path: str, server: str, env: Mapping[str, str]) -> tuple[int, bytes | None]:
    """Its status and output; no output when there was too much of it."""
    loop = asyncio.get_running_loop()
    transport, conversation = await loop.subprocess_exec(
        lambda: _Conversation(server.encode()), path, "get", stderr=None, env=dict(env)
    )
    try:
        return await conversation.ended
    finally:
        # Ends it where it has not ended, without a wait for what it may have started in turn.
        transport.close()


class _Conversation(asyncio.SubprocessProtocol):
    """Says one thing to a program and hears it to its end."""

    def __init__(self, said: bytes) -> None:
        self._said, self._heard = said, bytearray()
        self.ended: asyncio.Future[tuple[int, bytes | None]] = (
            asyncio.get_running_loop().create_future()
        )
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport
        stdin = transport.get_pipe_transport(0)
        assert isinstance(stdin, asyncio.WriteTransport)
        stdin.write(self._said)
        stdin.close()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._heard += data
        if len(self._heard) > _MAX_ANSWER_BYTES and not self.ended.done():
            self.ended.set_result((0, None))

    def connection_lost(self, exc: Exception | None) -> None:
        # It has ended, and all of its output was heard.
        if not self.ended.done():
            assert self._transport is not None
            status = self._transport.get_returncode()
            self.ended.set_result((-1 if status is None else status, bytes(self._heard)))


def _credential(program: str, registry: str, answer: bytes) -> Credential | None:
    try:
        said: Any = json.loads(answer)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise HelperFailed(program, registry, "what it said is not a JSON object")
    fields = {str(name).lower(): value for name, value in said.items()}
    username, secret = fields.get("username", ""), fields.get("secret", "")
    if not isinstance(username, str) or not isinstance(secret, str):
        raise HelperFailed(program, registry, "its Username and Secret are no texts")
    if not secret:
        return None
    if username == _MARK:
        return Credential(program, identity_token=secret)
    return Credential(program, username, secret)


def _quoted(told: str) -> str:
    """What it says for a reason, unless that could be the login itself."""
    line = " ".join(redact(told).split())
    if not line or line[0] in "{[" or not line.isprintable() or "secret" in line.lower():
        return ""
    return f": {line[:_MAX_REASON]}"
