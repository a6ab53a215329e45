"""Text of strangers, as it may stand in the audit log: short, printable, and no secret."""

import re

from layover.identity.ids import TOKEN_PREFIX, public_part
from layover.redaction import redact

LONGEST = 256

# Whatever looks like a token of ours, wherever it was put: as a project's name, as a build's ID.
# Its beginning stays, which tells it from others.
_TOKEN = re.compile(TOKEN_PREFIX + r"[a-z2-7]{16,32}", re.IGNORECASE)

# What is looked at of a text at all, however long it is.
_LOOKED_AT = 4 * LONGEST


def cleaned(text: str, longest: int = LONGEST) -> str:
    """`text` without secrets, cut, and with nothing in it that drives a terminal.

    Control characters, and those that make text read in another order than it is written, become
    U+FFFD.
    """
    text = redact(_TOKEN.sub(_beginning, text[:_LOOKED_AT]))
    if len(text) > longest:
        text = f"{text[: longest - 1]}…"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


def _beginning(token: re.Match[str]) -> str:
    return f"{public_part(token[0].lower())}***"
