"""Passwords: hashed with argon2id, and looked at by few threads at a time.

A hash costs memory on purpose, so how many are computed at once is bounded, and how many wait for
that too: a flood of sign-ins takes neither all of the memory nor all of the time.
"""

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from layover.identity.sign_in_models import InvalidPassword
from layover.identity.throttle import TooManyAttempts

Result = TypeVar("Result")

MIN_LENGTH = 12
# Characters; of a few bytes each. No passphrase is longer, and a hash takes time with its input.
MAX_LENGTH = 256

# 32 MiB and about 50 ms a hash; above what OWASP's "Password Storage Cheat Sheet" asks for.
_MEMORY_KIB = 32 * 1024
_ROUNDS = 3

_AT_ONCE = 2
_WAITING = 32

_hasher = PasswordHasher(time_cost=_ROUNDS, memory_cost=_MEMORY_KIB, parallelism=1)


class Passwords:
    """Hashes and verifies. Close it at the end."""

    def __init__(self, hasher: PasswordHasher = _hasher) -> None:
        self._hasher = hasher
        # What a password is compared with where there is no user: of the same cost.
        self._nobodys = hasher.hash("nobody signs in with this")
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="argon2")
        self._busy = 0

    def close(self) -> None:
        """Wait for what is being computed."""
        self._threads.shutdown()

    async def hash(self, password: str) -> str:
        """The password's encoding to store. Raises InvalidPassword, TooManyAttempts."""
        normal = check_password(password)
        return await self._run(lambda: self._hasher.hash(normal))

    async def verify(self, encoded: str | None, password: str) -> bool:
        """Whether the password is the one of this encoding; None takes as long, and is never.

        Raises TooManyAttempts when so many wait that this one would wait for too long.
        """

        def look() -> bool:
            try:
                found = self._hasher.verify(
                    encoded or self._nobodys,
                    _normal(password)[: MAX_LENGTH + 1].encode(errors="replace"),
                )
            except (Argon2Error, InvalidHashError):
                return False
            return found and encoded is not None

        return await self._run(look)

    def is_outdated(self, encoded: str) -> bool:
        """Whether the encoding is of another cost than those that are made now."""
        return self._hasher.check_needs_rehash(encoded)

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._busy >= _AT_ONCE + _WAITING:
            raise TooManyAttempts(timedelta(seconds=5))
        self._busy += 1
        done = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # A caller who leaves does not make its thread any freer.
        done.add_done_callback(self._count_off)
        return await asyncio.shield(done)

    def _count_off(self, done: "asyncio.Future[Result]") -> None:
        self._busy -= 1
        if not done.cancelled():
            # Looked at, so that one whose caller left is not reported as lost.
            done.exception()


def check_password(password: str) -> str:
    """The password in the form that is hashed. Raises InvalidPassword."""
    normal = _normal(password)
    if len(normal) < MIN_LENGTH:
        raise InvalidPassword(f"a password has at least {MIN_LENGTH} characters")
    if len(normal) > MAX_LENGTH:
        raise InvalidPassword(f"a password has at most {MAX_LENGTH} characters")
    if len(set(normal)) < 3:
        raise InvalidPassword("a password has more than two different characters")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in normal):
        raise InvalidPassword("a password has no control characters")
    return normal


def _normal(password: str) -> str:
    """Alike on every keyboard (NIST SP 800-63B, section 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)
