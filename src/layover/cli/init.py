"""`layover init`: choose the project of a folder."""

import json
import sys
from pathlib import Path

import click

from layover.cli.errors import Interrupted, WrongUsage, say
from layover.cli.options import find_server, run, server_options
from layover.client.address import Server
from layover.client.api import Client
from layover.client.choices import PROJECT_FILE, NoProject
from layover.client.login_file import replace_file


@click.command("init", epilog="Example: layover init --project PROJECT_ID")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option("--project", metavar="ID", help="The project; chosen from a list when not given.")
@click.option("--force", is_flag=True, help=f"Replace a {PROJECT_FILE} that is there.")
@server_options
def command(
    folder: Path, project: str | None, force: bool, url: str | None, token: str | None
) -> None:
    """Write the project's ID to depot.json, for every build in FOLDER (default: here)."""
    path = folder / PROJECT_FILE
    if path.exists() and not force:
        raise WrongUsage(f"{path} is there already: --force replaces it")
    if not folder.is_dir():
        raise WrongUsage(f"there is no folder {folder}")
    projects = run(_projects(find_server(url, token, project)))
    chosen = project or _choose(projects)
    if chosen not in dict(projects):
        raise NoProject(projects)
    replace_file(path.absolute(), (json.dumps({"id": chosen}) + "\n").encode(), mode=0o644)
    say(f"Wrote {path} for project {chosen} ({dict(projects)[chosen]}).")


def _choose(projects: list[tuple[str, str]]) -> str:
    if len(projects) == 1:
        return projects[0][0]
    if not projects or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NoProject(projects)
    import questionary  # a tenth of a second that only this question costs

    answer = questionary.select(
        "Project",
        choices=[
            questionary.Choice(f"{project_id}  {name}", value=project_id)
            for project_id, name in projects
        ],
        use_search_filter=True,
        use_jk_keys=False,
    ).unsafe_ask()
    if answer is None:
        raise Interrupted
    return str(answer)


async def _projects(server: Server) -> list[tuple[str, str]]:
    async with Client(server) as client:
        return [(project.id, project.name) for project in await client.list_projects()]
