"""IDs and secrets."""

import base64
import secrets


def new_id() -> str:
    """Ten lower-case base32 characters, 50 random bits."""
    return base64.b32encode(secrets.token_bytes(7)).decode().lower()[:10]


def new_secret() -> str:
    """A token's secret: a prefix that scanners can recognise and 160 random bits."""
    return f"layover_{base64.b32encode(secrets.token_bytes(20)).decode().lower()}"
