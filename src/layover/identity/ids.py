"""IDs and secrets."""

import base64
import hashlib
import secrets

# What a token's secret begins with, so that scanners can recognise one.
TOKEN_PREFIX = "layover_"  # noqa: S105  # no secret

# Of 32; what is left is as hard to guess.
_PUBLIC_CHARACTERS = 4


def new_id() -> str:
    """Ten lower-case base32 characters, 50 random bits."""
    return base64.b32encode(secrets.token_bytes(7)).decode().lower()[:10]


def new_secret() -> str:
    """A token's secret: a prefix that scanners can recognise and 160 random bits."""
    return f"{TOKEN_PREFIX}{base64.b32encode(secrets.token_bytes(20)).decode().lower()}"


def new_cookie_secret() -> str:
    """160 random bits that are no token's: for a browser's cookie, for a login that waits."""
    return base64.b32encode(secrets.token_bytes(20)).decode().lower()


def secret_hash(secret: str) -> bytes:
    """What is stored of a secret: so many random bits need no salt and no slow hash."""
    # A stranger's text may be none that can be encoded; it is nobody's secret then.
    return hashlib.sha256(secret.encode(errors="replace")).digest()


def public_part(secret: str) -> str | None:
    """As much of a token's secret as may be kept and told: it is worth nothing.

    None for what is no token of ours, of which nothing may be.
    """
    if not secret.startswith(TOKEN_PREFIX):
        return None
    return secret[: len(TOKEN_PREFIX) + _PUBLIC_CHARACTERS]
