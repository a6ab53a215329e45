"""`layover push` to registries that are busy, fail, are odd or hostile: what arrives, who is told
what, and what is asked of whom."""

import json
import random
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.destinations import Credentials, Distribution, Distribution3, TokenServer, started
from tests.e2e.engines import Skopeo
from tests.e2e.images import MIB, random_file
from tests.e2e.nginx import Disturbance
from tests.e2e.pairs import REPLICATED
from tests.e2e.server import LayoverServer, SavedBuild
from tests.throttle import Throttle
from tests.token_server import CREDENTIALS, TokenRequest

# `test_push` runs on the other pair.
pytestmark = pytest.mark.pairs(REPLICATED)

LARGE_BYTES = 5 * MIB
IMDS = "169.254.169.254"

Disturb = Callable[..., Disturbance]


@pytest.fixture(scope="module")
def build(server: LayoverServer, tmp_path_factory: pytest.TempPathFactory) -> SavedBuild:
    """A build with a layer that takes its time."""
    context = tmp_path_factory.mktemp("context")
    for name, size_bytes in (("small", 64 << 10), ("middle", MIB), ("large", LARGE_BYTES)):
        random_file(context / name, size_bytes)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY small /\nCOPY middle /\nCOPY large /\n")
    return server.save(context)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    """One that asks nobody. Each test pushes to a repository of its own."""
    with started(Distribution3(tmp_path_factory.mktemp("registry") / "registry")) as registry:
        yield registry


@pytest.fixture
def disturb(registry: Distribution, tmp_path: Path) -> Iterator[Disturb]:
    """Put nginx in front of the registry, which disturbs what passes."""
    put: list[Disturbance] = []

    def disturb(**directives: str) -> Disturbance:
        folder = tmp_path / f"nginx{len(put)}"
        put.append(Disturbance(folder, registry.port, **directives))
        return put[-1]

    yield disturb
    for one in put:
        one.stop()
        print(one.log())


@contextmanager
def listening() -> Iterator[tuple[int, Callable[[], bool]]]:
    """A port of this machine, and whether somebody connected to it."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        listener.setblocking(False)

        def is_called() -> bool:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                return False
            return True

        yield listener.getsockname()[1], is_called


def push(
    server: LayoverServer,
    build: SavedBuild,
    tmp_path: Path,
    *images: str,
    login: Credentials | None = None,
    check: bool = True,
) -> "subprocess.CompletedProcess[str]":
    """Run `layover push` with Docker's login for the images' registry."""
    folder = tmp_path / "docker"
    folder.mkdir(exist_ok=True)
    host = images[0].partition("/")[0]
    auths = {host: {"auth": login.basic}} if login else {}
    (folder / "config.json").write_text(json.dumps({"auths": auths}))
    tags = [word for image in images for word in ("-t", image)]
    done = server.cli(
        *("push", build.id, *tags, "--progress=plain"),
        env={"DOCKER_CONFIG": str(folder)},
        check=check,
    )
    print(done.stderr)
    assert "Traceback" not in done.stderr
    return done


def assert_is_there(
    server: LayoverServer, build: SavedBuild, skopeo: Skopeo, registry: Distribution, image: str
) -> None:
    """Asked past whatever disturbs, the registry has the build under the image's name."""
    name = f"{registry.host}/{image.partition('/')[2]}"
    creds = "--no-creds"
    if registry.credentials is not None:
        creds = f"--creds={registry.credentials.user}:{registry.credentials.password}"
    inspected = skopeo("inspect", creds, "--tls-verify=false", f"docker://{name}")
    digest = server.manifest(build.id).headers["Docker-Content-Digest"]
    assert json.loads(inspected.stdout)["Digest"] == digest


# -- Registries that are busy, fail or are odd ----------------------------------------------------


def test_a_registry_with_a_limit_is_asked_as_often_as_it_lets_one(
    server: LayoverServer,
    build: SavedBuild,
    skopeo: Skopeo,
    registry: Distribution,
    disturb: Disturb,
    tmp_path: Path,
) -> None:
    busy = disturb(
        above="limit_req_zone $server_port zone=all:1m rate=30r/s;"
        ' map $status $wait { 429 1; default ""; }',
        inside="limit_req zone=all burst=2 nodelay; limit_req_status 429;"
        " add_header Retry-After $wait always;",
    )
    image = f"{busy.host}/busy/app:v1"
    push(server, build, tmp_path, image)
    assert_is_there(server, build, skopeo, registry, image)
    assert any(one.status == 429 for one in busy.asked())


def test_a_gateway_that_fails_now_and_then_keeps_nothing_away(
    server: LayoverServer,
    build: SavedBuild,
    skopeo: Skopeo,
    registry: Distribution,
    disturb: Disturb,
    tmp_path: Path,
) -> None:
    # On every connection, so that each kind of request meets it, and some twice in a row.
    failing = disturb(beside='if ($connection_requests ~ "^(3|6|7|10)$") { return 502; }')
    image = f"{failing.host}/failing/app:v1"
    push(server, build, tmp_path, image)
    assert_is_there(server, build, skopeo, registry, image)
    assert {one.method for one in failing.asked() if one.status == 502} >= {"PUT"}


