"""Receipts of builds that are gone, and whether the server signed them."""

import json
from dataclasses import dataclass
from typing import Any

from layover.client.errors import ClientError


class ReceiptForged(ClientError):
    """A receipt is not what the server signed."""

    def __init__(self, build_id: str) -> None:
        super().__init__(
            f"the receipt of build {build_id} does not bear the server's signature:"
            " it was changed on its way, or another server made it"
        )
        self.build_id = build_id


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt whose signature is good."""

    facts: dict[str, Any]
    document: bytes
    """The bytes that are signed."""
    signature: bytes
    public_key: bytes
    public_key_pem: str
    """The same key as other programs read it."""


def checked(build_id: str, document: bytes, signature: bytes, public_key: bytes) -> Receipt:
    """Read a receipt. Raises ReceiptForged unless `public_key` signed it, for this build."""
    # A tenth of a second that only this command costs.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(signature, document)
        facts = json.loads(document)
    except (InvalidSignature, ValueError):
        raise ReceiptForged(build_id) from None
    if not isinstance(facts, dict) or facts.get("build") != build_id:
        raise ReceiptForged(build_id)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return Receipt(facts, document, signature, public_key, pem)
