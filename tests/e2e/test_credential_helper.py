"""Docker, podman and skopeo pull and push with the credential helper, and no login of their own."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.engines import DockerEngine, Podman, Skopeo
from tests.e2e.images import busybox_context
from tests.e2e.processes import find, run
from tests.e2e.server import LAYOVER, LayoverServer, SavedBuild


@pytest.fixture(scope="module")
def saved(tls_server: LayoverServer, short_tmp: Path) -> SavedBuild:
    return tls_server.save(busybox_context(short_tmp / "helper-context", "by the helper"))


def assert_unauthorized(done: "subprocess.CompletedProcess[str]") -> None:
    assert done.returncode != 0
    assert "a valid token is needed" in done.stderr


class DockerClient:
    """`docker` and `layover` of somebody with a home of their own."""

    def __init__(self, engine: DockerEngine, server: LayoverServer, home: Path) -> None:
        self.config = home / ".docker" / "config.json"
        self.login_file = home / ".config" / "layover" / "config.toml"
        kept = {k: v for k, v in engine.env.items() if k != "DOCKER_CONFIG"}
        assert server.certificates is not None
        trusted = str(server.certificates.ca)
        self.env = {**kept, "HOME": str(home), "SSL_CERT_FILE": trusted}

    def docker(
        self, *arguments: str, check: bool = True, stdin: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return run([find("docker"), *arguments], env=self.env, check=check, stdin=stdin)

    def layover(
        self, *arguments: str, stdin: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return run([LAYOVER, *arguments], env=self.env, stdin=stdin)


def test_docker_pulls_and_pushes_without_a_login_until_the_helper_is_uninstalled(
    tls_server: LayoverServer, docker: DockerEngine, saved: SavedBuild, tmp_path: Path
) -> None:
    client = DockerClient(docker, tls_server, tmp_path)
    client.layover("login", "--url", tls_server.url, "--token-stdin", stdin=tls_server.token)
    assert_unauthorized(client.docker("pull", saved.reference, check=False))
    client.layover("configure-docker")
    assert json.loads(client.config.read_text()) == {"credHelpers": {tls_server.host: "layover"}}
    client.docker("pull", saved.reference)
    pushed = f"{tls_server.host}/{tls_server.project_id}/from-docker:latest"
    client.docker("tag", saved.reference, pushed)
    client.docker("push", pushed)
    client.docker("image", "rm", saved.reference, pushed)
    client.docker("pull", pushed)
    assert tls_server.token not in client.config.read_text()
    client.layover("configure-docker", "--uninstall")
    assert not client.config.exists()
    assert_unauthorized(client.docker("pull", saved.reference, check=False))


def test_what_docker_logs_in_with_is_kept_by_layover_and_forgotten_with_it(
    tls_server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    client = DockerClient(docker, tls_server, tmp_path)
    client.layover("configure-docker", "--registry", tls_server.host)
    login = ("login", tls_server.host, "-u", "x-token", "--password-stdin")
    client.docker(*login, stdin=tls_server.token)
    assert tls_server.token not in client.config.read_text()
    assert tls_server.token in client.login_file.read_text()
    assert client.login_file.stat().st_mode & 0o777 == 0o600
    client.docker("logout", tls_server.host)
    assert tls_server.token not in client.login_file.read_text()


def test_a_token_for_one_server_is_not_sent_to_another(
    tls_server: LayoverServer, docker: DockerEngine, saved: SavedBuild, tmp_path: Path
) -> None:
    client = DockerClient(docker, tls_server, tmp_path)
    client.layover("configure-docker", "--registry", tls_server.host)
    client.env |= {"LAYOVER_URL": "https://layover.example.com", "LAYOVER_TOKEN": tls_server.token}
    assert_unauthorized(client.docker("pull", saved.reference, check=False))
    client.env["LAYOVER_URL"] = tls_server.url
    client.docker("pull", saved.reference)


def test_podman_and_skopeo_ask_the_helper_that_their_auth_file_names(
    tls_server: LayoverServer,
    podman: Podman,
    skopeo: Skopeo,
    saved: SavedBuild,
) -> None:
    asked = json.dumps({"credHelpers": {tls_server.host: "layover"}})
    variables = {"LAYOVER_URL": tls_server.url, "LAYOVER_TOKEN": tls_server.token}
    podman_command = podman.command("pull", "--tls-verify=false", saved.reference)
    skopeo_command = skopeo.command(
        "inspect", "--tls-verify=false", "--no-tags", f"docker://{saved.reference}"
    )
    for command, env, folder in (
        (podman_command, podman.env, podman.folder),
        (skopeo_command, skopeo.env, skopeo.folder),
    ):
        (folder / "auth.json").write_text(asked)
        assert_unauthorized(run(command, env=env, check=False))
        run(command, env={**env, **variables})
        assert (folder / "auth.json").read_text() == asked
