"""What a login is traded for begins an upload at real registries, and opens nothing else there."""

import asyncio
import base64
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from layover.client.push_errors import LoginMissing, LoginRefused
from layover.client.registry_authorization import RegistryAuthorization, Scheme, authorize
from layover.oci.references import Destination, Place
from tests.destinations import Distribution2, Distribution3, OtherRegistry, TokenServer, started
from tests.e2e.engines import Skopeo
from tests.e2e.processes import environment, run
from tests.e2e.server import LAYOVER, LayoverServer
from tests.token_server import CREDENTIALS, REFRESH_TOKEN

Env = dict[str, str]


@pytest.fixture(scope="module")
def token_server(short_tmp: Path) -> Iterator[TokenServer]:
    server = TokenServer(short_tmp / "token-server")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def with_tokens(short_tmp: Path, token_server: TokenServer) -> Iterator[OtherRegistry]:
    """distribution 3 that sends its clients to a token server."""
    with started(Distribution3(short_tmp / "with-tokens", tokens=token_server)) as registry:
        yield registry


@pytest.fixture(scope="module")
def with_basic(short_tmp: Path) -> Iterator[OtherRegistry]:
    """distribution 2.8 that knows Basic alone."""
    with started(Distribution2(short_tmp / "with-basic", basic=True)) as registry:
        yield registry


@pytest.fixture
def env(tmp_path: Path) -> Env:
    """Of somebody who has not logged in to anything yet."""
    return environment(tmp_path)


def place(registry: OtherRegistry | LayoverServer, repository: str) -> Place:
    return Destination.parse(f"{registry.host}/{repository}").place


def granted(env: Env, *places: Place) -> dict[Place, RegistryAuthorization]:
    return asyncio.run(authorize(places, env))


def log_in(registry: OtherRegistry, env: Env, password: str = CREDENTIALS.password) -> None:
    """As Docker does it without a credential store: into its config.json."""
    folder = Path(env["HOME"]) / ".docker"
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{CREDENTIALS.user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))


def header(authorization: RegistryAuthorization) -> dict[str, str]:
    match authorization.scheme:
        case Scheme.BEARER:
            return {"authorization": f"Bearer {authorization.token}"}
        case Scheme.BASIC:
            pair = f"{authorization.username}:{authorization.password}"
            return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        case Scheme.NONE:
            return {}


def begin_upload(url: str, repository: str, headers: Mapping[str, str], ca: str = "") -> int:
    """The status that a registry answers with."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = (
        http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=30, context=ssl.create_default_context(cafile=ca)
        )
        if ca
        else http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    )
    try:
        connection.request("POST", f"/v2/{repository}/blobs/uploads/", headers=dict(headers))
        return connection.getresponse().status
    finally:
        connection.close()


def test_distribution_3_takes_the_token_for_the_repository_that_it_is_for(
    with_tokens: OtherRegistry, token_server: TokenServer, env: Env
) -> None:
    log_in(with_tokens, env)
    token_server.asked.clear()
    there, beside = place(with_tokens, "acme/app"), place(with_tokens, "acme/other")
    before = datetime.now(UTC)
    found = granted(env, there, beside)
    for one in (there, beside):
        assert found[one].scheme is Scheme.BEARER
        expires_at = found[one].expires_at
        assert expires_at is not None
        assert abs(expires_at - before - token_server.life) < timedelta(seconds=30)
        repository = str(one.repository)
        assert begin_upload(with_tokens.url, repository, header(found[one])) == 202
    for other in ("acme/other", "acme/third"):
        assert begin_upload(with_tokens.url, other, header(found[there])) == 401
    assert sorted(one.scopes for one in token_server.asked) == [
        ("repository:acme/app:pull,push", "repository:acme/other:pull"),
        ("repository:acme/other:pull,push", "repository:acme/app:pull"),
    ]
    assert {(one.method, one.user) for one in token_server.asked} == {("GET", CREDENTIALS.user)}


def test_distribution_3_takes_what_an_identity_token_was_traded_for(
    with_tokens: OtherRegistry, token_server: TokenServer, env: Env, tmp_path: Path
) -> None:
    (tmp_path / ".docker").mkdir()
    login = {"auth": base64.b64encode(b"<token>:").decode(), "identitytoken": REFRESH_TOKEN}
    config = {"auths": {with_tokens.host: login}}
    (tmp_path / ".docker" / "config.json").write_text(json.dumps(config))
    token_server.asked.clear()
    there = place(with_tokens, "acme/app")
    found = granted(env, there)[there]
    assert begin_upload(with_tokens.url, "acme/app", header(found)) == 202
    assert [one.method for one in token_server.asked] == ["POST"]


def test_distribution_2_takes_the_login_itself(with_basic: OtherRegistry, env: Env) -> None:
    log_in(with_basic, env)
    there = place(with_basic, "acme/app")
    found = granted(env, there)[there]
    assert (found.scheme, found.username) == (Scheme.BASIC, CREDENTIALS.user)
    assert begin_upload(with_basic.url, "acme/app", header(found)) == 202


def test_a_login_of_skopeo_is_found(with_basic: OtherRegistry, skopeo: Skopeo, env: Env) -> None:
    file = skopeo.folder / "of-push.json"
    login = ("login", "--tls-verify=false", "--authfile", str(file), "-u", CREDENTIALS.user)
    command = skopeo.command(*login, "--password-stdin", with_basic.host)
    run(command, env=skopeo.env, stdin=CREDENTIALS.password)
    there = place(with_basic, "acme/app")
    found = granted({**env, "REGISTRY_AUTH_FILE": str(file)}, there)[there]
    assert begin_upload(with_basic.url, "acme/app", header(found)) == 202


def test_without_a_login_or_with_another_password_nothing_is_handed_out(
    with_tokens: OtherRegistry, with_basic: OtherRegistry, env: Env
) -> None:
    for registry in (with_tokens, with_basic):
        there = place(registry, "acme/app")
        with pytest.raises(LoginMissing, match=f"docker login {registry.host}"):
            granted(env, there)
        variables = {
            "LAYOVER_PUSH_REGISTRY_USERNAME": CREDENTIALS.user,
            "LAYOVER_PUSH_REGISTRY_PASSWORD": CREDENTIALS.password,
        }
        found = granted({**env, **variables}, there)[there]
        assert begin_upload(registry.url, "acme/app", header(found)) == 202
        variables["LAYOVER_PUSH_REGISTRY_PASSWORD"] = "an0ther"
        with pytest.raises(LoginRefused, match="LAYOVER_PUSH_REGISTRY_USERNAME") as failure:
            granted({**env, **variables}, there)
        assert "an0ther" not in str(failure.value)


def test_another_layover_takes_what_its_own_helper_has_the_login_for(
    tls_server: LayoverServer, tmp_path: Path
) -> None:
    env = tls_server.cli_env(tmp_path)
    env = {**env, "PATH": f"{Path(LAYOVER).parent}:{env['PATH']}"}
    run([LAYOVER, "configure-docker"], env=env)
    assert tls_server.certificates is not None
    ca = str(tls_server.certificates.ca)
    repository = f"{tls_server.project_id}/pushed-on"
    there = place(tls_server, repository)
    found = granted(env, there)[there]
    assert found.scheme is Scheme.BEARER
    assert tls_server.token not in found.token
    assert begin_upload(tls_server.url, repository, header(found), ca) == 202
    other = f"{tls_server.project_id}/another"
    assert begin_upload(tls_server.url, other, header(found), ca) in (401, 403)
