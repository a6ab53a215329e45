"""A challenge is read as RFC 9110 has it, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.client.auth_challenges import Challenge, ChallengesInvalid, parse_challenges

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
BEARER = Challenge(
    "bearer", {"realm": "https://auth.docker.io/token", "service": "registry.docker.io"}
)
BASIC = Challenge("basic", {"realm": "x"})


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], ()),
        ([""], ()),
        ([HUB], (BEARER,)),
        ([HUB.replace("Bearer", "BEARER").replace("realm", "Realm")], (BEARER,)),
        ([f'{HUB}, Basic realm="x"'], (BEARER, BASIC)),
        ([HUB, "Basic realm=x"], (BEARER, BASIC)),
        (['Basic realm="x",' + HUB], (BASIC, BEARER)),
        (['  ,, Basic  realm = "x" , , '], (BASIC,)),
        (["Negotiate, Basic realm=x"], (Challenge("negotiate"), BASIC)),
        (["Negotiate YWJj==,Basic realm=x"], (Challenge("negotiate"), BASIC)),
        (["Negotiate"], (Challenge("negotiate"),)),
        (
            [r'Basic realm="a \"quoted\" \\, Bearer realm=b"'],
            (Challenge("basic", {"realm": r'a "quoted" \, Bearer realm=b'}),),
        ),
        (
            ['Bearer scope="repository:a:pull,push",realm="https://b"'],
            (Challenge("bearer", {"scope": "repository:a:pull,push", "realm": "https://b"}),),
        ),
        (['Basic realm=""'], (Challenge("basic", {"realm": ""}),)),
    ],
)
def test_what_registries_say(values: list[str], found: tuple[Challenge, ...]) -> None:
    assert parse_challenges(values) == found


@pytest.mark.parametrize(
    "value",
    [
        'realm="x"',
        'Bearer realm="x',
        'Bearer realm="x"y',
        'Bearer realm="x" service="y"',
        'Bearer realm="a",realm="b"',
        'Bearer realm="a",REALM="b"',
        'Bearer realm="a\nb"',
        'Bearer realm="a\x00"',
        "Bearer =x",
        "Bearer realm=https://unquoted",
        '"Bearer"',
        "Bearer;realm=x",
        "Bearer realm=" + "x" * 20_000,
    ],
)
def test_what_could_be_read_in_two_ways_is_not_read(value: str) -> None:
    with pytest.raises(ChallengesInvalid):
        parse_challenges([value])


WORDS = st.text("abcXYZ019!#$%&'*+.^_`|~-", min_size=1, max_size=12)
# Neither control characters nor what no header can hold.
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"))
CHALLENGES = st.lists(
    st.builds(
        Challenge,
        WORDS.map(str.lower),
        st.dictionaries(WORDS.map(str.lower), TEXTS, max_size=4),
    ),
    max_size=4,
)


def written(challenge: Challenge, joined: str) -> str:
    parameters = joined.join(
        f'{name}="{value}"'
        for name, value in (
            (name, value.replace("\\", "\\\\").replace('"', '\\"'))
            for name, value in challenge.parameters.items()
        )
    )
    return f"{challenge.scheme} {parameters}".strip()


@given(CHALLENGES, st.sampled_from([",", ", ", " ,\t", ",,"]), st.booleans())
def test_what_is_written_is_read_again(
    challenges: list[Challenge], joined: str, one_header: bool
) -> None:
    values = [written(challenge, joined) for challenge in challenges]
    read = parse_challenges([joined.join(values)] if one_header else values)
    assert list(read) == challenges


@given(st.text(st.sampled_from('Bearer Basic="x",\\ \t=\x00é')), st.text())
def test_no_text_does_worse_than_to_be_refused(near: str, far: str) -> None:
    for text in (near, far):
        try:
            found = parse_challenges([text])
        except ChallengesInvalid:
            continue
        assert all(challenge.scheme == challenge.scheme.lower() for challenge in found)
