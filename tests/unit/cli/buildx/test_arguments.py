"""A command line is read as buildx reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.cli.buildx.arguments import (
    BUILD_SWITCHES,
    SWITCHES,
    CommandLine,
    asked_call,
    parse_switch,
    scan,
)
from layover.cli.errors import WrongUsage

OWN = frozenset({"--save"})


def line(*arguments: str) -> CommandLine:
    return CommandLine(scan(arguments, BUILD_SWITCHES, OWN), {"-t": "--tag", "-f": "--file"})


# Values that begin with a dash are values too: `--build-arg -x` sets one.
VALUES = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=8)
FLAGS = st.sampled_from(["--build-arg", "--platform", "--tag", "--unheard-of"])
PART = st.one_of(
    st.tuples(FLAGS, VALUES).map(list),
    st.tuples(FLAGS, VALUES).map(lambda pair: [f"{pair[0]}={pair[1]}"]),
    st.sampled_from([["--no-cache"], ["--pull=false"], ["--save"], ["-t", "x"], ["-fx"], ["."]]),
)


@given(st.lists(PART, max_size=8), st.lists(VALUES, max_size=3), st.booleans())
def test_what_nobody_takes_reaches_buildx_word_for_word(
    parts: list[list[str]], positions: list[str], has_mark: bool
) -> None:
    arguments = [word for part in parts for word in part]
    if has_mark:
        arguments += ["--", *positions]
    assert CommandLine(scan(arguments, BUILD_SWITCHES, OWN), {}).rest == arguments


@given(st.lists(PART, max_size=8))
def test_taking_a_flag_takes_all_of_it_and_nothing_else(parts: list[list[str]]) -> None:
    arguments = [word for part in parts for word in part]
    parsed = line(*arguments)
    parsed.take("--save")
    assert parsed.rest == [word for part in parts if part != ["--save"] for word in part]


def test_both_spellings_of_a_value_are_the_same() -> None:
    for arguments in (["-t", "a:1"], ["-ta:1"], ["-t=a:1"], ["--tag", "a:1"], ["--tag=a:1"]):
        parsed = line(*arguments, ".")
        assert parsed.take("--tag") == ["a:1"]
        assert parsed.rest == ["."]


def test_short_switches_are_joined_with_a_flag_that_takes_a_value() -> None:
    parsed = line("-qt", "a:1", ".")
    assert parsed.take("--tag") == ["a:1"]
    assert parsed.rest == ["-q", "."]


def test_a_value_is_never_a_position() -> None:
    parsed = line("--platform", "linux/arm64", "--no-cache", "context", "-f", "Dockerfile.other")
    assert parsed.positions == ["context"]
    assert parsed.last("--file") == "Dockerfile.other"


def test_what_follows_the_mark_is_a_position_whatever_it_looks_like() -> None:
    parsed = line("--save", "--", "--save")
    assert parsed.positions == ["--save"]
    assert parsed.take_switch("--save")
    assert parsed.rest == ["--", "--save"]


def test_a_dash_alone_is_standard_input() -> None:
    assert line("-").positions == ["-"]


def test_print_is_a_switch_of_bake_alone() -> None:
    assert CommandLine(scan(["--print", "app"], SWITCHES, OWN), {}).positions == ["app"]
    assert line("--print", "outline", ".").positions == ["."]


def test_the_last_of_a_flag_counts() -> None:
    assert line("--url=a", "--url", "b").take_last("--url") == "b"
    assert not line("--save", "--save=false").take_switch("--save")


def test_a_flag_without_its_value_is_wrong_usage() -> None:
    for arguments in (["--tag"], ["-t"]):
        with pytest.raises(WrongUsage, match="needs a value"):
            line(*arguments)


def test_a_switch_that_is_neither_on_nor_off_is_wrong_usage() -> None:
    assert parse_switch("--save", "T")
    with pytest.raises(WrongUsage, match="perhaps"):
        line("--save=perhaps").take_switch("--save")


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        ([], ""),
        (["--check"], "check"),
        (["--check=false"], ""),
        (["--call", "build"], ""),
        (["--call=outline,format=json"], "outline"),
        (["--call=format=json,build"], ""),
        (["--call=check", "--call=build"], ""),
        (["--print=targets"], "targets"),
        (["--call="], ""),
    ],
)
def test_a_command_line_that_only_asks_is_known(arguments: list[str], call: str) -> None:
    assert asked_call(line(*arguments), "--call", "--print") == call
