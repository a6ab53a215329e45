"""Issuers' keys over HTTP, kept for a while.

Issuers rotate their keys and announce new ones by using them. So an unknown key ID has the keys
fetched again, but an issuer is asked at most once in RETRY_AFTER whatever callers send: a stranger
can make up key IDs. While an issuer does not answer, the keys that it had are good for STALE_FOR
longer. Each replica keeps its own, and reckons by a clock that nobody sets.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import structlog

from layover.adapters.oidc_discovery import discover, fetch_keys
from layover.identity.issuer_keys import IssuerUnavailable, VerificationKey

# In seconds. A key that an issuer withdrew is good for FRESH_FOR longer here.
FRESH_FOR = 600.0
STALE_FOR = 3600.0
RETRY_AFTER = 60.0

MAX_ISSUERS = 256

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Known:
    """Of one issuer: its keys, and when they were fetched and last asked for."""

    keys: tuple[VerificationKey, ...] = ()
    fetched_at: float | None = None
    asked_at: float | None = None
    failure: IssuerUnavailable | None = None
    asking: asyncio.Task[None] | None = None

    def is_younger(self, age: float, now: float) -> bool:
        return self.fetched_at is not None and now - self.fetched_at < age

    def may_be_asked(self, now: float) -> bool:
        return self.asked_at is None or now - self.asked_at >= RETRY_AFTER

    def has(self, key_id: str | None) -> bool:
        return key_id is None or any(key.key_id == key_id for key in self.keys)


class HttpIssuerKeys:
    """IssuerKeys from each issuer's discovery document and JWKS."""

    def __init__(
        self, client: httpx.AsyncClient, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`client` is an outbound one, and remains its owner's to close."""
        self._client, self._monotonic = client, monotonic
        # By when somebody last wanted them, so that the oldest is forgotten first.
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def keys(self, issuer: str, key_id: str | None = None) -> tuple[VerificationKey, ...]:
        known, now = self._of(issuer), self._monotonic()
        if not known.is_younger(FRESH_FOR, now) or not known.has(key_id):
            if known.asking is None and known.may_be_asked(now):
                known.asked_at = now
                # A task of its own: a caller who leaves takes nobody else's answer away.
                known.asking = asyncio.create_task(self._ask(issuer, known, now))
            if known.asking is not None:
                await asyncio.shield(known.asking)
        if not known.is_younger(FRESH_FOR + STALE_FOR, now):
            raise known.failure or IssuerUnavailable(issuer, "nobody answered in time")
        return known.keys

    async def close(self) -> None:
        """Let go of what is under way."""
        for known in self._known.values():
            if known.asking is not None:
                known.asking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await known.asking

    def _of(self, issuer: str) -> _Known:
        known = self._known.setdefault(issuer, _Known())
        self._known.move_to_end(issuer)
        if len(self._known) > MAX_ISSUERS:
            self._known.popitem(last=False)
        return known

    async def _ask(self, issuer: str, known: _Known, now: float) -> None:
        try:
            configuration = await discover(self._client, issuer)
            known.keys = await fetch_keys(self._client, configuration)
        except IssuerUnavailable as error:
            known.failure = error
            _log.warning("issuer_keys_unavailable", issuer=issuer, reason=str(error))
        else:
            known.fetched_at, known.failure = now, None
            _log.info("issuer_keys_fetched", issuer=issuer, keys=len(known.keys))
        finally:
            known.asking = None
