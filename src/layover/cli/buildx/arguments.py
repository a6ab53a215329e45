"""Reading a command line as buildx would, without knowing all of its flags.

Layover's own flags and those that it has to know about are taken out; the rest reaches buildx
word for word. buildx parses as pflag does: `--flag value`, `--flag=value`, `-fvalue`, flags
and positions mixed, `--` ends the flags. A flag that is not a known switch takes a value,
which is what nearly all of buildx's flags do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from layover.cli.errors import WrongUsage

# buildx 0.38: the switches of `build` and `bake`, hidden and deprecated ones included.
SWITCHES = frozenset(
    {
        *("--check", "--compress", "--debug", "--disable-content-trust", "--force-rm", "--help"),
        *("--load", "--no-cache", "--print", "--pull", "--push", "--quiet", "--rm", "--squash"),
        *("--detach", "--list-targets", "--list-variables"),
        *("-D", "-h", "-q"),
    }
)
# `build --print` takes a value, `bake --print` is a switch.
BUILD_SWITCHES = SWITCHES - {"--print"}

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


@dataclass(frozen=True, slots=True)
class Word:
    """A flag with its value, or a position (then `flag` is empty)."""

    flag: str
    value: str
    raw: tuple[str, ...]
    # What stands in for a switch's value is not written down.
    is_switch: bool = False


def scan(arguments: Sequence[str], switches: frozenset[str], own: frozenset[str]) -> list[Word]:
    """Cut a command line into flags and positions, in their order.

    `own` are the switches that are Layover's. Raises WrongUsage when a value is missing.
    """
    words: list[Word] = []
    rest = list(arguments)
    switches = switches | own
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            # The mark itself is kept, so that buildx reads what follows as we did.
            words.append(Word("", "", ("--",), is_switch=True))
            words += [Word("", position, (position,)) for position in rest]
            break
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            if equals:
                words.append(Word(name, value, (argument,), name in switches))
            elif name in switches:
                words.append(Word(name, "true", (argument,), is_switch=True))
            else:
                value = _value_of(name, rest)
                words.append(Word(name, value, (argument, value)))
        elif argument.startswith("-") and argument != "-":
            words += _scan_short(argument, rest, switches)
        else:
            words.append(Word("", argument, (argument,)))
    return words


def _scan_short(argument: str, rest: list[str], switches: frozenset[str]) -> Iterable[Word]:
    letters = argument[1:]
    while letters:
        name, letters = f"-{letters[0]}", letters[1:]
        if letters.startswith("="):
            yield Word(name, letters[1:], (f"{name}{letters}",), name in switches)
            return
        if name in switches:
            yield Word(name, "true", (name,), is_switch=True)
        elif letters:
            yield Word(name, letters, (f"{name}{letters}",))
            return
        else:
            value = _value_of(name, rest)
            yield Word(name, value, (name, value))


def _value_of(name: str, rest: list[str]) -> str:
    if not rest:
        raise WrongUsage(f"{name} needs a value")
    return rest.pop(0)


class CommandLine:
    """A scanned command line, and what was taken out of it."""

    def __init__(self, words: Iterable[Word], aliases: Mapping[str, str]) -> None:
        self._words = [
            Word(aliases.get(word.flag, word.flag), word.value, word.raw, word.is_switch)
            for word in words
        ]

    def take(self, *flags: str) -> list[str]:
        """Take flags out, and give their values in order."""
        taken = [word.value for word in self._words if word.flag in flags]
        self._words = [word for word in self._words if word.flag not in flags]
        return taken

    def take_last(self, flag: str) -> str:
        """Take a flag out; the last one counts, and an empty text means that there is none."""
        return next(reversed(self.take(flag)), "")

    def take_switch(self, flag: str) -> bool:
        """Take a switch out; the last one counts. Raises WrongUsage for `--flag=perhaps`."""
        values = self.take(flag)
        return parse_switch(flag, values[-1]) if values else False

    def values(self, *flags: str) -> list[str]:
        """The values of flags that stay."""
        return [word.value for word in self._words if word.flag in flags]

    def last(self, flag: str) -> str:
        """The value of a flag that stays; the last one counts."""
        return next(reversed(self.values(flag)), "")

    def switch(self, flag: str) -> bool:
        """Whether a switch that stays is on."""
        values = self.values(flag)
        return parse_switch(flag, values[-1]) if values else False

    @property
    def positions(self) -> list[str]:
        """The arguments that are no flags."""
        return [w.value for w in self._words if not w.flag and not w.is_switch]

    @property
    def rest(self) -> list[str]:
        """What is left, as buildx gets it."""
        return [part for word in self._words for part in word.raw]

    @property
    def rest_without_positions(self) -> list[str]:
        """What is left of the flags."""
        return [part for word in self._words if word.flag for part in word.raw]


def asked_call(line: CommandLine, *names: str) -> str:
    """What buildx is to tell instead of building, as `check`; empty when it is to build.

    `names` are the flags that take it as a value.
    """
    if line.switch("--check"):
        return "check"
    return call_of(next((v for v in reversed(line.values(*names)) if v), ""))


def call_of(text: str) -> str:
    """The method of a `--call` value, as `outline,format=json`; empty when that is to build."""
    name = next((part for part in text.split(",") if "=" not in part), "")
    return "" if name == "build" else name


def parse_switch(flag: str, text: str) -> bool:
    """Read a switch's value as Go does."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise WrongUsage(f"{flag} is on or off: {text!r} is neither true nor false")
