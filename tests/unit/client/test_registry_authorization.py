"""The server gets what is good for a push and no more, and the login goes nowhere else."""

import base64
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from layover.client import registry_dialing
from layover.client.auth_challenges import Challenge
from layover.client.docker_logins import Credential
from layover.client.push_errors import (
    LoginMissing,
    LoginRefused,
    LoginUnusable,
    RealmRefused,
    RegistryNotTrusted,
    RegistryUnreachable,
)
from layover.client.registries import RegistryInvalid
from layover.client.registry_authorization import RegistryAuthorization, Scheme, authorize
from layover.client.registry_dialing import dialing
from layover.client.registry_realms import choose_realm
from layover.client.registry_tokens import fetch_token
from layover.errors import LayoverError
from layover.oci.references import Destination, Place
from tests.certificates import Certificates, make_certificates
from tests.unit.client.registry_server import (
    BASIC,
    PASSWORD,
    USER,
    RegistryServer,
    Reply,
    Request,
    challenge,
    reply_json,
    serving,
)

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TOKEN = "a-t0ken"
IDENTITY = "an-1dentity-token"
PUSH = "repository:acme/app:pull,push"

Env = dict[str, str]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_dialing, "_PAUSES_SECONDS", (0.0, 0.0))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def registry(certificates: Certificates) -> AsyncIterator[RegistryServer]:
    async with serving(certificates) as server:
        yield server


@pytest.fixture
def env(tmp_path: Path, certificates: Certificates) -> Env:
    return {"HOME": str(tmp_path), "PATH": "/bin", "SSL_CERT_FILE": str(certificates.ca)}


def log_in(env: Env, *registries: str, **entry: str) -> Env:
    """Note a login in Docker's file."""
    login = entry or {"username": USER, "password": PASSWORD}
    folder = Path(env["HOME"]) / ".docker"
    folder.mkdir(exist_ok=True)
    auths = dict.fromkeys(registries, login)
    (folder / "config.json").write_text(json.dumps({"auths": auths}))
    return env


def place(server: RegistryServer, repository: str = "acme/app") -> Place:
    return Destination.parse(f"{server.registry}/{repository}").place


def with_tokens(server: RegistryServer, answer: Reply | None = None, realm: str = "") -> None:
    """Let the server be a registry, and where it has clients sign in, too."""

    def handle(request: Request) -> Reply:
        if request.path == "/v2/":
            return challenge(f'Bearer realm="{realm or server.url + "/token"}",service="here"')
        if answer is not None:
            return answer
        if request.authorization != BASIC:
            return Reply(401)
        return reply_json({"token": TOKEN, "expires_in": 300})

    server.handle = handle


async def one(
    server: RegistryServer, env: Env, resolve: "Names | None" = None
) -> RegistryAuthorization:
    there = place(server)
    if resolve is None:
        return (await authorize([there], env, now=lambda: NOW))[there]
    return (await authorize([there], env, now=lambda: NOW, resolve=resolve))[there]


class Names:
    """A name server of a test's own."""

    def __init__(self, **addresses: str) -> None:
        self._addresses = {name.replace("_", "."): found for name, found in addresses.items()}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        return [self._addresses.get(host, host)]


def tells_nothing(failure: pytest.ExceptionInfo[LayoverError]) -> bool:
    """Whether the failure, all of it, holds no secret."""
    shown, error = "", failure.value
    cause: BaseException | None = error
    while cause is not None:
        shown += f"{cause!s} {cause!r}"
        cause = cause.__cause__
    return not any(secret in shown for secret in (PASSWORD, IDENTITY, TOKEN, BASIC[6:]))


# What the server is handed.


async def test_a_login_becomes_a_token_of_the_repository(
    registry: RegistryServer, env: Env
) -> None:
    with_tokens(registry)
    granted = await one(registry, log_in(env, registry.registry))
    assert granted == RegistryAuthorization(
        Scheme.BEARER, token=TOKEN, expires_at=NOW + timedelta(seconds=300)
    )
    assert TOKEN not in repr(granted)
    greeting, asked = registry.heard
    assert greeting.authorization == ""
    assert (asked.method, asked.path, asked.authorization) == ("GET", "/token", BASIC)
    assert asked.query == [("service", "here"), ("scope", PUSH)]
    assert PASSWORD not in asked.target


