"""Slows down who guesses tokens and passwords.

Failed logins are counted by the address that they come from, by a token's first characters, and by
user name, and each is answered the later, the more there were lately; past a limit they are
refused. Counts are each replica's own, in memory of a bounded size, and forgotten by a restart:
they make guessing slow, and what makes it hopeless is the length of a token and the hash of a
password.

A token is random: one that is valid was not guessed, and passes at once whatever others on its
address do. A password may be, so an attempt waits, and may be refused, before it is looked at.
"""

import asyncio
import hashlib
import itertools
import math
import secrets
import time
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv6Address, ip_address

from layover.identity.ids import public_part
from layover.identity.models import IdentityError

# How many of the counts touched longest ago are looked at when one has to make room. The smallest
# of them goes, so that a flood of new ones, each of one failure, drives out none that matters.
_LOOKED_AT = 16

# Nobody guesses faster for waiting less than this.
_FELT_SECONDS = 0.05

# One customer's network at the least (RFC 6177): who has one has all of its addresses.
_IPV6_NETWORK_BITS = 64


class TooManyAttempts(IdentityError):
    """So many logins failed lately that no more are looked at for a while."""

    def __init__(self, wait: timedelta) -> None:
        self.retry_after_seconds = max(1, math.ceil(wait.total_seconds()))
        super().__init__(
            f"too many failed logins: try again in {self.retry_after_seconds} s, with a token or"
            " password that is valid"
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """How many failures are answered, and how fast."""

    failures: int = 60
    """As many of one address, of tokens that begin alike, or of one user are answered."""
    forgiven_every: timedelta = timedelta(seconds=10)
    """One of them is forgotten after this time, and the next after as long again."""
    longest_delay: timedelta = timedelta(seconds=2)
    """What the last of them waits for its answer; the first waits for next to nothing."""
    waiting: int = 256
    """As many answers wait at one time."""
    waiting_per_address: int = 16
    tracked: int = 10_000
    """As many counts of each kind are kept."""


DEFAULT_LIMITS = Limits()


class LoginThrottle:
    """Counts failed logins, and lets their answers wait."""

    def __init__(
        self,
        limits: Limits = DEFAULT_LIMITS,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._limits, self._sleep = limits, sleep
        self._addresses = _Counts(limits, monotonic)
        self._tokens = _Counts(limits, monotonic)
        self._users = _Counts(limits, monotonic)
        # Where users signed in from; the counts are not used.
        self._known = _Counts(limits, monotonic)
        self._waiting: Counter[str] = Counter()
        # Nothing of a name or a token is kept but this hash, which is worth nothing elsewhere.
        self._key = secrets.token_bytes(32)

    async def failed(self, address: str, secret: str) -> None:
        """Take note of a token that is not valid; return when its refusal may be told.

        Nobody's token is nobody's guess: an empty `secret` counts for nothing. Raises
        TooManyAttempts instead of returning when there were too many.
        """
        if not secret:
            return
        network = client_network(address)
        counted = [(self._addresses, network)]
        if (beginning := public_part(secret)) is not None:
            counted.append((self._tokens, beginning))
        await self._count(network, counted)

    async def attempt(self, address: str, user_name: str) -> "Attempt":
        """Wait for as long as a password of this user has to; it is looked at after that.

        The attempt counts as failed until it is told to have succeeded. Raises TooManyAttempts:
        the password is not looked at then.

        Where a user signed in from before, attempts are counted apart from those from anywhere
        else: nobody locks a user out from afar.
        """
        network = client_network(address)
        user = self._hash(unicodedata.normalize("NFKC", user_name).casefold())
        known = self._hash(f"{user} {network}")
        name = known if known in self._known else user
        counted = [(self._addresses, network), (self._users, name)]
        await self._count(network, counted)
        return Attempt(counted, self._known, known)

    async def _count(self, network: str, counted: "list[tuple[_Counts, str]]") -> None:
        limits = self._limits
        excess = max(counts.of(key) for counts, key in counted) + 1 - limits.failures
        if excess > 0:
            raise TooManyAttempts(excess * limits.forgiven_every)
        failures = max(counts.add(key) for counts, key in counted)
        delay = self._delay(failures)
        if delay < _FELT_SECONDS:
            # Needs no room among those that wait: others may have taken all of it.
            await self._sleep(delay)
            return
        if (
            self._waiting.total() >= limits.waiting
            or self._waiting[network] >= limits.waiting_per_address
        ):
            # To answer at once would be a way around waiting.
            raise TooManyAttempts(limits.longest_delay)
        self._waiting[network] += 1
        try:
            await self._sleep(delay)
        finally:
            self._waiting[network] -= 1
            if not self._waiting[network]:
                del self._waiting[network]

    def _delay(self, failures: float) -> float:
        """Seconds; those of a few typing errors are not felt."""
        share = min(1.0, failures / self._limits.failures)
        return self._limits.longest_delay.total_seconds() * share**2

    def _hash(self, text: str) -> str:
        return hashlib.blake2b(
            text.encode(errors="replace"), key=self._key, digest_size=16
        ).hexdigest()


class Attempt:
    """A password that may be looked at."""

    def __init__(self, counted: "list[tuple[_Counts, str]]", known: "_Counts", place: str) -> None:
        self._counted, self._known, self._place = counted, known, place

    def succeeded(self) -> None:
        """The password was right: this attempt, and no other, is forgotten."""
        for counts, key in self._counted:
            counts.take_back(key)
        self._counted = []
        self._known.add(self._place)


class _Counts:
    """Failures by whatever tells who is guessing, each forgotten after its time."""

    def __init__(self, limits: Limits, monotonic: Callable[[], float]) -> None:
        self._limits, self._monotonic = limits, monotonic
        # The count, and when it was that much; what was touched last is last.
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._counts

    def of(self, key: str) -> float:
        count, at = self._counts.get(key, (0.0, 0.0))
        forgiven = (self._monotonic() - at) / self._limits.forgiven_every.total_seconds()
        return max(0.0, count - forgiven)

    def add(self, key: str) -> float:
        """One more; return how many there are."""
        count = self.of(key) + 1
        self._counts[key] = (count, self._monotonic())
        self._counts.move_to_end(key)
        if len(self._counts) > self._limits.tracked:
            oldest = itertools.islice(self._counts, min(_LOOKED_AT, len(self._counts) - 1))
            del self._counts[min(oldest, key=self.of)]
        return count

    def take_back(self, key: str) -> None:
        """One less."""
        if key in self._counts:
            self._counts[key] = (max(0.0, self.of(key) - 1), self._monotonic())


def client_network(address: str) -> str:
    """Whose address it is, as far as that can be told: of IPv6 the network is one customer's."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""
    if isinstance(parsed, IPv6Address):
        return str(IPv6Address(int(parsed) >> _IPV6_NETWORK_BITS << _IPV6_NETWORK_BITS))
    return str(parsed)
