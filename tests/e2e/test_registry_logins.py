"""docker, podman, skopeo and containerd log in with each kind of token, and as x-token alone."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.engines import Containerd, DockerEngine, Podman, Skopeo
from tests.e2e.images import busybox_context
from tests.e2e.server import LayoverServer, SavedBuild

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def saved(tls_server: LayoverServer, short_tmp: Path) -> SavedBuild:
    return tls_server.save(busybox_context(short_tmp / "login-context", "logged in"))


@pytest.fixture(scope="module")
def tokens(tls_server: LayoverServer, saved: SavedBuild) -> dict[str, str]:
    """A token of each kind."""
    project = {"projectId": tls_server.project_id}
    return {
        "user": tls_server.token,
        "organization": create(tls_server, kind="TOKEN_KIND_ORGANIZATION"),
        "project": create(tls_server, kind="TOKEN_KIND_PROJECT", **project),
        "pull of a project": create(tls_server, kind="TOKEN_KIND_PULL", **project),
        "pull of a build": create(tls_server, kind="TOKEN_KIND_PULL", buildId=saved.id),
    }


def create(server: LayoverServer, **request: str) -> str:
    answer = server.request(
        "POST",
        "/layover.v1.TokensService/CreateToken",
        body=json.dumps({**request, "description": "of a test"}).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": f"Bearer {server.token}",
        },
    )
    assert answer.status == 200, answer.body
    return str(answer.json()["secret"])


@pytest.fixture(scope="module")
def login(
    docker: DockerEngine,
    containerd: Containerd,
    tls_server: LayoverServer,
    saved: SavedBuild,
    short_tmp: Path,
) -> Iterator[Callable[[str, str, str], Done]]:
    """Log a client in, as a user with a secret; containerd, which has no login, pulls."""
    podman, skopeo = Podman(short_tmp / "login-podman"), Skopeo(short_tmp / "login-skopeo")
    hosts = short_tmp / "login-hosts"
    write_hosts(hosts, tls_server)

    def login(client: str, user: str, secret: str) -> Done:
        flags = ("login", tls_server.host, "--username", user, "--password-stdin")
        match client:
            case "docker":
                return docker(*flags, check=False, stdin=secret)
            case "podman":
                return podman(*flags, "--tls-verify=false", check=False, stdin=secret)
            case "skopeo":
                return skopeo(*flags, "--tls-verify=false", check=False, stdin=secret)
            case _:
                return containerd.pull(
                    saved.reference, hosts=hosts, user=f"{user}:{secret}", check=False
                )

    yield login
    podman.remove()


def write_hosts(folder: Path, server: LayoverServer) -> None:
    """Say how containerd reaches the server."""
    assert server.certificates is not None
    place = folder / server.host
    place.mkdir(parents=True)
    (place / "hosts.toml").write_text(
        f'server = "{server.url}"\n[host."{server.url}"]\nca = "{server.certificates.ca}"\n'
    )


@pytest.mark.parametrize("client", ["docker", "podman", "skopeo", "containerd"])
def test_a_client_logs_in_with_each_kind_of_token_as_x_token_and_as_nobody_else(
    client: str, login: Callable[[str, str, str], Done], tokens: dict[str, str]
) -> None:
    for kind, token in tokens.items():
        done = login(client, "x-token", token)
        assert done.returncode == 0, (kind, done.stderr)
    for user, secret in (("somebody", tokens["user"]), ("x-token", "layover_wrong")):
        refused = login(client, user, secret)
        assert refused.returncode != 0
        # podman 4.3 and skopeo 1.9 have these words of their own for a login that is refused.
        words = ("unauthorized", "invalid username/password")
        assert any(word in refused.stderr.lower() for word in words), refused.stderr


def test_another_user_name_is_told_the_right_one(
    tls_server: LayoverServer,
    login: Callable[[str, str, str], Done],
    podman: Podman,
    skopeo: Skopeo,
    saved: SavedBuild,
) -> None:
    creds = ("--tls-verify=false", "--creds", f"somebody:{tls_server.token}")
    for refused in (
        login("docker", "somebody", tls_server.token),
        podman("pull", *creds, saved.reference, check=False),
        skopeo("inspect", *creds, f"docker://{saved.reference}", check=False),
    ):
        assert refused.returncode != 0
        assert "the user name has to be x-token" in refused.stderr