async def test_what_the_realms_url_asks_for_stays_and_the_scope_is_ours(
    registry: RegistryServer, env: Env
) -> None:
    with_tokens(registry, realm=f"{registry.url}/token?tenant=a%26b&scope=everything&service=x")
    await one(registry, log_in(env, registry.registry))
    assert registry.heard[-1].query == [("tenant", "a&b"), ("service", "here"), ("scope", PUSH)]


@pytest.mark.parametrize(
    ("content", "headers", "seconds"),
    [
        ({"token": TOKEN}, {}, 60),
        ({"access_token": TOKEN, "expires_in": 5}, {}, 5),
        ({"token": "", "access_token": TOKEN, "expires_in": 5.5}, {}, 5.5),
        ({"token": TOKEN, "expires_in": 0}, {}, 60),
        ({"token": TOKEN, "expires_in": -300}, {}, 60),
        ({"token": TOKEN, "expires_in": True}, {}, 60),
        ({"token": TOKEN, "expires_in": "300"}, {}, 60),
        ({"token": TOKEN, "expires_in": None}, {}, 60),
        ({"token": TOKEN, "expires_in": 1e300}, {}, 365 * 86400),
        # Both by a clock that is years behind ours.
        (
            {"token": TOKEN, "expires_in": 300, "issued_at": "2020-01-01T00:00:00.5Z"},
            {"date": "Wed, 01 Jan 2020 00:01:40 GMT"},
            200.5,
        ),
        (
            {"token": TOKEN, "expires_in": 300, "issued_at": "2020-01-01T00:00:00.9Z"},
            {"date": "Wed, 01 Jan 2020 00:00:00 GMT"},
            300,
        ),
        ({"token": TOKEN, "expires_in": 300, "issued_at": "2020-01-01T00:00:00Z"}, {}, 300),
        (
            {"token": TOKEN, "expires_in": 300, "issued_at": "soon"},
            {"date": "later"},
            300,
        ),
    ],
)
async def test_when_a_token_is_over(
    registry: RegistryServer,
    env: Env,
    content: dict[str, object],
    headers: dict[str, str],
    seconds: float,
) -> None:
    with_tokens(registry, reply_json(content, headers))
    granted = await one(registry, log_in(env, registry.registry))
    assert granted.token == TOKEN
    assert granted.expires_at == NOW + timedelta(seconds=seconds)


async def test_places_of_a_registry_may_pull_from_each_other(
    registry: RegistryServer, certificates: Certificates, env: Env
) -> None:
    with_tokens(registry)
    async with serving(certificates) as other:
        with_tokens(other)
        log_in(env, registry.registry, other.registry)
        places = [place(registry), place(registry, "b"), place(other, "c"), place(registry)]
        granted = await authorize(places, env)
        assert set(granted) == set(places)
        asked = [sorted(one.query)[:-1] for one in registry.heard[1:]]
        assert sorted(asked) == [
            [("scope", "repository:acme/app:pull"), ("scope", "repository:b:pull,push")],
            [("scope", PUSH), ("scope", "repository:b:pull")],
        ]
        assert [one.query[1:] for one in other.heard[1:]] == [[("scope", "repository:c:pull,push")]]


async def test_a_place_that_may_not_be_pulled_from_leaves_the_push(
    registry: RegistryServer, env: Env
) -> None:
    with_tokens(registry)
    signing_in = registry.handle

    def handle(request: Request) -> Reply:
        scopes = [value for name, value in request.query if name == "scope"]
        return Reply(403) if len(scopes) > 1 else signing_in(request)

    registry.handle = handle
    places = [place(registry), place(registry, "b")]
    granted = await authorize(places, log_in(env, registry.registry))
    assert [granted[there].token for there in places] == [TOKEN, TOKEN]


