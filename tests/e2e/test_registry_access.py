"""Who may do what over the registry's API, and what those who may not are told."""

import re
from itertools import count
from urllib.parse import urlencode

import pytest

from tests.e2e.pairs import EMBEDDED, REPLICATED
from tests.e2e.registry import (
    Headers,
    Registry,
    Tenant,
    add_tenant,
    basic,
    bearer,
    code,
    digest_of,
    image,
    location,
)
from tests.e2e.server import LayoverServer, Response

pytestmark = pytest.mark.pairs(EMBEDDED, REPLICATED)

_numbers = count()


@pytest.fixture(scope="module")
def tenant(server: LayoverServer) -> Tenant:
    """A project of another organization than the first one."""
    return add_tenant(server, f"tenant{next(_numbers)}")


@pytest.fixture(scope="module")
def sibling(server: LayoverServer, tenant: Tenant) -> Tenant:
    """Another project of the same organization as `tenant`."""
    return add_tenant(server, f"sibling{next(_numbers)}", f"organization-{tenant.project_id}")


@pytest.fixture
def registry(server: LayoverServer, tenant: Tenant) -> Registry:
    """The tenant's own repository, as its user sees it."""
    return Registry(server, tenant.project_id, basic(tenant.user))


def challenge(response: Response) -> dict[str, str]:
    """What a refusal says about where to get a token."""
    scheme, _, rest = response.headers["WWW-Authenticate"].partition(" ")
    assert scheme == "Bearer"
    return dict(re.findall(r'(\w+)="([^"]*)"', rest))


def get_token(registry: Registry, scope: str | None = None) -> str:
    query = f"?{urlencode({'scope': scope, 'service': registry.server.host})}" if scope else ""
    answer = registry("GET", f"/token{query}")
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json()["token"] == answer.json()["access_token"]
    assert answer.json()["expires_in"] >= 60
    return str(answer.json()["token"])


# --- authentication ---------------------------------------------------------------------------


def test_a_caller_without_a_token_is_told_where_to_get_one(registry: Registry) -> None:
    nobody = registry.as_({})
    for path in ("/v2/", "/v2/_catalog", "manifests/main", "tags/list", f"blobs/{digest_of(b'')}"):
        refused = nobody("GET", path)
        assert (refused.status, code(refused)) == (401, "UNAUTHORIZED")
        told = challenge(refused)
        assert told["realm"] == f"{registry.server.url}/token"
        assert told["service"] == registry.server.host
        assert "error" not in told


@pytest.mark.parametrize(
    ("method", "path", "actions"),
    [
        ("GET", "manifests/main", "pull"),
        ("HEAD", "manifests/main", "pull"),
        ("PUT", "manifests/main", "pull,push"),
        ("DELETE", "manifests/main", "delete"),
        ("GET", "tags/list", "pull"),
        ("GET", "referrers/sha256:" + "0" * 64, "pull"),
        ("GET", "blobs/sha256:" + "0" * 64, "pull"),
        ("DELETE", "blobs/sha256:" + "0" * 64, "delete"),
        ("POST", "blobs/uploads/", "pull,push"),
        (
            "POST",
            "blobs/uploads/?mount=sha256:" + "0" * 64 + "&from=a",
            "pull,push repository:a:pull",
        ),
        ("GET", "blobs/uploads/0", "pull,push"),
        ("PATCH", "blobs/uploads/0", "pull,push"),
        ("PUT", "blobs/uploads/0?digest=sha256:" + "0" * 64, "pull,push"),
        ("DELETE", "blobs/uploads/0", "pull,push"),
    ],
)
def test_a_challenge_names_the_scope_that_the_request_needs(
    registry: Registry, method: str, path: str, actions: str
) -> None:
    expected = f"repository:{registry.repository}:{actions}"
    refused = registry.as_({})(method, path)
    assert (refused.status, challenge(refused)["scope"]) == (401, expected)
    # One that was got for something else is told what is missing, and with that it gets through.
    narrow = registry.as_(bearer(get_token(registry, f"repository:{registry.repository}:none")))
    refused = narrow(method, path)
    assert refused.status == 401
    assert challenge(refused)["error"] == "insufficient_scope"
    assert challenge(refused)["scope"] == expected
    wide = registry.as_(bearer(get_token(registry, challenge(refused)["scope"])))
    assert wide(method, path).status != 401


