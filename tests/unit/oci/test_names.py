import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.oci.digest import Digest, InvalidDigest
from layover.oci.names import (
    MAX_NAME_LENGTH,
    InvalidRepositoryName,
    InvalidTag,
    RepositoryName,
    Tag,
    parse_reference,
)

# distribution-spec v1.1.1, "Pulling manifests", as it is written there.
COMPONENT = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", fullmatch=True)
SPEC_TAG = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True)


@given(components=st.lists(COMPONENT, min_size=1, max_size=5))
def test_every_name_of_the_specifications_grammar_is_taken(components: list[str]) -> None:
    text = "/".join(components)
    if len(text) > MAX_NAME_LENGTH:
        with pytest.raises(InvalidRepositoryName):
            RepositoryName.parse(text)
        return
    name = RepositoryName.parse(text)
    assert str(name) == text
    assert name.project_id == components[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "a/B",
        "a/../b",
        "../a",
        "a/.",
        "a/..",
        ".a",
        "a.",
        "a..b",
        "a___b",
        "_a",
        "a_",
        "-a",
        "a-",
        "a b",
        "a\nb",
        "a\n",
        "a\0",
        "a%2fb",
        "a\\b",
        "a:b",
        "a@b",
        "a\r\nX-Header: b",
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
        "a/\N{ARABIC-INDIC DIGIT ONE}",
        "a" * (MAX_NAME_LENGTH + 1),
    ],
)
def test_what_is_no_repository_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidRepositoryName):
        RepositoryName.parse(text)


def test_the_longest_name_is_taken() -> None:
    assert RepositoryName.parse("a" * MAX_NAME_LENGTH)


def test_a_name_that_nearly_matches_is_refused_at_once() -> None:
    # A regular expression that tries every split of the name would not come back from this.
    with pytest.raises(InvalidRepositoryName):
        RepositoryName.parse("a-_" * 84)
    with pytest.raises(InvalidRepositoryName):
        RepositoryName.parse("a" + "-" * 253)


@given(text=SPEC_TAG)
def test_every_tag_of_the_specifications_grammar_is_taken(text: str) -> None:
    assert parse_reference(text) == Tag.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", ".a", "-a", "a/b", "a b", "a\n", "a\0", "a" * 129, "\N{LATIN SMALL LETTER E WITH ACUTE}"],
)
def test_what_is_no_tag_is_refused(text: str) -> None:
    with pytest.raises(InvalidTag):
        Tag.parse(text)


def test_a_reference_with_a_colon_is_a_digest_or_nothing() -> None:
    digest = Digest.of(b"", "sha512")
    assert parse_reference(str(digest)) == digest
    with pytest.raises(InvalidDigest):
        parse_reference("a:b")


@given(text=st.text())
def test_any_text_is_a_reference_or_one_of_two_errors(text: str) -> None:
    try:
        assert str(parse_reference(text)) == text
    except (InvalidTag, InvalidDigest) as error:
        assert len(str(error)) < 3000
