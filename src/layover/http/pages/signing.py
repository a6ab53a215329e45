"""What the server hands to a browser and gets back: signed, for one purpose, and for a while."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

KEY_BYTES = 32

_LONGEST = 4096


class Signer:
    """Signs with a key that every replica has. What it signs is not secret."""

    def __init__(self, key: bytes, now: Callable[[], datetime]) -> None:
        self._key, self._now = key, now

    def derive(self, purpose: str, text: str) -> str:
        """What only this server can say of `text`: the same each time."""
        message = f"{purpose}\0{text}".encode(errors="replace")
        digest = hmac.digest(self._key, message, hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def is_derived(self, purpose: str, text: str, told: str) -> bool:
        """Whether `told` is that, compared in a time that does not depend on it."""
        return hmac.compare_digest(
            self.derive(purpose, text).encode(), told.encode(errors="replace")
        )

    def sign(self, purpose: str, facts: Mapping[str, str], lifetime: timedelta) -> str:
        """The facts as a text that `read` gives back."""
        until = int((self._now() + lifetime).timestamp())
        content = json.dumps({"until": until, "facts": dict(facts)}).encode()
        text = base64.urlsafe_b64encode(content).rstrip(b"=").decode()
        return f"{text}.{self.derive(purpose, text)}"

    def read(self, purpose: str, signed: str) -> dict[str, str] | None:
        """The facts that were signed for this purpose; None for anything else, and when over."""
        text, _, signature = signed.partition(".")
        if len(signed) > _LONGEST or not self.is_derived(purpose, text, signature):
            return None
        try:
            content = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (binascii.Error, ValueError):
            return None
        facts: dict[str, str] = content["facts"]
        return facts if self._now().timestamp() < content["until"] else None
