"""Which server, token and project a command means, and who said so.

Each comes from the first that has it: a flag, LAYOVER_*, the DEPOT_* of existing scripts,
the CI job's own ID token, the login's file; the project also from depot.json, searched upward from
the build's context.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from layover.client import login_file
from layover.client.address import Server, parse_token, parse_url
from layover.client.ci_systems import how_to_get_one
from layover.client.errors import ClientError

PROJECT_FILE = "depot.json"

_URL_VARIABLES = ("LAYOVER_URL", "DEPOT_API_URL")
_TOKEN_VARIABLES = ("LAYOVER_TOKEN", "DEPOT_TOKEN")
_PROJECT_VARIABLES = ("LAYOVER_PROJECT_ID", "DEPOT_PROJECT_ID")


# Gives the token of the CI job that we run in, or nothing; it is told the server's address, and
# whether there is a login to use otherwise.
JobToken = Callable[[str, bool], str]


def no_job_token(url: str, has_login: bool) -> str:
    """Of what runs in no CI job."""
    return ""


class NoServer(ClientError):
    """Nobody said which server to use."""

    def __init__(self) -> None:
        super().__init__(
            "no server given: use --url, set LAYOVER_URL, or log in with"
            " `layover login --url https://layover.example.com`"
        )


class NoToken(ClientError):
    """There is no token for the server."""

    def __init__(self, url: str, hint: str = "") -> None:
        super().__init__(
            f"no token for {url}: use --token, set LAYOVER_TOKEN, or log in with"
            f" `layover login --url {url}`" + (f". {hint}" if hint else "")
        )


class NoProject(ClientError):
    """Nobody said which project is meant, and the token sees none, or several."""

    def __init__(self, projects: list[tuple[str, str]]) -> None:
        message = (
            "no project given: use --project ID, set LAYOVER_PROJECT_ID, or write a"
            f" {PROJECT_FILE} with `layover init`"
        )
        if projects:
            listed = "\n".join(f"  {project_id}  {name}" for project_id, name in projects)
            message += f"\nThis token sees these projects:\n{listed}"
        else:
            message += "\nThis token sees no project"
        super().__init__(message)


class ProjectFileInvalid(ClientError):
    """A depot.json is not of the form {"id": "..."}."""

    def __init__(self, path: Path) -> None:
        super().__init__(f'{path} has to hold {{"id": "PROJECT_ID"}}: `layover init` writes one')
        self.path = path


def first_of(env: Mapping[str, str], names: tuple[str, ...]) -> str:
    """The first of these variables that is set to something."""
    return next((env[name] for name in names if env.get(name)), "")


def find_url(flag: str | None, env: Mapping[str, str]) -> str:
    """The server's address. Raises NoServer, InvalidAddress or LoginFileInvalid."""
    text = flag or first_of(env, _URL_VARIABLES)
    if not text:
        text = login_file.read(login_file.login_path(env)).url
    if not text:
        raise NoServer
    return parse_url(text)


def find_named_url(flag: str | None, env: Mapping[str, str]) -> str:
    """The flag or a variable, for who has no login. Raises NoServer or InvalidAddress."""
    text = flag or first_of(env, _URL_VARIABLES)
    if not text:
        raise NoServer
    return parse_url(text)


def find_server(
    url_flag: str | None,
    token_flag: str | None,
    env: Mapping[str, str],
    job_token: JobToken = no_job_token,
) -> Server:
    """The server and its token. Raises as `find_url` does, NoToken and InvalidToken."""
    url = find_url(url_flag, env)
    token = parse_token(token_flag or first_of(env, _TOKEN_VARIABLES))
    if not token:
        kept = parse_token(login_file.read(login_file.login_path(env)).tokens.get(url, ""))
        token = job_token(url, bool(kept)) or kept
    if not token:
        raise NoToken(url, how_to_get_one(env))
    return Server(url, token)


def find_project(flag: str | None, env: Mapping[str, str], folder: Path) -> str:
    """The project's ID, or an empty text when nobody named one. Raises ProjectFileInvalid."""
    named = flag or first_of(env, _PROJECT_VARIABLES)
    if named:
        return named.strip()
    path = find_project_file(folder)
    return read_project_file(path) if path is not None else ""


def find_project_file(folder: Path) -> Path | None:
    """The nearest depot.json, in `folder` or above it."""
    folder = folder.absolute()
    for place in (folder, *folder.parents):
        path = place / PROJECT_FILE
        if path.is_file():
            return path
    return None


def read_project_file(path: Path) -> str:
    """The project's ID in a depot.json. Raises ProjectFileInvalid."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ProjectFileInvalid(path) from None
    project_id = content.get("id") if isinstance(content, dict) else None
    if not isinstance(project_id, str) or not project_id:
        raise ProjectFileInvalid(path)
    return project_id


def only_project(projects: list[tuple[str, str]]) -> str:
    """The one project that a token sees, given as IDs and names. Raises NoProject."""
    if len(projects) != 1:
        raise NoProject(projects)
    return projects[0][0]
