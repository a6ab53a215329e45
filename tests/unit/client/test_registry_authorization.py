"""The server gets what is good for a push and no more, and nobody else gets the login."""

import base64
import json
from datetime import timedelta

import pytest

from layover.client.push_errors import (
    LoginMissing,
    LoginRefused,
    LoginUnusable,
)
from layover.client.registry_authorization import RegistryAuthorization, Scheme, authorize
from tests.certificates import Certificates
from tests.unit.client.registry_server import (
    BASIC,
    NOW,
    PASSWORD,
    PUSH,
    TOKEN,
    USER,
    Env,
    RegistryServer,
    Reply,
    Request,
    authorize_one,
    challenge,
    log_in,
    place,
    reply_json,
    serving,
    tells_nothing,
    with_tokens,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_pauses")]


async def test_a_login_becomes_a_token_of_the_repository(
    registry: RegistryServer, env: Env
) -> None:
    with_tokens(registry)
    granted = await authorize_one(registry, log_in(env, registry.registry))
    assert granted == RegistryAuthorization(
        Scheme.BEARER, token=TOKEN, expires_at=NOW + timedelta(seconds=300)
    )
    assert TOKEN not in repr(granted)
    greeting, asked = registry.heard
    assert greeting.authorization == ""
    assert (asked.method, asked.path, asked.authorization) == ("GET", "/token", BASIC)
    assert asked.query == [("service", "here"), ("scope", PUSH)]
    assert PASSWORD not in asked.target


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


async def test_a_registry_that_knows_basic_alone_gets_the_login_itself(
    registry: RegistryServer, env: Env
) -> None:
    registry.handle = lambda request: (
        Reply() if request.authorization == BASIC else challenge('Basic realm="Registry"')
    )
    granted = await authorize_one(registry, log_in(env, registry.registry))
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
    assert (await authorize_one(registry, log_in(env, registry.registry))).scheme is Scheme.BEARER


async def test_a_registry_that_asks_nothing_is_shown_nothing(
    registry: RegistryServer, env: Env
) -> None:
    def handle(request: Request) -> Reply:
        if request.method == "POST":
            return Reply(202, {"location": "/v2/acme/app/blobs/uploads/5?state=x"})
        return Reply()

    registry.handle = handle
    assert await authorize_one(registry, log_in(env, registry.registry)) == RegistryAuthorization()
    assert [(one.method, one.target) for one in registry.heard] == [
        ("GET", "/v2/"),
        ("POST", "/v2/acme/app/blobs/uploads/"),
        ("DELETE", "/v2/acme/app/blobs/uploads/5?state=x"),
    ]
    assert not any(one.authorization for one in registry.heard)


async def test_a_registry_that_lets_everybody_read_asks_who_pushes(
    registry: RegistryServer, env: Env
) -> None:
    def handle(request: Request) -> Reply:
        if request.method == "POST" and request.authorization != BASIC:
            return challenge('Basic realm="x"')
        return Reply()

    registry.handle = handle
    with pytest.raises(LoginMissing):
        await authorize_one(registry, env)
    assert (await authorize_one(registry, log_in(env, registry.registry))).scheme is Scheme.BASIC


async def test_renewing_is_asking_again(registry: RegistryServer, env: Env) -> None:
    with_tokens(registry, reply_json({"token": TOKEN, "expires_in": 5}))
    log_in(env, registry.registry)
    first = await authorize_one(registry, env)
    with_tokens(registry, reply_json({"token": f"{TOKEN}-2", "expires_in": 5}))
    second = await authorize_one(registry, env)
    assert (first.token, second.token) == (TOKEN, f"{TOKEN}-2")


async def test_without_a_login_docker_login_is_named(registry: RegistryServer, env: Env) -> None:
    with_tokens(registry)
    with pytest.raises(LoginMissing, match=f"docker login {registry.registry}`"):
        await authorize_one(registry, env)
    registry.handle = lambda request: challenge('Basic realm="x"')
    with pytest.raises(LoginMissing):
        await authorize_one(registry, env)


def jwt(access: object) -> str:
    parts = ({"alg": "none"}, {"access": access})
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    )


async def test_a_registry_that_asks_nobody_is_asked_over_one_connection(
    certificates: Certificates, env: Env
) -> None:
    async with serving(certificates) as server:
        begun = {"location": "/v2/acme/app/blobs/uploads/1"}
        server.handle = lambda request: Reply(202, begun) if request.method == "POST" else Reply()
        assert (await authorize_one(server, env)).scheme is Scheme.NONE
        methods = [request.method for request in server.heard]
        assert (methods, server.connections) == (["GET", "POST", "DELETE"], 1)


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
        await authorize_one(registry, env)
    # Whose login it is may know more than what the token says.
    assert (await authorize_one(registry, log_in(env, registry.registry))).scheme is Scheme.BEARER


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
    assert (await authorize_one(registry, env)).token == token
    assert registry.heard[-1].authorization == ""


@pytest.mark.parametrize("status", [401, 403])
async def test_a_login_that_is_refused_is_told_with_where_it_is_from(
    registry: RegistryServer, env: Env, status: int
) -> None:
    log_in(env, registry.registry)
    echo = json.dumps({"details": f"wrong password {PASSWORD}"}).encode()
    with_tokens(registry, Reply(status, {}, echo))
    with pytest.raises(LoginRefused, match=r"config\.json.*docker login") as failure:
        await authorize_one(registry, env)
    assert tells_nothing(failure)
    registry.handle = lambda request: challenge('Basic realm="x"')
    with pytest.raises(LoginRefused, match=r"config\.json.*docker login") as failure:
        await authorize_one(registry, env)
    assert tells_nothing(failure)


async def test_a_login_of_variables_goes_to_one_registry(
    registry: RegistryServer, certificates: Certificates, env: Env
) -> None:
    with_tokens(registry)
    env |= {"LAYOVER_PUSH_REGISTRY_USERNAME": USER, "LAYOVER_PUSH_REGISTRY_PASSWORD": PASSWORD}
    assert (await authorize_one(registry, env)).token == TOKEN
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