async def test_an_identity_token_is_traded_in_a_form(registry: RegistryServer, env: Env) -> None:
    with_tokens(registry, reply_json({"access_token": TOKEN, "refresh_token": "another"}))
    login = {"auth": base64.b64encode(b"0-0:").decode(), "identitytoken": IDENTITY}
    granted = await one(registry, log_in(env, registry.registry, **login))
    assert granted.token == TOKEN
    asked = registry.heard[-1]
    assert (asked.method, asked.target, asked.authorization) == ("POST", "/token", "")
    assert asked.form == {
        "client_id": "layover",
        "service": "here",
        "scope": PUSH,
        "grant_type": "refresh_token",
        "refresh_token": IDENTITY,
    }


@pytest.mark.parametrize("status", [404, 405])
async def test_a_realm_that_knows_forms_alone_gets_one(
    registry: RegistryServer, env: Env, status: int
) -> None:
    with_tokens(registry)
    signing_in = registry.handle

    def handle(request: Request) -> Reply:
        if request.method == "POST":
            return reply_json({"access_token": TOKEN})
        return Reply(status) if request.path == "/token" else signing_in(request)

    registry.handle = handle
    granted = await one(registry, log_in(env, registry.registry))
    assert granted.token == TOKEN
    form = registry.heard[-1].form
    assert (form["grant_type"], form["username"], form["password"]) == ("password", USER, PASSWORD)


async def test_a_registry_that_knows_basic_alone_gets_the_login_itself(
    registry: RegistryServer, env: Env
) -> None:
    registry.handle = lambda request: (
        Reply() if request.authorization == BASIC else challenge('Basic realm="Registry"')
    )
    granted = await one(registry, log_in(env, registry.registry))
    assert granted == RegistryAuthorization(Scheme.BASIC, username=USER, password=PASSWORD)
    assert PASSWORD not in repr(granted) and USER not in repr(granted)
    assert [one.path for one in registry.heard] == ["/v2/", "/v2/"]


async def test_a_token_is_asked_for_where_a_registry_knows_both(
    registry: RegistryServer, env: Env
) -> None:
    with_tokens(registry)
    signing_in = registry.handle

    def handle(request: Request) -> Reply:
        both = f'Basic realm="x", Bearer realm="{registry.url}/token"'
        return challenge(both) if request.path == "/v2/" else signing_in(request)

    registry.handle = handle
    assert (await one(registry, log_in(env, registry.registry))).scheme is Scheme.BEARER


async def test_a_registry_that_asks_nothing_is_shown_nothing(
    registry: RegistryServer, env: Env
) -> None:
    def handle(request: Request) -> Reply:
        if request.method == "POST":
            return Reply(202, {"location": "/v2/acme/app/blobs/uploads/5?state=x"})
        return Reply()

    registry.handle = handle
    assert await one(registry, log_in(env, registry.registry)) == RegistryAuthorization()
    assert [(one.method, one.target) for one in registry.heard] == [
        ("GET", "/v2/"),
        ("POST", "/v2/acme/app/blobs/uploads/"),
        ("DELETE", "/v2/acme/app/blobs/uploads/5?state=x"),
    ]
    assert not any(one.authorization for one in registry.heard)


async def test_an_upload_that_was_begun_elsewhere_is_left_alone(
    registry: RegistryServer, env: Env
) -> None:
    async with serving() as other:
        registry.handle = lambda request: (
            Reply(202, {"location": f"{other.url}/here"}) if request.method == "POST" else Reply()
        )
        assert await one(registry, env) == RegistryAuthorization()
        assert other.connections == 0


async def test_a_registry_that_lets_everybody_read_asks_who_pushes(
    registry: RegistryServer, env: Env
) -> None:
    def handle(request: Request) -> Reply:
        if request.method == "POST" and request.authorization != BASIC:
            return challenge('Basic realm="x"')
        return Reply()

    registry.handle = handle
    with pytest.raises(LoginMissing):
        await one(registry, env)
    assert (await one(registry, log_in(env, registry.registry))).scheme is Scheme.BASIC


async def test_renewing_is_asking_again(registry: RegistryServer, env: Env) -> None:
    with_tokens(registry, reply_json({"token": TOKEN, "expires_in": 5}))
    log_in(env, registry.registry)
    first = await one(registry, env)
    with_tokens(registry, reply_json({"token": f"{TOKEN}-2", "expires_in": 5}))
    second = await one(registry, env)
    assert (first.token, second.token) == (TOKEN, f"{TOKEN}-2")


# Without TLS.


