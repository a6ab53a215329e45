"""An issuer's keys, and tokens signed with them in every right and wrong way."""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}


def _private_key(algorithm: str) -> Any:
    if algorithm[:2] in ("RS", "PS"):
        return rsa.generate_private_key(65537, 2048)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(_CURVES[algorithm])


@dataclass
class Keys:
    """One key for each family of algorithms, made when it is first needed."""

    generation: int = 1
    made: dict[str, Any] = field(default_factory=dict)
    old: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key_for("RS256")

    def key_for(self, algorithm: str) -> tuple[str, Any]:
        """The key's ID and the key."""
        family = "RSA" if algorithm[:2] in ("RS", "PS") else algorithm
        if family not in self.made:
            self.made[family] = _private_key(algorithm)
        return f"{family}-{self.generation}", self.made[family]

    def rotate(self, *, keep_old: bool) -> None:
        published = self.published()["keys"]
        self.old = published if keep_old else []
        self.generation += 1
        self.made = {}
        self.key_for("RS256")

    def published(self) -> dict[str, list[dict[str, Any]]]:
        """The JWKS."""
        own = [
            {**_jwk(key), "kid": f"{family}-{self.generation}", "use": "sig"}
            for family, key in self.made.items()
        ]
        return {"keys": [*own, *self.old]}


def _jwk(key: Any) -> dict[str, Any]:
    match key:
        case rsa.RSAPrivateKey():
            text = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())
        case ec.EllipticCurvePrivateKey():
            text = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())
        case _:
            text = jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key())
    document: dict[str, Any] = json.loads(text)
    # Newer releases of PyJWT write what a key may do; providers say `use`.
    document.pop("key_ops", None)
    return document


def sign(
    keys: Keys,
    claims: object,
    algorithm: str,
    key: str,
    headers: Mapping[str, Any],
    without: tuple[str, ...] = (),
) -> str:
    """A compact JWS (RFC 7515), put together by hand: a library would refuse half of it."""
    family = "RS256" if algorithm in ("none", "HS256") else algorithm
    key_id, current = keys.key_for(family)
    header: dict[str, Any] = {"typ": "JWT", "alg": algorithm, "kid": key_id}
    signing = current
    if key in ("foreign", "header"):
        signing = _private_key(family)
    if key == "header":
        header["jwk"] = _jwk(signing)
    header |= headers
    header = {name: value for name, value in header.items() if name not in without}
    signed = f"{_encode(header)}.{_encode(claims)}"
    return f"{signed}.{_base64(_signature(signed.encode(), algorithm, signing))}"


def _signature(content: bytes, algorithm: str, key: Any) -> bytes:
    if algorithm == "none":
        return b""
    if algorithm == "HS256":
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hmac.new(public, content, hashlib.sha256).digest()
    return jwt.algorithms.get_default_algorithms()[algorithm].sign(content, key)


def _encode(part: object) -> str:
    return _base64(json.dumps(part).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def is_verifier_of(verifier: str, challenge: str) -> bool:
    """PKCE's S256 (RFC 7636, section 4.6)."""
    return secrets.compare_digest(_base64(hashlib.sha256(verifier.encode()).digest()), challenge)
