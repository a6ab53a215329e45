"""Of what an issuer publishes only what can verify a token is taken, and each key for its own."""

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from layover.identity.issuer_keys import ALGORITHMS, MAX_KEYS, parse_key, parse_keys
from tests.oidc_provider.keys import Keys

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def published(algorithm: str) -> dict[str, Any]:
    keys = Keys()
    keys.key_for(algorithm)
    return next(key for key in keys.published()["keys"] if _suits(key, algorithm))


def _suits(key: dict[str, Any], algorithm: str) -> bool:
    return bool(key["kid"].startswith("RSA" if algorithm[:2] in ("RS", "PS") else algorithm))


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_key_is_taken_for_the_algorithms_of_its_type(algorithm: str) -> None:
    key = parse_key(published(algorithm))
    assert key is not None
    assert algorithm in key.algorithms
    families = {name[:2] for name in key.algorithms}
    assert families == ({"RS", "PS"} if algorithm[:2] in ("RS", "PS") else {algorithm[:2]})
    if algorithm.startswith("ES"):
        assert key.algorithms == {algorithm}


def test_a_key_that_says_its_algorithm_is_taken_for_no_other() -> None:
    key = parse_key({**published("RS256"), "alg": "RS512"})
    assert key is not None
    assert key.algorithms == {"RS512"}
    for other in ("HS256", "none", "ES256", 5, None, ["RS256"]):
        taken = parse_key({**published("RS256"), "alg": other})
        assert (taken is None) == (other is not None)


def test_what_verifies_nothing_is_left_out_and_the_rest_is_kept() -> None:
    good, curve = published("RS256"), published("ES256")
    private = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1())))
    weak = json.loads(
        jwt.algorithms.RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key())
    )
    junk: object
    for junk in (
        None,
        5,
        "key",
        [],
        {},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
        {"kty": "RSA"},
        {"kty": ["RSA"], "n": "a", "e": "b"},
        {**good, "n": 5},
        {**good, "n": "!"},
        {**good, "n": "AQAB"},
        {**good, "n": "A" * 100_000},
        {**good, "e": "A" * 1000},
        {**good, "use": "enc"},
        {**good, "key_ops": ["encrypt"]},
        {**good, "key_ops": "verify"},
        {**good, "kid": 5},
        {**good, "kid": "x" * 1000},
        {**good, "k": "c2VjcmV0"},
        {**curve, "crv": "secp256k1"},
        {**curve, "crv": "P-384"},
        {**curve, "x": curve["y"]},
        {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
        private,
        weak,
    ):
        assert [key.key_id for key in parse_keys({"keys": [junk, good]})] == [good["kid"]], junk


@pytest.mark.parametrize("document", [None, [], "keys", {}, {"keys": None}, {"keys": {}}])
def test_what_is_no_jwks_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="no JWKS"):
        parse_keys(document)


def test_a_jwks_without_end_is_refused() -> None:
    assert len(parse_keys({"keys": [{}] * MAX_KEYS})) == 0
    with pytest.raises(ValueError, match="more than"):
        parse_keys({"keys": [{}] * (MAX_KEYS + 1)})


@given(document=json_values)
def test_no_document_is_more_than_refused(document: object) -> None:
    parse_key(document)


@given(
    changes=st.dictionaries(
        st.sampled_from(["kty", "n", "e", "crv", "x", "y", "alg", "use", "kid", "key_ops"]),
        json_values | st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB", "RS256"]),
    )
)
def test_no_change_of_a_key_is_more_than_refused(changes: dict[str, object]) -> None:
    key = parse_key({**_RSA, **changes})
    assert key is None or key.algorithms <= ALGORITHMS


_RSA = published("RS256")