@pytest.mark.parametrize(
    "credentials",
    [
        basic("layover_unknown"),
        basic(""),
        bearer("layover_unknown"),
        bearer(""),
        bearer("a.b.c"),
        bearer("\xff.\xff.\xff"),
        {"Authorization": "Digest a=b"},
        {"Authorization": "Bearer"},
        {"Authorization": ""},
    ],
    ids=str,
)
def test_a_token_that_is_none_is_refused(registry: Registry, credentials: Headers) -> None:
    refused = registry.as_(credentials)("GET", "/v2/")
    assert (refused.status, code(refused)) == (401, "UNAUTHORIZED")
    assert challenge(refused)


@pytest.mark.parametrize("value", ["!!!", "\xe9", "eA", "eC10b2tlbjr/"])
def test_credentials_that_are_malformed_are_a_bad_request(registry: Registry, value: str) -> None:
    refused = registry.as_({"Authorization": f"Basic {value}"})("GET", "/v2/")
    assert (refused.status, code(refused)) == (400, "UNSUPPORTED")


def test_another_user_name_is_told_the_right_one(registry: Registry, tenant: Tenant) -> None:
    refused = registry.as_(basic(tenant.user, user="admin"))("GET", "/token")
    assert (refused.status, code(refused)) == (401, "UNAUTHORIZED")
    assert challenge(refused)
    assert "x-token" in refused.json()["errors"][0]["message"]


def test_a_token_opens_the_registry_in_every_form(registry: Registry, tenant: Tenant) -> None:
    registry.push_image("forms", b"layer")
    pull = f"repository:{tenant.project_id}:pull"
    for credentials in (
        basic(tenant.user),
        bearer(tenant.user),
        bearer(get_token(registry, pull)),
        {"Authorization": basic(tenant.user)["Authorization"].replace("Basic", "basic")},
    ):
        assert registry.as_(credentials)("GET", "manifests/forms").status == 200


def test_the_password_grant_gives_a_token_too(registry: Registry, tenant: Tenant) -> None:
    nobody = registry.as_({})
    form = {
        "grant_type": "password",
        "service": registry.server.host,
        "client_id": "test",
        "username": "x-token",
        "password": tenant.user,
        "scope": f"repository:{tenant.project_id}:pull,push",
    }
    typed = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = nobody("POST", "/token", urlencode(form).encode(), typed)
    assert answer.status == 200
    assert nobody.as_(bearer(answer.json()["access_token"])).start()
    form |= {"grant_type": "refresh_token", "refresh_token": tenant.user}
    assert nobody("POST", "/token", urlencode(form).encode(), typed).status == 200
    for wrong, status in (
        ({"password": "wrong", "grant_type": "password"}, 401),
        ({"username": "admin", "grant_type": "password"}, 401),
        ({"grant_type": "client_credentials"}, 400),
        ({"refresh_token": "wrong"}, 401),
    ):
        refused = nobody("POST", "/token", urlencode({**form, **wrong}).encode(), typed)
        assert refused.status == status, wrong
        assert code(refused)
    for body in (b"", b"\xff", b"%ff%fe=%", b"a&" * 1000, b"a=" + b"b" * 1_000_000):
        assert nobody("POST", "/token", body, typed).status == 400


# --- scopes -----------------------------------------------------------------------------------


def test_a_registry_token_does_what_it_was_got_for_and_no_more(registry: Registry) -> None:
    registry.push_image("scoped", b"layer")
    narrow = registry.as_(bearer(get_token(registry, f"repository:{registry.repository}:pull")))
    assert narrow("GET", "manifests/scoped").status == 200
    for method, path in (
        ("POST", "blobs/uploads/"),
        ("PUT", "manifests/other"),
        ("DELETE", "manifests/scoped"),
    ):
        assert challenge(narrow(method, path))["error"] == "insufficient_scope"
    other = narrow.at(f"{registry.repository}/other")
    assert challenge(other("GET", "tags/list"))["error"] == "insufficient_scope"
    bare = registry.as_(bearer(get_token(registry)))
    assert bare("GET", "/v2/").status == 200
    assert challenge(bare("GET", "manifests/scoped"))["error"] == "insufficient_scope"


