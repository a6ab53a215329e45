"""A receipt is believed when it bears the signature of the key that comes with it."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from layover.client.receipts import Receipt, ReceiptForged, checked

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
BUILD = "bbbbbbbbbb"
DOCUMENT = json.dumps({"build": BUILD, "freed_bytes": 5}).encode()
SIGNATURE = KEY.sign(DOCUMENT)


def test_a_good_receipt_is_read() -> None:
    receipt = checked(BUILD, DOCUMENT, SIGNATURE, PUBLIC)
    assert receipt.facts["freed_bytes"] == 5
    assert receipt.document == DOCUMENT
    assert load_pem_public_key(receipt.public_key_pem.encode()) == KEY.public_key()
    assert replace(receipt, facts={}) == Receipt(
        {}, DOCUMENT, SIGNATURE, PUBLIC, receipt.public_key_pem
    )


@pytest.mark.parametrize(
    ("document", "signature", "key"),
    [
        (DOCUMENT.replace(b"5", b"6"), SIGNATURE, PUBLIC),
        (DOCUMENT, SIGNATURE[::-1], PUBLIC),
        (DOCUMENT, b"", PUBLIC),
        (DOCUMENT, SIGNATURE, b"x" * 31),
        (DOCUMENT, SIGNATURE, Ed25519PrivateKey.generate().public_key().public_bytes_raw()),
        (b"[]", KEY.sign(b"[]"), PUBLIC),
        (b"no json", KEY.sign(b"no json"), PUBLIC),
    ],
)
def test_anything_else_is_refused(document: bytes, signature: bytes, key: bytes) -> None:
    with pytest.raises(ReceiptForged, match="does not bear the server's signature"):
        checked(BUILD, document, signature, key)


def test_another_build_s_receipt_is_refused() -> None:
    with pytest.raises(ReceiptForged):
        checked("aaaaaaaaaa", DOCUMENT, SIGNATURE, PUBLIC)