async def test_a_registry_on_loopback_may_do_without_tls(env: Env) -> None:
    async with serving() as registry:
        with_tokens(registry)
        assert (await one(registry, log_in(env, registry.registry))).token == TOKEN


async def test_another_may_where_its_user_lists_it(env: Env) -> None:
    async with serving(host="registry.test") as registry:
        with_tokens(registry)
        log_in(env, registry.registry)
        names = Names(registry_test="127.0.0.1")
        hint = f"LAYOVER_INSECURE_REGISTRIES={registry.registry} here, .*outbound_insecure_hosts"
        for listed in ("", "other.test:5000", "registry.test", "registry.test:1"):
            env["LAYOVER_INSECURE_REGISTRIES"] = listed
            with pytest.raises(RegistryUnreachable, match=hint):
                await one(registry, env, names)
        assert registry.heard == []
        env["LAYOVER_INSECURE_REGISTRIES"] = f"other.test:5000, {registry.registry}"
        assert (await one(registry, env, names)).token == TOKEN


async def test_a_list_that_names_no_hosts_is_told(registry: RegistryServer, env: Env) -> None:
    with pytest.raises(RegistryInvalid):
        await one(registry, {**env, "LAYOVER_INSECURE_REGISTRIES": "user@host"})


async def test_a_certificate_that_nobody_signed_is_no_reason_to_do_without(
    registry: RegistryServer, env: Env, tmp_path: Path
) -> None:
    with_tokens(registry)
    env["SSL_CERT_FILE"] = str(make_certificates(tmp_path / "others").ca)
    with pytest.raises(RegistryNotTrusted, match="SSL_CERT_FILE"):
        await one(registry, log_in(env, registry.registry))
    assert registry.heard == []


# Logins that are missing, refused or of no use.


async def test_without_a_login_docker_login_is_named(registry: RegistryServer, env: Env) -> None:
    with_tokens(registry)
    with pytest.raises(LoginMissing, match=f"docker login {registry.registry}`"):
        await one(registry, env)
    registry.handle = lambda request: challenge('Basic realm="x"')
    with pytest.raises(LoginMissing):
        await one(registry, env)


def jwt(access: object) -> str:
    parts = ({"alg": "none"}, {"access": access})
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    )


@pytest.mark.parametrize(
    "access",
    [
        [],
        [{"type": "repository", "name": "acme/app", "actions": ["pull"]}],
        [{"type": "repository", "name": "acme/other", "actions": ["pull", "push"]}],
    ],
)
async def test_a_token_that_lets_everybody_read_pushes_nothing(
    registry: RegistryServer, env: Env, access: object
) -> None:
    with_tokens(registry, reply_json({"token": f"{jwt(access)}.x"}))
    with pytest.raises(LoginMissing):
        await one(registry, env)
    # Whose login it is may know more than what the token says.
    assert (await one(registry, log_in(env, registry.registry))).scheme is Scheme.BEARER


@pytest.mark.parametrize(
    "token",
    [
        TOKEN,
        "djE6YWNtZQ==",
        "a.b.c",
        "....",
        f"{jwt([{'type': 'repository', 'name': 'acme/app', 'actions': ['push', 'pull']}])}.x",
        f"{jwt([{'type': 'repository', 'name': 'acme/app', 'actions': ['*']}])}.x",
        f"{jwt('all')}.x",
        f"{jwt([5])}.x",
    ],
)
async def test_everybody_pushes_where_the_registry_lets_them(
    registry: RegistryServer, env: Env, token: str
) -> None:
    with_tokens(registry, reply_json({"token": token}))
    assert (await one(registry, env)).token == token
    assert registry.heard[-1].authorization == ""


@pytest.mark.parametrize("status", [401, 403])
async def test_a_login_that_is_refused_is_told_with_where_it_is_from(
    registry: RegistryServer, env: Env, status: int
) -> None:
    log_in(env, registry.registry)
    echo = json.dumps({"details": f"wrong password {PASSWORD}"}).encode()
    with_tokens(registry, Reply(status, {}, echo))
    with pytest.raises(LoginRefused, match=r"config\.json.*docker login") as failure:
        await one(registry, env)
    assert tells_nothing(failure)
    registry.handle = lambda request: challenge('Basic realm="x"')
    with pytest.raises(LoginRefused, match=r"config\.json.*docker login") as failure:
        await one(registry, env)
    assert tells_nothing(failure)