def test_a_registry_token_for_more_than_its_token_may_do_does_not_do_it(
    registry: Registry, tenant: Tenant
) -> None:
    pull = registry.as_(basic(tenant.pull))
    wide = registry.as_(bearer(get_token(pull, f"repository:{tenant.project_id}:pull,push,delete")))
    refused = wide("POST", "blobs/uploads/")
    assert (refused.status, code(refused)) == (403, "DENIED")


def test_a_mount_needs_pull_on_its_source(registry: Registry) -> None:
    # Invariant 3.
    source = registry.at(f"{registry.repository}/source")
    digest = source.push_blob(b"to be mounted")
    mount = f"blobs/uploads/?mount={digest}&from={source.repository}"
    push = f"repository:{registry.repository}:pull,push"
    narrow = registry.as_(bearer(get_token(registry, push)))
    refused = narrow("POST", mount)
    assert (refused.status, challenge(refused)["error"]) == (401, "insufficient_scope")
    assert narrow("HEAD", f"blobs/{digest}").status == 404
    wide = registry.as_(bearer(get_token(registry, f"{push} repository:{source.repository}:pull")))
    assert wide("POST", mount).status == 201


# --- kinds of tokens --------------------------------------------------------------------------


def test_a_pull_token_pulls_and_does_nothing_else(registry: Registry, tenant: Tenant) -> None:
    body = registry.push_image("pulled", b"layer")
    puller = registry.as_(basic(tenant.pull))
    for path in ("manifests/pulled", f"blobs/{digest_of(b'layer')}", "tags/list"):
        assert puller("GET", path).status == 200
    for method, path in (
        ("POST", "blobs/uploads/"),
        ("PUT", "manifests/other"),
        ("DELETE", "manifests/pulled"),
        ("DELETE", f"manifests/{digest_of(body)}"),
        ("DELETE", f"blobs/{digest_of(b'layer')}"),
    ):
        refused = puller(method, path, b"{}" if method == "PUT" else None)
        assert (refused.status, code(refused)) == (403, "DENIED"), (method, path)


def test_a_builds_token_writes_its_own_tags_alone(registry: Registry, tenant: Tenant) -> None:
    builder = registry.as_(basic(tenant.build))
    body = builder.push_image(tenant.build_id, b"layer")
    assert builder.push_manifest(f"{tenant.build_id}-app", body).status == 201
    assert builder.push_manifest(digest_of(body), body).status == 201
    for tag in ("latest", f"{tenant.build_id}0", tenant.build_id[:-1], "other-app"):
        refused = builder.push_manifest(tag, body)
        assert (refused.status, code(refused)) == (403, "DENIED"), tag
        assert registry("GET", f"manifests/{tag}").status == 404
    refused = builder("DELETE", f"manifests/{tenant.build_id}")
    assert (refused.status, code(refused)) == (403, "DENIED")


def test_what_a_build_saved_is_neither_overwritten_nor_deleted(
    registry: Registry, tenant: Tenant
) -> None:
    builder = registry.as_(basic(tenant.build))
    body = builder.push_image(tenant.build_id, b"saved")
    other = registry.push_image("not-the-builds", b"other")
    for credentials in (basic(tenant.user), basic(tenant.project)):
        writer = registry.as_(credentials)
        for refused in (
            writer.push_manifest(tenant.build_id, other),
            writer("DELETE", f"manifests/{tenant.build_id}"),
            writer("DELETE", f"manifests/{digest_of(body)}"),
        ):
            assert (refused.status, code(refused)) == (403, "DENIED")
    # It runs: nobody else finds it by its name yet.
    assert builder("GET", f"manifests/{tenant.build_id}").body == body
    assert registry("GET", f"manifests/{tenant.build_id}").status == 404


# --- other projects ---------------------------------------------------------------------------


def outcome(response: Response, *names: str) -> tuple[object, ...]:
    """All that a caller sees of a response, but for what it said itself and what never repeats."""
    text = response.body.decode()
    for name in names:
        text = text.replace(name, "NAME")
    headers = {
        name.lower(): value.replace(names[0], "NAME")
        for name, value in response.headers.items()
        if name.lower() not in ("date", "x-request-id", "content-length")
    }
    return response.status, text, headers


