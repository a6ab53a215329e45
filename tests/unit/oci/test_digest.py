import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.oci.digest import Digest, InvalidDigest, new_hash

HEX = "0123456789abcdef"


@given(content=st.binary(max_size=1024), algorithm=st.sampled_from(["sha256", "sha512"]))
def test_a_digest_is_read_back_from_its_text(content: bytes, algorithm: str) -> None:
    digest = Digest.of(content, algorithm)
    assert Digest.parse(str(digest)) == digest
    assert digest.hex == hashlib.new(algorithm, content).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "SHA256:" + "a" * 64,
        "sha512:" + "a" * 64,
        "sha256:" + "a" * 128,
        "sha384:" + "a" * 96,
        "md5:" + "a" * 32,
        "sha256:" + "a" * 64 + "\n",
        " sha256:" + "a" * 64,
        "sha256:" + "\N{FULLWIDTH DIGIT ONE}" * 64,
        "sha256:../../../../etc/passwd".ljust(71, "/"),
        "sha256+b64:" + "a" * 64,
    ],
)
def test_what_is_no_digest_that_can_be_verified_is_refused(text: str) -> None:
    with pytest.raises(InvalidDigest):
        Digest.parse(text)


@given(text=st.text())
def test_reading_any_text_gives_a_digest_or_one_error(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except InvalidDigest as error:
        assert len(str(error)) < 2000
    else:
        assert str(digest) == text


def test_an_error_repeats_no_more_than_the_start_of_a_long_text() -> None:
    with pytest.raises(InvalidDigest) as refused:
        Digest.parse("x" * 1_000_000)
    assert len(str(refused.value)) < 400


@given(parts=st.lists(st.binary(max_size=64)))
def test_a_hash_fed_in_parts_is_the_hash_of_the_whole(parts: list[bytes]) -> None:
    hash_ = new_hash("sha512")
    for part in parts:
        hash_.update(part)
    assert Digest(hash_.name, hash_.hexdigest()) == Digest.of(b"".join(parts), "sha512")
