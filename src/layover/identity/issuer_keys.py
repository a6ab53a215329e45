"""The keys that an issuer of ID tokens signs with: what of a JWKS is used, and for what.

A key verifies what it was made for and nothing else: an RSA key never an elliptic curve's
signature, a key of one curve never another's, no key of anybody's an HMAC. Which algorithm it is
comes from the key, so that a token's header has no say in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from layover.identity.models import IdentityError

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

# JSON Web Algorithms (RFC 7518, RFC 8037). None that takes a shared secret, and not "none".
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_EDWARDS = frozenset({"Ed25519", "Ed448"})
ALGORITHMS = frozenset({*_RSA, *_CURVES.values(), "EdDSA"})

# What a key of each type has to be made of (RFC 7518, section 6; RFC 8037, section 2).
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}

# Below, it can be forged; above, each verification takes longer than any issuer needs.
_SMALLEST_RSA_BITS, _LARGEST_RSA_BITS = 2048, 8192
_LONGEST_MODULUS, _LONGEST_EXPONENT = 1400, 8  # in base64

# No issuer that is known has more than a handful.
MAX_KEYS = 100
_LONGEST_KEY_ID = 256


class IssuerUnavailable(IdentityError):
    """An issuer's keys cannot be had, so that nothing can be said about its tokens."""

    def __init__(self, issuer: str, reason: str) -> None:
        super().__init__(f"the keys of {issuer!r} cannot be read: {reason}")
        self.issuer = issuer


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One of an issuer's public keys, and the algorithms that it verifies."""

    key_id: str | None
    algorithms: frozenset[str]
    public_key: PublicKey = field(repr=False)


class IssuerKeys(Protocol):
    """Where issuers' keys come from."""

    async def keys(self, issuer: str, key_id: str | None = None) -> tuple[VerificationKey, ...]:
        """The issuer's keys; looked for anew, but not too often, when `key_id` is unknown.

        Ask only for issuers that somebody trusts: it is asked for its keys. Raises
        IssuerUnavailable.
        """
        ...


def parse_keys(document: object) -> tuple[VerificationKey, ...]:
    """The keys of a JWKS (RFC 7517, section 5) that can verify tokens; the others are left out.

    Raises ValueError when the document is no JWKS, or one of more than MAX_KEYS keys.
    """
    listed = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(listed, list):
        raise ValueError("it is no JWKS")
    if len(listed) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} keys")
    found = (parse_key(each) for each in listed)
    return tuple(key for key in found if key is not None)


def parse_key(document: object) -> VerificationKey | None:
    """The key, or None for one that verifies no token of ours."""
    if not isinstance(document, Mapping) or not _is_for_signatures(document):
        return None
    # What is published with its private part is anybody's to sign with; a secret is no public key.
    members = _MEMBERS.get(str(document.get("kty")))
    if members is None or "d" in document or "k" in document:
        return None
    public = {name: document.get(name) for name in ("kty", *members)}
    if not all(isinstance(value, str) for value in public.values()):
        return None
    algorithms = _algorithms(public)
    named = document.get("alg")
    if named is not None:
        algorithms &= {named} if isinstance(named, str) else set()
    key_id = document.get("kid")
    if not algorithms or not (key_id is None or isinstance(key_id, str)):
        return None
    if key_id is not None and len(key_id) > _LONGEST_KEY_ID:
        return None
    try:
        key = jwt.PyJWK(public, min(algorithms)).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if not _is_strong(key):
        return None
    return VerificationKey(key_id, algorithms, key)


def _is_for_signatures(document: Mapping[object, object]) -> bool:
    if document.get("use", "sig") != "sig":
        return False
    operations = document.get("key_ops", ["verify"])
    return isinstance(operations, list) and "verify" in operations


def _algorithms(public: Mapping[str, object]) -> frozenset[str]:
    match public["kty"], public.get("crv"):
        case "RSA", _:
            short = len(str(public["n"])) <= _LONGEST_MODULUS
            return _RSA if short and len(str(public["e"])) <= _LONGEST_EXPONENT else frozenset()
        case "EC", str(curve) if curve in _CURVES:
            return frozenset({_CURVES[curve]})
        case "OKP", str(curve) if curve in _EDWARDS:
            return frozenset({"EdDSA"})
        case _:
            return frozenset()


def _is_strong(key: object) -> bool:
    if isinstance(key, RSAPublicKey):
        return _SMALLEST_RSA_BITS <= key.key_size <= _LARGEST_RSA_BITS
    return isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey)