@pytest.mark.parametrize("kind", ["user", "project", "pull", "build"])
def test_another_projects_repository_reads_as_one_that_never_was(
    server: LayoverServer, registry: Registry, tenant: Tenant, sibling: Tenant, kind: str
) -> None:
    # Invariant 3: for a stranger there is no difference between "not yours" and "not there".
    owner = Registry(server, server.project_id, server.basic_auth)
    body = owner.push_image("secret", b"secret layer")
    session = owner.start()
    owner("PATCH", session, b"content")
    theirs, never = server.project_id, "n" * len(server.project_id)
    credentials = basic(getattr(tenant, kind))
    targets = [theirs]
    if kind != "user":
        # A project's tokens do not even see the organization's other projects.
        Registry(server, sibling.project_id, basic(sibling.user)).push_image(
            "secret", b"secret layer"
        )
        targets.append(sibling.project_id)
    for target in targets:
        for method, path, content in (
            ("GET", "manifests/secret", None),
            ("HEAD", f"manifests/{digest_of(body)}", None),
            ("PUT", "manifests/secret", image(b"secret layer")),
            ("DELETE", "manifests/secret", None),
            ("GET", f"blobs/{digest_of(b'secret layer')}", None),
            ("HEAD", f"blobs/{digest_of(b'secret layer')}", None),
            ("DELETE", f"blobs/{digest_of(b'secret layer')}", None),
            ("GET", "tags/list", None),
            ("GET", f"referrers/{digest_of(body)}", None),
            ("POST", "blobs/uploads/", None),
            ("POST", f"blobs/uploads/?digest={digest_of(b'x')}", b"x"),
            ("GET", session.split("/", 3)[3], None),
            ("PATCH", session.split("/", 3)[3], b"x"),
            ("DELETE", session.split("/", 3)[3], None),
        ):
            one = registry.as_(credentials).at(target)(method, path, content)
            other = registry.as_(credentials).at(never)(method, path, content)
            assert outcome(one, target) == outcome(other, never), (method, path)
            assert one.status == 404
    assert owner("GET", session).headers["Range"] == "0-6"


def test_another_projects_blob_cannot_be_mounted_and_nobody_learns_of_it(
    server: LayoverServer, registry: Registry
) -> None:
    # Invariant 3.
    owner = Registry(server, server.project_id, server.basic_auth)
    digest = owner.push_blob(b"secret content")
    answers = [
        registry("POST", f"blobs/uploads/?mount={digest}&from={source}")
        for source in (server.project_id, "n" * len(server.project_id))
    ]
    assert {answer.status for answer in answers} == {202}
    assert registry("HEAD", f"blobs/{digest}").status == 404
    # Nor does a manifest make it visible.
    registry.push_blob(b"{}")
    refused = registry.push_manifest("stolen", image(b"secret content"))
    assert (refused.status, code(refused)) == (400, "MANIFEST_BLOB_UNKNOWN")
    # Whoever has the bytes may have the blob.
    assert (
        registry("PUT", f"{location(answers[0])}?digest={digest}", b"secret content").status == 201
    )


def test_another_projects_session_is_unknown_from_ones_own(
    server: LayoverServer, registry: Registry
) -> None:
    session = Registry(server, server.project_id, server.basic_auth).start().rsplit("/", 1)[1]
    for method in ("GET", "PATCH", "DELETE"):
        answers = [
            outcome(registry(method, f"blobs/uploads/{upload_id}"), upload_id)
            for upload_id in (session, "f" * len(session))
        ]
        assert answers[0] == answers[1]
        assert answers[0][0] == 404


def test_addresses_are_those_behind_which_clients_reach_the_server(
    server: LayoverServer, registry: Registry
) -> None:
    # Whatever a client claims about itself: only the settings say where the server is.
    lies = {
        "Host": "evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "gopher",
    }
    refused = registry.as_({})("GET", "tags/list", headers=lies)
    assert challenge(refused)["realm"] == f"{server.url}/token"
    started = registry("POST", "blobs/uploads/", headers=lies)
    assert started.headers["Location"].startswith("/v2/")
