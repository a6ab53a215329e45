"""What Kubernetes reads from us is what it expects, and nothing it sends breaks the provider."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.client.kubernetes import (
    PROVIDER_API,
    NameInvalid,
    ProviderRequestInvalid,
    as_yaml,
    cache_duration,
    check_namespace,
    check_secret_name,
    claims_of,
    provider_response,
    pull_secret,
    read_provider_request,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOST, PROJECT_ID = "layover.example.com", "pppppppppp"


def jwt(claims: object) -> str:
    parts = ({"alg": "RS256"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join([*(part.rstrip("=") for part in encoded), "c2lnbmVk"])


TOKEN = jwt({"iss": "https://k8s", "aud": ["layover"], "sub": "system:serviceaccount:web:app"})


def request(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": PROVIDER_API,
        "kind": "CredentialProviderRequest",
        "image": f"{HOST}/{PROJECT_ID}",
        "serviceAccountToken": TOKEN,
        "serviceAccountAnnotations": {"example.com/team": "web"},
        **changes,
    }


@pytest.mark.parametrize(
    "name", ["a", "a-1", "layover.example.com", "1", "a" * 63, "x." * 126 + "x"]
)
def test_names_that_kubernetes_gives_are_taken(name: str) -> None:
    check_secret_name(name)
    if "." not in name:
        check_namespace(name)


@pytest.mark.parametrize(
    "name", ["", "A", "a_b", "-a", "a-", ".a", "a.", "a..b", "a b", "a\n", "é", "a" * 64, "a/b"]
)
def test_names_that_kubernetes_refuses_are_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        check_secret_name(name)
    with pytest.raises(NameInvalid):
        check_namespace(name)


def test_a_name_is_bounded_as_a_whole_and_a_namespace_has_no_dots() -> None:
    with pytest.raises(NameInvalid):
        check_secret_name("x." * 126 + "xx")
    with pytest.raises(NameInvalid):
        check_namespace("a.b")


def test_a_secret_is_what_kubectl_makes_of_the_same_login() -> None:
    secret = pull_secret("pull", None, HOST, "layover_x", {"layover/token-id": "tttttttttt"})
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    assert "namespace" not in secret["metadata"]
    content = base64.b64decode(secret["data"][".dockerconfigjson"], validate=True)
    auth = base64.b64encode(b"x-token:layover_x").decode()
    assert json.loads(content) == {
        "auths": {HOST: {"username": "x-token", "password": "layover_x", "auth": auth}}
    }


def test_yaml_keeps_texts_that_look_like_something_else() -> None:
    secret = pull_secret("true", "1e3", HOST, "layover_x", {"layover/a": 'no: "#\n'})
    assert as_yaml(secret).startswith(
        'apiVersion: "v1"\n'
        'kind: "Secret"\n'
        "metadata:\n"
        '  name: "true"\n'
        '  namespace: "1e3"\n'
        "  labels:\n"
        '    app.kubernetes.io/managed-by: "layover"\n'
        "  annotations:\n"
        '    layover/a: "no: \\"#\\n"\n'
        'type: "kubernetes.io/dockerconfigjson"\n'
        "data:\n"
        '  .dockerconfigjson: "'
    )


@pytest.mark.parametrize(
    "image",
    [
        f"{HOST}/{PROJECT_ID}",
        f"{HOST}/{PROJECT_ID}/any/name",
        f"{HOST}/{PROJECT_ID}:bbbbbbbbbb",
        f"{HOST}/{PROJECT_ID}@sha256:{'0' * 64}",
    ],
)
def test_an_images_project_and_host_are_what_the_answer_is_for(image: str) -> None:
    parsed = read_provider_request(json.dumps(request(image=image)).encode())
    assert (parsed.project_id, parsed.token) == (PROJECT_ID, TOKEN)
    assert provider_response(parsed, "layover_x", timedelta(minutes=44)) == {
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "kind": "CredentialProviderResponse",
        "cacheKeyType": "Image",
        "cacheDuration": "2640s",
        "auth": {f"{HOST}/{PROJECT_ID}": {"username": "x-token", "password": "layover_x"}},
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"apiVersion": "credentialprovider.kubelet.k8s.io/v1beta1"}, "v1beta1"),
        ({"apiVersion": None}, "null"),
        ({"kind": "CredentialProviderResponse"}, "CredentialProviderResponse"),
        ({"image": ""}, "names no image"),
        ({"image": ["a"]}, "names no image"),
        ({"image": "busybox"}, "no image of Layover's"),
        ({"image": f"{PROJECT_ID}/x"}, "no image of Layover's"),
        ({"image": f"{HOST}/library/busybox"}, "no image of Layover's"),
        ({"image": f"{HOST}/../{PROJECT_ID}"}, "name"),
        ({"serviceAccountToken": ""}, "tokenAttributes"),
        ({"serviceAccountToken": None}, "tokenAttributes"),
        ({"serviceAccountToken": 7}, "token"),
        ({"serviceAccountToken": "s3cret s3cret"}, "token"),
        ({"serviceAccountToken": "layover_s3cret"}, "the service account's token is none"),
    ],
)
def test_what_the_kubelet_should_not_send_is_said_without_the_token(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ProviderRequestInvalid) as raised:
        read_provider_request(json.dumps(request(**changes)).encode())
    assert said in str(raised.value)
    assert "s3cret" not in str(raised.value)
    assert TOKEN not in str(raised.value)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(
    content=st.binary(max_size=60)
    | ANY_JSON.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {},
        optional={
            "image": st.text(alphabet="a2./:@-A", max_size=30) | ANY_JSON,
            "serviceAccountToken": st.text(max_size=20) | ANY_JSON,
            "kind": ANY_JSON,
        },
    ).map(lambda changes: json.dumps(request(**changes)).encode())
)
def test_any_request_is_read_or_refused(content: bytes) -> None:
    try:
        parsed = read_provider_request(content)
    except ProviderRequestInvalid as error:
        assert "\n" not in str(error)
        return
    assert parsed.image.host
    assert len(parsed.project_id) == 10


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(ProviderRequestInvalid):
        read_provider_request(b'{"image":' * 50_000)


def test_a_request_shows_no_token() -> None:
    assert TOKEN not in repr(read_provider_request(json.dumps(request()).encode()))


@given(left=st.timedeltas(timedelta(minutes=-5), timedelta(days=40)))
def test_what_is_cached_is_gone_before_its_token_even_for_a_clock_that_is_late(
    left: timedelta,
) -> None:
    duration = cache_duration(NOW + left, NOW)
    assert duration >= timedelta()
    if left > timedelta(minutes=1):
        assert duration <= left - timedelta(minutes=1)
    else:
        assert duration == timedelta()


def test_an_hours_token_is_cached_for_most_of_it() -> None:
    assert cache_duration(NOW + timedelta(hours=1), NOW) == timedelta(minutes=44, seconds=15)


def test_claims_say_whose_token_it_is() -> None:
    assert claims_of(TOKEN) == (
        "issuer https://k8s, audience layover, subject system:serviceaccount:web:app"
    )


@given(claims=ANY_JSON)
def test_whatever_a_token_claims_is_shown_on_one_short_line(claims: object) -> None:
    shown = claims_of(jwt(claims))
    assert shown.isprintable()
    assert len(shown) < 700


@given(payload=st.text(max_size=30).filter(lambda text: "." not in text))
def test_claims_that_cannot_be_read_are_said_to_be(payload: str) -> None:
    assert claims_of(f"a.{payload}.b").isprintable()