async def test_an_identity_token_that_is_over_is_told_so(
    registry: RegistryServer, env: Env
) -> None:
    with_tokens(registry, reply_json({"error": "invalid_grant"}, status=400))
    with pytest.raises(LoginRefused) as failure:
        await one(registry, log_in(env, registry.registry, identitytoken=IDENTITY))
    assert tells_nothing(failure)


async def test_an_identity_token_is_no_password(registry: RegistryServer, env: Env) -> None:
    registry.handle = lambda request: challenge('Basic realm="x"')
    with pytest.raises(LoginUnusable, match="identity token"):
        await one(registry, log_in(env, registry.registry, identitytoken=IDENTITY))


async def test_a_users_name_with_a_colon_is_told(registry: RegistryServer, env: Env) -> None:
    with_tokens(registry)
    with pytest.raises(LoginUnusable, match="colon") as failure:
        await one(registry, log_in(env, registry.registry, username="a:b", password=PASSWORD))
    assert tells_nothing(failure)


async def test_a_login_of_variables_goes_to_one_registry(
    registry: RegistryServer, certificates: Certificates, env: Env
) -> None:
    with_tokens(registry)
    env |= {"LAYOVER_PUSH_REGISTRY_USERNAME": USER, "LAYOVER_PUSH_REGISTRY_PASSWORD": PASSWORD}
    assert (await one(registry, env)).token == TOKEN
    async with serving(certificates) as other:
        with_tokens(other)
        with pytest.raises(LoginUnusable, match=f"for one registry, and {other.registry}"):
            await authorize([place(registry), place(other)], env)
        assert not any(one.authorization for one in other.heard)
        # One that has a login of its own is not the one that is meant.
        log_in(env, other.registry)
        assert len(await authorize([place(registry), place(other)], env)) == 2
        # Nor is one that asks nothing.
        other.handle = lambda request: Reply()
        log_in(env)
        assert len(await authorize([place(registry), place(other)], env)) == 2


# Registries and realms that mean no good.


async def test_a_realm_without_tls_gets_nothing(registry: RegistryServer, env: Env) -> None:
    async with serving() as realm:
        with_tokens(registry, realm=f"{realm.url}/token")
        with pytest.raises(RealmRefused, match=f"{realm.registry}, without TLS") as failure:
            await one(registry, log_in(env, registry.registry))
        assert tells_nothing(failure)
        assert realm.connections == 0


@pytest.mark.parametrize("scheme", ["none", "bearer"])
async def test_a_registry_elsewhere_cannot_have_it_sent_to_this_machine(
    certificates: Certificates, env: Env, scheme: str
) -> None:
    async with serving(certificates) as realm:
        credential = None if scheme == "none" else Credential("a file", USER, PASSWORD)
        for host, names in ((realm.registry, Names()), ("auth.test", Names(auth_test="127.0.0.1"))):
            chosen = choose_realm(
                "registry.test",
                challenge_of(f"https://{host.partition(':')[0]}:{realm.port}/token"),
                is_plain=False,
                address="140.82.112.33",
                insecure_hosts=frozenset(),
            )
            dial = dialing(env, names)
            with pytest.raises(RealmRefused, match="no public address") as failure:
                await fetch_token("registry.test", chosen, [PUSH], credential, dial, NOW)
            assert tells_nothing(failure)
        assert realm.connections == 0


