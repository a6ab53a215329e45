"""The token of a CI job: its own ID token, traded at the server for one of a project."""

from collections.abc import Mapping
from pathlib import Path

from layover.cli.errors import CliError, WrongUsage, say
from layover.client import choices
from layover.client.address import Server
from layover.client.api import Client
from layover.client.ci_tokens import JobToken, find_job_token
from layover.client.errors import AccessRefused, NotFound, TokenRefused


class JobNotTrusted(CliError):
    """The server takes no ID token of this job."""

    def __init__(self, job: JobToken, url: str, project_id: str) -> None:
        super().__init__(
            f"the server at {url} does not trust this job's ID token ({job.system}) for project"
            f" {project_id}. `layover projects trust list` shows whose it trusts, and"
            " `layover projects trust add` adds a policy; the token is for this very address, and"
            " the server has to have it as its public_url"
        )
        self.system, self.project_id = job.system, project_id


async def token_of_job(
    url: str, project: str | None, folder: Path, env: Mapping[str, str], *, has_login: bool
) -> str:
    """A short-lived token for the server, by the ID token of the job that we run in.

    Empty outside of CI; with a login to fall back to also where the job has no project or the
    server does not trust it. Raises JobNotTrusted, WrongUsage, or what kept the job from its token.
    """
    job = find_job_token(url, env)
    if job is None:
        return ""
    project_id = choices.find_project(project, env, folder)
    if not project_id:
        if has_login:
            return ""
        # Anybody who owns a project can trust this job: it has to say whose it is.
        raise WrongUsage(
            f"this job's ID token ({job.system}) opens the project that is named: use --project"
            " ID, set LAYOVER_PROJECT_ID, or write a depot.json with `layover init`"
        )
    async with Client(Server(url, job.token)) as client:
        try:
            answer = await client.exchange_token(project_id)
        except (TokenRefused, NotFound, AccessRefused) as error:
            refusal = JobNotTrusted(job, url, project_id)
            if not has_login:
                raise refusal from error
            say(f"warning: {refusal}. The login is used instead.")
            return ""
    return answer.token