def test_a_proxy_that_takes_small_requests_alone_is_sent_small_ones(
    server: LayoverServer,
    build: SavedBuild,
    skopeo: Skopeo,
    registry: Distribution,
    disturb: Disturb,
    tmp_path: Path,
) -> None:
    # nginx's own default.
    narrow = disturb(inside="client_max_body_size 1m;")
    image = f"{narrow.host}/narrow/app:v1"
    push(server, build, tmp_path, image)
    assert_is_there(server, build, skopeo, registry, image)
    assert {one.status for one in narrow.asked("PATCH")} >= {202}
    assert any(one.status == 413 for one in narrow.asked("PUT"))


def test_an_upload_goes_where_a_relative_location_leads(
    server: LayoverServer,
    build: SavedBuild,
    skopeo: Skopeo,
    registry: Distribution,
    disturb: Disturb,
    tmp_path: Path,
) -> None:
    odd = disturb(inside="proxy_redirect ~^https?://[^/]+(/.*)$ $1; absolute_redirect off;")
    image = f"{odd.host}/relative/app:v1"
    push(server, build, tmp_path, image)
    assert_is_there(server, build, skopeo, registry, image)


def test_a_registry_that_mounts_nothing_is_sent_everything_twice(
    server: LayoverServer,
    build: SavedBuild,
    skopeo: Skopeo,
    registry: Distribution,
    disturb: Disturb,
    tmp_path: Path,
) -> None:
    odd = disturb(beside='if ($arg_mount) { set $args ""; }')
    images = [f"{odd.host}/unmounted/{name}:v1" for name in ("app", "other")]
    pushed = push(server, build, tmp_path, *images)
    for image in images:
        assert_is_there(server, build, skopeo, registry, image)
    assert "Mounted" not in pushed.stderr
    # What it opened instead is closed again.
    assert odd.asked("DELETE", "/v2/unmounted/.*")
    large = [one for one in odd.asked("PUT") if one.received_bytes > LARGE_BYTES]
    assert len(large) == 2


def test_an_upload_that_leads_to_another_host_shows_it_no_login(
    server: LayoverServer,
    build: SavedBuild,
    skopeo: Skopeo,
    registry: Distribution,
    disturb: Disturb,
    tmp_path: Path,
) -> None:
    users = tmp_path / "users"
    users.write_text(f"{CREDENTIALS.user}:{{PLAIN}}{CREDENTIALS.password}\n")
    store = disturb()
    front = disturb(
        inside=f"auth_basic tests; auth_basic_user_file {users};"
        f" proxy_redirect ~^https?://[^/]+(/.*)$ http://{store.host}$1;"
    )
    image = f"{front.host}/elsewhere/app:v1"
    push(server, build, tmp_path, image, login=CREDENTIALS)
    assert_is_there(server, build, skopeo, registry, image)
    assert any(one.is_authorized for one in front.asked("POST"))
    assert not front.asked("PUT", ".*/blobs/uploads/.*")
    sent = store.asked("PUT", ".*/blobs/uploads/.*")
    assert sent
    assert not any(one.is_authorized for one in store.asked())


@pytest.mark.parametrize("target", [f"https://{IMDS}/", "http://0.0.0.0:PORT/"])
def test_an_upload_that_leads_to_a_forbidden_address_ends_the_push(
    server: LayoverServer, build: SavedBuild, disturb: Disturb, tmp_path: Path, target: str
) -> None:
    with listening() as (port, is_called):
        target = target.replace("PORT", str(port))
        hostile = disturb(inside=f"proxy_redirect ~^ {target};")
        image = f"{hostile.host}/hostile/app:v1"
        failed = push(server, build, tmp_path, image, login=CREDENTIALS, check=False)
        assert failed.returncode == 1
        assert f"this server may not push to {hostile.host}" in failed.stderr
        assert "does not connect to" in failed.stderr
        assert not is_called()
    # Each of the six blobs was begun once, and the client had looked whom to log in to.
    assert len(hostile.asked("POST")) <= 7
    assert not hostile.asked("PUT")


# -- Lines that break ---------------------------------------------------------------------------


