"""A CI job that has no secret builds and pulls by its own ID token, as a policy lets it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.images import busybox_context
from tests.e2e.processes import environment, run
from tests.e2e.server import LAYOVER, LayoverServer
from tests.oidc_provider import Issuer, OidcProvider


@pytest.fixture(scope="module")
def server(short_tmp: Path, provider: OidcProvider) -> Iterator[LayoverServer]:
    """A server that may ask the tests' provider for its keys, without TLS."""
    settings = {"OUTBOUND_INSECURE_HOSTS": provider.host_port}
    server = LayoverServer(short_tmp / "ci", settings=settings)
    try:
        server.start()
        assert server.project_id
        yield server
    finally:
        server.remove()


@pytest.fixture
def gitlab(provider: OidcProvider) -> Issuer:
    return provider.issuer("gitlab")


def add(server: LayoverServer, *arguments: str) -> dict[str, Any]:
    done = server.cli("projects", "trust", "add", *arguments, "--output", "json")
    assert "warning" not in done.stderr, done.stderr
    (policy,) = json.loads(done.stdout)
    return dict(policy)


def job(server: LayoverServer, gitlab: Issuer, home: Path, **claims: Any) -> dict[str, str]:
    """The environment of a job on main in acme/app: without token, login or project's secret."""
    home.mkdir(exist_ok=True)
    token = gitlab.sign(
        {
            "aud": server.url,
            "sub": "project_path:acme/app:ref_type:branch:ref:main",
            "project_path": "acme/app",
            "ref": "main",
            "ref_type": "branch",
            **claims,
        }
    )
    return environment(
        home,
        GITLAB_CI="true",
        LAYOVER_URL=server.url,
        LAYOVER_PROJECT_ID=server.project_id,
        LAYOVER_ID_TOKEN=token,
    )


def test_a_job_builds_by_its_own_token_for_as_long_as_it_is_trusted(
    server: LayoverServer, gitlab: Issuer, tmp_path: Path
) -> None:
    policy = add(server, "gitlab", "project=acme/app", "ref=main", "--issuer", gitlab.url)
    assert policy["claims"] == {"project_path": "acme/app", "ref": "main"}
    assert (policy["grants"], policy["createdBy"]) == ("project", "admin")
    listed = server.cli("projects", "trust", "list", "--output", "json").stdout
    assert json.loads(listed) == [policy]

    context = busybox_context(tmp_path / "context", "built by a job")
    metadata = tmp_path / "build.json"
    env = job(server, gitlab, tmp_path / "home")
    run([LAYOVER, "build", "--save", f"--metadata-file={metadata}", context], env=env)
    build_id = json.loads(metadata.read_text())["depot.build"]["buildID"]
    builds = json.loads(run([LAYOVER, "list", "builds", "-o", "json"], env=env).stdout)
    assert [(build["id"], build["status"]) for build in builds] == [(build_id, "finished")]
    assert env["LAYOVER_ID_TOKEN"] not in server.process.log()

    # What a job may not: say who is trusted.
    refused = run(
        [LAYOVER, "projects", "trust", "add", "gitlab", "project=evil/app"], env=env, check=False
    )
    assert (refused.returncode, "manage trust" in refused.stderr) == (1, True)

    server.cli("projects", "trust", "rm", policy["id"])
    refused = run([LAYOVER, "list", "builds"], env=env, check=False)
    assert refused.returncode == 1
    assert "does not trust this job's ID token (GitLab CI)" in refused.stderr
    again = server.cli("projects", "trust", "rm", policy["id"], check=False)
    assert (again.returncode, "unknown trust policy" in again.stderr) == (1, True)


def test_a_job_that_is_not_meant_gets_nothing(
    server: LayoverServer, gitlab: Issuer, tmp_path: Path
) -> None:
    add(server, "gitlab", "project=acme/app", "ref=main", "--issuer", gitlab.url)
    home = tmp_path / "home"
    good = job(server, gitlab, home)
    run([LAYOVER, "list", "builds"], env=good)
    forged = gitlab.sign(
        {"aud": server.url, "project_path": "acme/app", "ref": "main"}, key="foreign"
    )
    for env in (
        job(server, gitlab, home, project_path="evil/app"),
        {**good, "LAYOVER_ID_TOKEN": forged},
        {**good, "LAYOVER_PROJECT_ID": "aaaaaaaaaa"},
    ):
        refused = run([LAYOVER, "list", "builds"], env=env, check=False)
        assert (refused.returncode, "does not trust this job" in refused.stderr) == (1, True)
    del good["LAYOVER_PROJECT_ID"]
    nameless = run([LAYOVER, "list", "builds"], env=good, check=False)
    assert (nameless.returncode, "LAYOVER_PROJECT_ID" in nameless.stderr) == (2, True)
