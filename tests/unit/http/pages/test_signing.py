import base64
import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.http.pages.signing import Signer
from tests.unit.identity.clock import Clock

KEY = b"k" * 32
MINUTE = timedelta(minutes=1)


def test_what_was_signed_is_read_for_its_purpose_and_in_its_time() -> None:
    clock = Clock()
    signer = Signer(KEY, clock)
    signed = signer.sign("one", {"state": "x"}, MINUTE)
    assert signer.read("one", signed) == {"state": "x"}
    assert Signer(KEY, clock).read("one", signed) == {"state": "x"}
    assert signer.read("other", signed) is None
    assert Signer(b"l" * 32, clock).read("one", signed) is None
    clock.advance(MINUTE)
    assert signer.read("one", signed) is None


def test_what_was_changed_is_not_read() -> None:
    signer = Signer(KEY, Clock())
    text, _, signature = signer.sign("one", {"state": "x"}, MINUTE).partition(".")
    forged = base64.urlsafe_b64encode(
        json.dumps({"until": 2**40, "facts": {"state": "y"}}).encode()
    ).decode()
    for changed in (f"{forged}.{signature}", f"{text}.{signature}=", f"{text}.", text, f".{text}"):
        assert signer.read("one", changed) is None


@given(st.text(max_size=100))
def test_nothing_that_a_stranger_sends_is_read(text: str) -> None:
    signer = Signer(KEY, Clock())
    assert signer.read("one", text) is None
    assert not signer.is_derived("one", "a", text)


@pytest.mark.parametrize("pair", [("a", "b\0c"), ("a\0b", "c")])
def test_what_is_derived_is_of_one_text(pair: tuple[str, str]) -> None:
    signer = Signer(KEY, Clock())
    told = signer.derive(*pair)
    assert signer.is_derived(*pair, told)
    assert not signer.is_derived("a", "c", told)
