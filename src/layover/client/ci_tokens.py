"""The ID token that a CI system gives the very job that we run in, found without being told.

| system | where its token is |
|---|---|
| any, among them GitLab CI | `LAYOVER_ID_TOKEN`, which the job's definition fills |
| GitHub Actions | asked for at `ACTIONS_ID_TOKEN_REQUEST_URL` (`permissions: id-token: write`) |
| CircleCI | `circleci run oidc get`, else `CIRCLE_OIDC_TOKEN_V2` |
| Buildkite | `buildkite-agent oidc request-token` |

A token is asked for with the server's address as audience, so that it is good nowhere else.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pyqwest import SyncClient, SyncHTTPTransport

from layover.client.address import InvalidToken, parse_token
from layover.client.api import trusted_certificates
from layover.client.ci_systems import TOKEN_VARIABLE
from layover.client.errors import ClientError

_TIMEOUT_SECONDS = 30.0
# A token has 1 to 4 KiB.
_MAX_ANSWER_BYTES = 64 * 1024

# GitHub's service is now and then away for a moment.
_ATTEMPTS = 3
_PAUSE_SECONDS = 1.0


class JobTokenUnavailable(ClientError):
    """We run in a CI system that did not give us the job's ID token."""

    def __init__(self, system: str, reason: str) -> None:
        super().__init__(
            f"{system} gave no ID token for this job: {reason}. Set LAYOVER_TOKEN to do without"
        )
        self.system = system


@dataclass(frozen=True, slots=True)
class JobToken:
    """A job's ID token, and the CI system that it is from."""

    system: str
    token: str = field(repr=False)


def find_job_token(audience: str, env: Mapping[str, str]) -> JobToken | None:
    """The ID token of the job that we run in, None when we run in none that has one.

    Raises JobTokenUnavailable, InvalidToken.
    """
    if given := env.get(TOKEN_VARIABLE):
        system = "GitLab CI" if env.get("GITLAB_CI") else "The CI system"
        return _job_token(system, given)
    if env.get("ACTIONS_ID_TOKEN_REQUEST_URL") and env.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN"):
        return _from_github(audience, env)
    if env.get("CIRCLECI"):
        return _from_circleci(audience, env)
    if env.get("BUILDKITE"):
        return _from_buildkite(audience, env)
    return None


def _job_token(system: str, text: str) -> JobToken:
    try:
        token = parse_token(text)
    except InvalidToken:
        raise JobTokenUnavailable(system, "what it gave is no token") from None
    if token.count(".") != 2:
        raise JobTokenUnavailable(system, "what it gave is no token")
    return JobToken(system, token)


def _from_github(audience: str, env: Mapping[str, str]) -> JobToken:
    system = "GitHub Actions"
    url = _with_audience(env["ACTIONS_ID_TOKEN_REQUEST_URL"], audience)
    if url is None:
        raise JobTokenUnavailable(system, "ACTIONS_ID_TOKEN_REQUEST_URL is not https://")
    certificates = trusted_certificates(env)
    transport = SyncHTTPTransport(
        tls_ca_cert=certificates,
        tls_include_system_certs=certificates is None,
        connect_timeout=10,
        timeout=_TIMEOUT_SECONDS,
        # The request's own token goes where the runner said and nowhere else.
        follow_redirects=False,
        use_system_dns=True,
    )
    headers = {
        "authorization": f"Bearer {env['ACTIONS_ID_TOKEN_REQUEST_TOKEN'].strip()}",
        "accept": "application/json",
    }
    try:
        for attempt in range(1, _ATTEMPTS + 1):
            status, content = _ask(transport, url, headers)
            if (status is not None and status < 500) or attempt == _ATTEMPTS:
                break
            time.sleep(_PAUSE_SECONDS * attempt)
    finally:
        transport.close()
    if status != 200:
        reason = "it cannot be reached" if status is None else f"its answer was {status}"
        raise JobTokenUnavailable(system, reason)
    try:
        value = json.loads(content)["value"]
    except (ValueError, KeyError, TypeError, RecursionError):
        value = None
    if not isinstance(value, str):
        raise JobTokenUnavailable(system, "its answer holds none")
    return _job_token(system, value)


def _with_audience(url: str, audience: str) -> str | None:
    """The URL with the audience in its query, None unless it is HTTPS."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return None
    if parts.scheme != "https" or not parts.hostname:
        return None
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name != "audience"
    ]
    return urlunsplit(parts._replace(query=urlencode([*query, ("audience", audience)])))


def _ask(
    transport: SyncHTTPTransport, url: str, headers: Mapping[str, str]
) -> tuple[int | None, bytes]:
    """The answer's status and content; no status when there was no answer."""
    try:
        with SyncClient(transport).stream("GET", url, headers=headers) as answer:
            content = b""
            for part in answer.content:
                content += part
                if len(content) > _MAX_ANSWER_BYTES:
                    return 200, b""
            return answer.status, content
    except (OSError, RuntimeError, ValueError):
        # Its text may quote the request, which holds a secret.
        return None, b""


def _from_circleci(audience: str, env: Mapping[str, str]) -> JobToken | None:
    system, ready = "CircleCI", env.get("CIRCLE_OIDC_TOKEN_V2")
    claims = json.dumps({"aud": audience})
    command = ["circleci", "run", "oidc", "get", "--claims", claims]
    if (program := _find(command[0], env)) is not None:
        try:
            return _run(system, [program, *command[1:]], env)
        except JobTokenUnavailable:
            # The other one is for the organization, which a policy takes as well by default.
            if not ready:
                raise
    return _job_token(system, ready) if ready else None


def _from_buildkite(audience: str, env: Mapping[str, str]) -> JobToken | None:
    command = ["buildkite-agent", "oidc", "request-token", "--audience", audience]
    program = _find(command[0], env)
    return None if program is None else _run("Buildkite", [program, *command[1:]], env)


def _find(program: str, env: Mapping[str, str]) -> str | None:
    return shutil.which(program, path=env.get("PATH", ""))


def _run(system: str, command: Sequence[str], env: Mapping[str, str]) -> JobToken:
    """The token that a program of the CI system prints."""
    named = " ".join(["`" + command[0].rpartition("/")[2], *command[1:3]]) + "`"
    try:
        done = subprocess.run(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise JobTokenUnavailable(
            system, f"{named} took longer than {_TIMEOUT_SECONDS:.0f} s"
        ) from None
    except OSError as error:
        raise JobTokenUnavailable(
            system, f"{named} cannot be run: {error.strerror or error}"
        ) from None
    if done.returncode != 0:
        # What it said may hold what it was given: its own log shows it to whoever may see that.
        raise JobTokenUnavailable(
            system, f"{named} ended with {done.returncode}; run it to see why"
        )
    return _job_token(system, done.stdout.decode(errors="replace"))
