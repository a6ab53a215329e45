"""What a registry answered, read within bounds, and what of its words a user may be told."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from layover.oci.digest import Digest, InvalidDigest
from layover.promotion.models import Authorization
from layover.redaction import redact

MAX_ERROR_BYTES = 64 * 1024

_LONGEST_TOLD = 400
_MOST_ERRORS = 3

# More than any host and path have; what is longer is somebody's joke.
_LONGEST_LOCATION = 16 * 1024

# distribution-spec v1.1.1 has `0-N`; some put the unit before it.
_RANGE = re.compile(r"\s*(?:bytes[= ])?\s*([0-9]{1,18})-([0-9]{1,18})\s*")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, whole or as much of it as was to be read."""

    status: int
    headers: httpx.Headers
    url: httpx.URL
    """What answered, behind redirects."""
    is_foreign: bool
    """Whether it is another host's than the registry's own, which is shown no authorization."""
    body: bytes = b""
    is_cut: bool = False
    """Whether there was more of the body."""
    shown: Authorization | None = field(default=None, repr=False)
    """What it was shown, which is not to be told."""

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def told(self) -> str:
        """What the registry says about an error, in part, as it may be shown; else empty.

        What another host says is nobody's to read: a registry could lead to one that the server
        reaches and its users do not.
        """
        if self.is_foreign:
            return ""
        message = _message(self.headers.get("content-type", ""), self.body)
        return "" if self._has_secret(message) else cleaned(message)

    @property
    def digest(self) -> str:
        """`Docker-Content-Digest`, empty without."""
        text = str(self.headers.get("docker-content-digest", "")).strip()
        try:
            return str(Digest.parse(text))
        except InvalidDigest:
            return "" if self._has_secret(text) else text

    def _has_secret(self, text: str) -> bool:
        """Whether a registry says back what it was shown, as some do for debugging."""
        return self.shown is not None and any(secret in text for secret in self.shown.secrets)

    def denies(self, digest: Digest) -> bool:
        """Whether it says that it has something else than what `digest` names."""
        algorithm = f"{digest.algorithm}:"
        return self.digest.startswith(algorithm) and self.digest != str(digest)

    @property
    def location(self) -> httpx.URL | None:
        """Where it sends one; None without, or where that is no address. Raises nothing."""
        text = self.headers.get("location")
        if not text or len(text) > _LONGEST_LOCATION:
            return None
        try:
            found = self.url.join(text)
        except (httpx.InvalidURL, ValueError):
            return None
        if found.scheme not in ("http", "https") or not found.host or found.userinfo:
            return None
        if found.port is not None and not 0 < found.port < 65536:
            return None
        return found.copy_with(fragment=None)

    @property
    def end(self) -> int | None:
        """How many bytes of an upload it says that it has; None where it does not say.

        `0-0` stands for none, as most registries mean it: one of a single byte begins anew.
        """
        match = _RANGE.fullmatch(self.headers.get("range", ""))
        if match is None:
            return None
        last = int(match[2])
        return last + 1 if last else 0


async def read_bounded(response: httpx.Response, max_bytes: int) -> tuple[bytes, bool]:
    """As much of an answer's content as that, and whether there was more.

    What is compressed, which was not asked for, reads as nothing.
    """
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        return b"", True
    content = bytearray()
    async for part in response.aiter_raw():
        content += part
        if len(content) > max_bytes:
            return bytes(content[:max_bytes]), True
    return bytes(content), False


def cleaned(text: str) -> str:
    """A stranger's text in one line of bounded length, with no secret in it and nothing that
    drives a terminal."""
    text = redact(" ".join(text[: 8 * _LONGEST_TOLD].split()))
    text = "".join(each for each in text if each.isprintable())
    return text if len(text) <= _LONGEST_TOLD else f"{text[: _LONGEST_TOLD - 1]}…"


def _message(media_type: str, body: bytes) -> str:
    """The messages of the errors (distribution-spec v1.1.1, "Error Codes"), or plain text."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        is_text = media_type.split(";")[0].strip().lower() == "text/plain"
        return body.decode(errors="replace") if is_text else ""
    errors = document.get("errors") if isinstance(document, Mapping) else None
    if not isinstance(errors, list):
        return ""
    return "; ".join(filter(None, map(_said, errors[:_MOST_ERRORS])))


def _said(error: object) -> str:
    if not isinstance(error, Mapping):
        return ""
    code, message = (
        value.strip() if isinstance(value := error.get(name), str) else ""
        for name in ("code", "message")
    )
    return f"{code}: {message}" if code and message else code or message
