"""Image references are read as Docker reads them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.client.references import Image, InvalidImage, is_id
from layover.errors import LayoverError

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("app", ("", "app", "", "")),
        ("app:1.0", ("", "app", "1.0", "")),
        ("user/app:1.0", ("", "user/app", "1.0", "")),
        ("localhost/app", ("localhost", "app", "", "")),
        ("localhost:5000/app:1", ("localhost:5000", "app", "1", "")),
        ("h.example/a/b:1", ("h.example", "a/b", "1", "")),
        ("[::1]:5000/app:1", ("[::1]:5000", "app", "1", "")),
        (f"h.example/a@{DIGEST}", ("h.example", "a", "", DIGEST)),
        (f"h.example:1/a:b@{DIGEST}", ("h.example:1", "a", "b", DIGEST)),
    ],
)
def test_each_part_is_found(text: str, parts: tuple[str, str, str, str]) -> None:
    image = Image.parse(text)
    assert (image.host, image.repository, image.tag, image.digest) == parts
    assert str(image) == text


@pytest.mark.parametrize(
    "text", ["", ":", "a:", "a:b:c", "A", "h.example/", "h.example/:1", "a@", "a@b", "a@sha256:1"]
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(LayoverError):
        Image.parse(text)


@given(st.text(max_size=40))
def test_nothing_but_our_error_comes_of_any_text(text: str) -> None:
    with contextlib.suppress(LayoverError):
        assert str(Image.parse(text)) == text


def test_a_name_without_a_repository_says_so() -> None:
    with pytest.raises(InvalidImage, match="no repository"):
        Image.parse("h.example/:1")


def test_a_version_is_the_digest_then_the_tag_then_latest() -> None:
    assert Image.parse(f"a:b@{DIGEST}").version == DIGEST
    assert Image.parse("a:b").version == "b"
    assert Image.parse("a").version == "latest"


def test_an_id_is_ten_base32_characters() -> None:
    assert is_id("abcdefgh27")
    for text in ("abcdefgh2", "abcdefgh278", "ABCDEFGH27", "abcdefgh18", ""):
        assert not is_id(text)