@pytest.mark.parametrize("takes_chunks", [True, False], ids=["chunks", "no chunks"])
def test_a_line_that_breaks_anywhere_costs_what_was_on_it(
    server: LayoverServer,
    build: SavedBuild,
    skopeo: Skopeo,
    registry: Distribution,
    disturb: Disturb,
    tmp_path: Path,
    takes_chunks: bool,
) -> None:
    odd = disturb(beside="" if takes_chunks else "if ($request_method = PATCH) { return 416; }")
    line = Throttle(odd.port)
    line.rate = 8 * MIB
    # Behind the smaller layers, which are on their way at once, and before the large one's end.
    line.breaks_at = [random.randrange(3 * MIB, LARGE_BYTES)]
    print(f"the line breaks at {line.breaks_at}")
    image = f"{line.host}/broken/{'chunks' if takes_chunks else 'whole'}:v1"
    try:
        push(server, build, tmp_path, image)
    finally:
        line.close()
    assert not line.breaks_at
    assert_is_there(server, build, skopeo, registry, image)
    patches = odd.asked("PATCH")
    assert patches
    assert {one.status for one in patches} == {202 if takes_chunks else 416}
    if takes_chunks:
        # It went on where it was.
        assert sum(one.received_bytes for one in patches) < LARGE_BYTES


# -- Tokens -------------------------------------------------------------------------------------


class Overstating(TokenServer):
    """Its tokens are over long before the time that it says."""

    def answer(self, request: TokenRequest, is_refreshable: bool) -> dict[str, Any]:
        return {**super().answer(request, is_refreshable), "expires_in": 300}


@pytest.mark.parametrize("kind", [TokenServer, Overstating], ids=["as it says", "earlier"])
def test_a_push_outlives_its_tokens_while_its_client_is_there(
    server: LayoverServer,
    build: SavedBuild,
    skopeo: Skopeo,
    tmp_path: Path,
    kind: type[TokenServer],
) -> None:
    tokens = kind(tmp_path / "tokens", life=timedelta(seconds=4))
    try:
        with started(Distribution3(tmp_path / "registry", tokens=tokens)) as registry:
            line = Throttle(registry.port)
            line.rate = MIB
            try:
                image = f"{line.host}/acme/app:v1"
                push(server, build, tmp_path, image, login=CREDENTIALS)
            finally:
                line.close()
            assert len(tokens.asked) > 1
            assert_is_there(server, build, skopeo, registry, image)
    finally:
        tokens.stop()


@pytest.mark.parametrize(
    "realm",
    ["http://0.0.0.0:PORT/token", f"https://{IMDS}/token"],
)
def test_no_login_goes_where_a_hostile_registry_wants_it(
    server: LayoverServer, build: SavedBuild, disturb: Disturb, tmp_path: Path, realm: str
) -> None:
    with listening() as (port, is_called):
        realm = realm.replace("PORT", str(port))
        challenge = f'Bearer realm="{realm}",service="tests"'
        hostile = disturb(inside=f"add_header WWW-Authenticate '{challenge}' always; return 401;")
        image = f"{hostile.host}/hostile/app:v1"
        failed = push(server, build, tmp_path, image, login=CREDENTIALS, check=False)
        assert failed.returncode == 1
        assert hostile.host in failed.stderr
        assert not is_called()
    assert not any(one.is_authorized for one in hostile.asked())


# -- Registries that say no ---------------------------------------------------------------------


def _said(code: str, message: str) -> str:
    return json.dumps({"errors": [{"code": code, "message": message}]})


def _quoted(text: str) -> str:
    return text.replace("'", "\\'")


_UPLOADS = "~ /blobs/uploads/"
_TAG = "~ /manifests/v1$"


@pytest.mark.parametrize(
    ("where", "method", "status", "said", "advice"),
    [
        pytest.param(
            *(_UPLOADS, "POST", 403, _said("DENIED", "requested access is denied")),
            "docker login",
            id="denied",
        ),
        pytest.param(
            *(_UPLOADS, "POST", 404, _said("NAME_UNKNOWN", "no repository 'refused/app'")),
            "create that there first",
            id="no such repository",
        ),
        pytest.param(
            *(_TAG, "PUT", 409, _said("TAG_INVALID", "the tag v1 is immutable")),
            "push under another one",
            id="immutable tag",
        ),
    ],
)
def test_a_refusal_is_told_in_the_registrys_words_and_asked_for_once(
    server: LayoverServer,
    build: SavedBuild,
    disturb: Disturb,
    tmp_path: Path,
    where: str,
    method: str,
    status: int,
    said: str,
    advice: str,
) -> None:
    refusing = disturb(
        beside=f"""
            location {where} {{
                if ($request_method = {method}) {{ return {status} '{_quoted(said)}'; }}
                proxy_pass $registry;
            }}
        """
    )
    failed = push(server, build, tmp_path, f"{refusing.host}/refused/app:v1", check=False)
    assert failed.returncode == 1
    message = json.loads(said)["errors"][0]["message"]
    assert message in failed.stderr
    assert f"({status})" in failed.stderr
    assert advice in failed.stderr
    refused = [one for one in refusing.asked(method) if one.status == status]
    # The six blobs are begun at once, and the client has looked whom to log in to.
    assert 0 < len(refused) <= (7 if where == _UPLOADS else 1)