def challenge_of(url: str) -> Challenge:
    return Challenge("bearer", {"realm": url})


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "10.0.0.1", "192.168.1.1", "100.100.100.200", "fd00:ec2::254"]
)
async def test_a_registry_on_this_machine_cannot_have_it_sent_into_its_network(
    registry: RegistryServer, env: Env, address: str
) -> None:
    host = f"[{address}]" if ":" in address else address
    for realm, names in (
        (f"https://{host}/latest", Names()),
        ("https://auth.test/token", Names(auth_test=address)),
    ):
        with_tokens(registry, realm=realm)
        with pytest.raises(RealmRefused, match="no public address"):
            await one(registry, log_in(env, registry.registry), names)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_realm_that_sends_elsewhere_is_not_followed(
    registry: RegistryServer, certificates: Certificates, env: Env, status: int
) -> None:
    async with serving(certificates) as elsewhere:
        with_tokens(registry, Reply(status, {"location": f"{elsewhere.url}/token"}))
        log_in(env, registry.registry)
        with pytest.raises(RealmRefused, match="sends whoever asks elsewhere"):
            await one(registry, env)
        log_in(env, registry.registry, identitytoken=IDENTITY)
        with pytest.raises(RealmRefused, match="sends whoever asks elsewhere"):
            await one(registry, env)
        assert elsewhere.connections == 0


@pytest.mark.parametrize(
    "answer",
    [
        Reply(body=b""),
        Reply(body=b"not JSON"),
        Reply(body=b'{"token":'),
        Reply(body=b"[" * 100_000),
        Reply(body=b"\xff\xfe"),
        reply_json([TOKEN]),
        reply_json({}),
        reply_json({"token": ""}),
        reply_json({"token": 5, "access_token": None}),
        reply_json({"token": f"{TOKEN}\r\nX-Evil: 1"}),
        reply_json({"token": f"{TOKEN} b"}),
        reply_json({"token": "t\u00f6ken"}),
        reply_json({"token": "x" * 100_000}),
        Reply(body=b'{"token": "' + b"x" * 300_000 + b'"}'),
        Reply(body=b" " * 10_000, is_endless=True),
        Reply(headers={"content-encoding": "gzip"}, body=b"\x1f\x8b"),
    ],
    ids=range(16),
)
async def test_a_realm_that_gives_no_token_is_told(
    registry: RegistryServer, env: Env, answer: Reply
) -> None:
    with_tokens(registry, answer)
    with pytest.raises(RegistryUnreachable, match="no token") as failure:
        await one(registry, log_in(env, registry.registry))
    assert tells_nothing(failure)


@pytest.mark.parametrize(
    "answer",
    [
        Reply(401),
        challenge('Bearer realm="x'),
        challenge("Negotiate"),
        challenge('Digest realm="x",nonce="y"'),
        Reply(404),
        Reply(403),
        Reply(204),
        Reply(302, {"location": "https://example.com/v2/"}),
        Reply(500),
    ],
    ids=range(9),
)
async def test_what_answers_unlike_a_registry_gets_nothing(
    registry: RegistryServer, env: Env, answer: Reply
) -> None:
    registry.handle = lambda request: answer
    with pytest.raises(RegistryUnreachable, match=registry.registry):
        await one(registry, log_in(env, registry.registry))
    assert not any(one.authorization for one in registry.heard)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(
    registry: RegistryServer, env: Env, status: int
) -> None:
    with_tokens(registry)
    signing_in, failures = registry.handle, {"/v2/": 2, "/token": 2}

    def handle(request: Request) -> Reply:
        failures[request.path] -= 1
        return Reply(status) if failures[request.path] >= 0 else signing_in(request)

    registry.handle = handle
    assert (await one(registry, log_in(env, registry.registry))).token == TOKEN
    failures |= {"/v2/": 0, "/token": 3}
    with pytest.raises(RegistryUnreachable, match=f"status {status}") as failure:
        await one(registry, env)
    assert tells_nothing(failure)


async def test_a_registry_that_is_not_there_is_told(registry: RegistryServer, env: Env) -> None:
    async with serving() as gone:
        pass
    with pytest.raises(RegistryUnreachable, match=f"{gone.registry} cannot be reached"):
        await one(gone, env)
    nowhere = Destination.parse("registry.test/a").place
    with pytest.raises(RegistryUnreachable, match="no address that can be dialled"):
        await authorize([nowhere], env, resolve=Names(registry_test="no address"))


async def test_a_realm_that_is_not_there_is_told(registry: RegistryServer, env: Env) -> None:
    async with serving() as gone:
        pass
    with_tokens(registry, realm=f"https://{gone.registry}/token")
    with pytest.raises(RegistryUnreachable, match=f"{gone.registry} cannot be reached") as failure:
        await one(registry, log_in(env, registry.registry))
    assert tells_nothing(failure)
