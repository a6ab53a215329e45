"""A login is shown to no realm that could do harm with it, and a token is read within bounds."""

import base64
from datetime import timedelta

import pytest

from layover.client.auth_challenges import Challenge
from layover.client.docker_logins import Credential
from layover.client.push_errors import (
    LoginRefused,
    LoginUnusable,
    RealmRefused,
    RegistryUnreachable,
)
from layover.client.registry_authorization import RegistryAuthorization
from layover.client.registry_dialing import dialing
from layover.client.registry_realms import choose_realm
from layover.client.registry_tokens import fetch_token
from tests.certificates import Certificates
from tests.unit.client.registry_server import (
    IDENTITY,
    NOW,
    PASSWORD,
    PUSH,
    TOKEN,
    USER,
    Env,
    Names,
    RegistryServer,
    Reply,
    Request,
    authorize_one,
    challenge,
    log_in,
    reply_json,
    serving,
    tells_nothing,
    with_tokens,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_pauses")]


async def test_what_the_realms_url_asks_for_stays_and_the_scope_is_ours(
    registry: RegistryServer, env: Env
) -> None:
    with_tokens(registry, realm=f"{registry.url}/token?tenant=a%26b&scope=everything&service=x")
    await authorize_one(registry, log_in(env, registry.registry))
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
    granted = await authorize_one(registry, log_in(env, registry.registry))
    assert granted.token == TOKEN
    assert granted.expires_at == NOW + timedelta(seconds=seconds)


async def test_an_identity_token_is_traded_in_a_form(registry: RegistryServer, env: Env) -> None:
    with_tokens(registry, reply_json({"access_token": TOKEN, "refresh_token": "another"}))
    login = {"auth": base64.b64encode(b"0-0:").decode(), "identitytoken": IDENTITY}
    granted = await authorize_one(registry, log_in(env, registry.registry, **login))
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
    granted = await authorize_one(registry, log_in(env, registry.registry))
    assert granted.token == TOKEN
    form = registry.heard[-1].form
    assert (form["grant_type"], form["username"], form["password"]) == ("password", USER, PASSWORD)


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "/v2/acme/app/blobs/uploads/",
        "http://[",
        "https://[1]/x",
        "//other.test/x",
        "x://y",
        "http://{other}/here",
        "//{other}/here",
    ],
)
async def test_an_upload_that_was_begun_elsewhere_is_left_alone(
    registry: RegistryServer, env: Env, location: str | None
) -> None:
    async with serving() as other:
        named = {} if location is None else {"location": location.format(other=other.registry)}
        registry.handle = lambda asked: Reply(202, named) if asked.method == "POST" else Reply()
        assert await authorize_one(registry, env) == RegistryAuthorization()
        assert other.connections == 0
    assert [one.method for one in registry.heard] == ["GET", "POST"]


async def test_an_identity_token_that_is_over_is_told_so(
    registry: RegistryServer, env: Env
) -> None:
    with_tokens(registry, reply_json({"error": "invalid_grant"}, status=400))
    with pytest.raises(LoginRefused) as failure:
        await authorize_one(registry, log_in(env, registry.registry, identitytoken=IDENTITY))
    assert tells_nothing(failure)


async def test_an_identity_token_is_no_password(registry: RegistryServer, env: Env) -> None:
    registry.handle = lambda request: challenge('Basic realm="x"')
    with pytest.raises(LoginUnusable, match="identity token"):
        await authorize_one(registry, log_in(env, registry.registry, identitytoken=IDENTITY))


async def test_a_users_name_with_a_colon_is_told(registry: RegistryServer, env: Env) -> None:
    with_tokens(registry)
    with pytest.raises(LoginUnusable, match="colon") as failure:
        await authorize_one(
            registry, log_in(env, registry.registry, username="a:b", password=PASSWORD)
        )
    assert tells_nothing(failure)


async def test_a_realm_without_tls_gets_nothing(registry: RegistryServer, env: Env) -> None:
    async with serving() as realm:
        with_tokens(registry, realm=f"{realm.url}/token")
        with pytest.raises(RealmRefused, match=f"{realm.registry}, without TLS") as failure:
            await authorize_one(registry, log_in(env, registry.registry))
        assert tells_nothing(failure)
        assert realm.connections == 0


def challenge_of(url: str) -> Challenge:
    return Challenge("bearer", {"realm": url})


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
            await authorize_one(registry, log_in(env, registry.registry), names)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_realm_that_sends_elsewhere_is_not_followed(
    registry: RegistryServer, certificates: Certificates, env: Env, status: int
) -> None:
    async with serving(certificates) as elsewhere:
        with_tokens(registry, Reply(status, {"location": f"{elsewhere.url}/token"}))
        log_in(env, registry.registry)
        with pytest.raises(RealmRefused, match="sends whoever asks elsewhere"):
            await authorize_one(registry, env)
        log_in(env, registry.registry, identitytoken=IDENTITY)
        with pytest.raises(RealmRefused, match="sends whoever asks elsewhere"):
            await authorize_one(registry, env)
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
        await authorize_one(registry, log_in(env, registry.registry))
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
        await authorize_one(registry, log_in(env, registry.registry))
    assert not any(one.authorization for one in registry.heard)
