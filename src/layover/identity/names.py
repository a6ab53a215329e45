"""What people call things: organizations, projects, tokens, invitations."""

import unicodedata

from layover.identity.models import ManagementError

MAX_NAME = 100
MAX_DESCRIPTION = 200

# Unicode's general categories of what is not seen, or changes how its neighbours are: control and
# format characters (those that turn the direction of writing are these), surrogates, private and
# unassigned characters, and the separators of lines and paragraphs.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class InvalidName(ManagementError):
    """A name or a description that cannot be told apart, shown on a line, or kept."""


def checked_name(text: str, what: str) -> str:
    """The name, without spaces around it. Raises InvalidName; `what` is as "a project's name"."""
    return _checked(text, what, 1, MAX_NAME)


def checked_description(text: str, what: str) -> str:
    """As `checked_name`, of a sentence that may be left out."""
    return _checked(text, what, 0, MAX_DESCRIPTION)


def _checked(text: str, what: str, shortest: int, longest: int) -> str:
    # What looks alike is alike: an accent is one character, however it was typed.
    name = unicodedata.normalize("NFC", text[: 4 * longest]).strip()
    if len(text) > 4 * longest or not shortest <= len(name) <= longest:
        raise InvalidName(
            f"{what} has to have {shortest} to {longest} characters"
            if shortest
            else f"{what} can have {longest} characters at most"
        )
    for character in name:
        if unicodedata.category(character) in _UNSEEN:
            raise InvalidName(
                f"{what} has a character that cannot be seen, U+{ord(character):04X}: leave it out"
            )
    return name
