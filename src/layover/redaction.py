"""Takes secrets out of text that is about to be read: logs, errors, what a bug prints.

What to look for is what secrets look like: tokens of ours, JSON Web Tokens, what stands behind
`Authorization`, `Basic` and `Bearer`, a URL's user and signature, whatever is called a password,
secret or token, private keys and password hashes. A secret that looks like nothing of this, alone
in a text, cannot be told from a word: it must not get there in the first place.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

REDACTED = "[redacted]"

# A quote, also one inside of a text that was quoted itself.
_QUOTE = r"""\\?["']"""

_CONFIDENTIAL = (
    r"(?:password|passwd|passphrase|pwd|secret|token|signature|credential"
    r"|(?:secret|access|api|private)[_-]?key)s?"
)
_HEADER_NAMES = r"(?:proxy-)?authorization|x-registry-(?:auth|config)|(?:set-)?cookie"

# In this order: an earlier one leaves nothing of what it finds for a later one to find in part.
# Each takes a time that grows with the text alone: what is logged may be a stranger's word.
_PATTERNS = (
    (r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", REDACTED),
    # Also one that was cut, of which a dozen characters would help nobody.
    (r"layover_[a-z0-9]{12,}", REDACTED),
    # "x-token:" in Base64, as in Basic credentials and in Docker's configuration; a JSON object
    # in Base64, as a JSON Web Token begins, and Docker's X-Registry-Auth.
    (r"(?-i:eC10b2tlbj)[a-z0-9+/_-]{4,}={0,2}", REDACTED),
    (r"(?-i:eyJ)[a-z0-9+/_=-]{6,}(?:\.[a-z0-9+/_=-]*)*", REDACTED),
    (r"\$argon2[a-z]*\$[^\s\"']+", REDACTED),
    (
        rf"((?:{_HEADER_NAMES})(?:{_QUOTE}\s*[:=,]|\s*[:=])\s*b?(?:{_QUOTE})?)[^\r\n\"']+",
        rf"\1{REDACTED}",
    ),
    # Not of prose, as in "malformed Basic credentials", nor of a challenge.
    (
        r"\b(basic|bearer)(\s+)(?!realm=)"
        r"(?=\S*[0-9=+]|(?-i:\S*[a-z][A-Z])|\S{20})[a-z0-9._~+/=-]{4,}",
        rf"\1\2{REDACTED}",
    ),
    # What libpq takes for a password need not be one by the rules for URLs.
    (r"(postgres(?:ql)?(?:\+\w{1,20})?://)\S{1,500}@", rf"\1{REDACTED}@"),
    (r"(://)[^\s/?#\"'<>]+@", rf"\1{REDACTED}@"),
    (r"([?&](?:sig|code|state|key)=)[^&\s\"']+", rf"\1{REDACTED}"),
    (
        rf"({_CONFIDENTIAL}(?:(?:{_QUOTE})?\s*=\s*|{_QUOTE}\s*:\s*)b?)"
        r"(\\?\"(?:[^\"\\]|\\[^\"])*\\?(?:\"|\Z)|\\?'(?:[^'\\]|\\[^'])*\\?(?:'|\Z)"
        r"|[^\s,;&\"')}\]]+)",
        rf"\1{REDACTED}",
    ),
)

# Every text that one of the patterns finds has one of these in it, in lower case: most have none,
# and looking for them is quick.
_SIGNS = (
    *("layover_", "ec10b2tlbj", "eyj", "argon2", "://", "private key", "authorization", "cookie"),
    *("x-registry-", "basic", "bearer", "passw", "passphrase", "pwd", "secret", "token"),
    *("signature", "credential", "_key", "-key", "esskey", "apikey", "privatekey"),
    *("sig=", "code=", "state=", "key="),
)

_SECRET_NAME = re.compile(rf"(?:.*[_-])?(?:{_CONFIDENTIAL}|{_HEADER_NAMES})", re.IGNORECASE)


@cache
def _compiled() -> list[tuple[re.Pattern[str], str]]:
    """Made when first needed: most commands end without."""
    return [(re.compile(pattern, re.I | re.S), replacement) for pattern, replacement in _PATTERNS]


def may_hold_secrets(text: str) -> bool:
    """Whether it is worth a closer look."""
    text = text.lower()
    return any(sign in text for sign in _SIGNS)


def redact(text: str) -> str:
    """The text without the secrets in it."""
    if may_hold_secrets(text):
        for pattern, replacement in _compiled():
            text = pattern.sub(replacement, text)
    return text


def redact_value(value: object) -> object:
    """A value without the secrets in it, however deep; what is neither text, number nor made of
    them becomes text."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return redact(value)
        case Mapping():
            return redact_fields(value)
        case list() | tuple() | set() | frozenset():
            return [redact_value(item) for item in value]
        case _:
            return redact(repr(value))


def redact_fields(fields: Mapping[Any, object]) -> dict[str, object]:
    """Facts by their names without the secrets in them; whose name says that it is one is."""
    return {
        redact(str(name)): (
            REDACTED
            if value and _SECRET_NAME.fullmatch(str(name)) and isinstance(value, str | bytes)
            else redact_value(value)
        )
        for name, value in fields.items()
    }
