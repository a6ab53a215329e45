"""What pushes show their registries: kept in memory, and sealed for whoever goes on with one.

A token that is over soon may be needed by another server, once the one that works on a push is
gone. It is written down encrypted, with a key that only servers have. What a user signs in with
is never written down: the client that is attached to the push sends it again.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from cryptography.fernet import Fernet, InvalidToken

from layover.oci.references import Place
from layover.promotion.models import Authorization, AuthorizationScheme
from layover.promotion.ports import PushStore

# Of a push that this server never came to work on nothing stays in memory for longer.
_REMEMBERED_SECONDS = 3600.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Remembered:
    of_places: dict[Place, Authorization] = field(default_factory=dict)
    times_given: Counter[Place] = field(default_factory=Counter)
    until: float = 0.0


class AuthorizationVault:
    """The authorizations of pushes, as this server knows them."""

    def __init__(
        self, store: PushStore, key: bytes, elapsed: Callable[[], float] = time.monotonic
    ) -> None:
        """`key` is what all replicas share, made by `new_key`; `elapsed` is a clock in seconds
        that nobody sets."""
        self._store, self._fernet, self._elapsed = store, Fernet(key), elapsed
        self._remembered: dict[str, _Remembered] = {}
        self.given = asyncio.Event()
        """Set when this server was given something, were it that nothing is needed."""

    async def put(self, push_id: str, given: Mapping[Place, Authorization]) -> bool:
        """Keep these, in place of what there was for the same places. False where the push has
        ended."""
        sealed = {
            place: self._seal(push_id, place, one) for place, one in given.items() if one.is_kept
        }
        # Asked even with nothing to seal: whether it has ended.
        if not await self._store.keep_sealed(push_id, sealed):
            self.forget(push_id)
            return False
        self._remember(push_id, given)
        self._remembered[push_id].times_given.update(given.keys())
        self.given.set()
        return True

    def of(self, push_id: str, place: Place) -> Authorization | None:
        """What this server knows."""
        found = self._remembered.get(push_id)
        return found.of_places.get(place) if found else None

    def key(self, push_id: str, place: Place) -> object:
        """Compares as other than before once there is another to show, or this server was given
        the same one anew: whoever gives it means it to be tried."""
        found = self._remembered.get(push_id)
        return (self.of(push_id, place), found.times_given[place] if found else 0)

    async def refresh(self, push_id: str) -> None:
        """Learn what other servers were given for the push."""
        opened = {}
        for place, sealed in (await self._store.sealed(push_id)).items():
            authorization = self._open(push_id, place, sealed)
            if authorization is not None:
                opened[place] = authorization
        if opened:
            self._remember(push_id, opened)

    def forget(self, push_id: str) -> None:
        self._remembered.pop(push_id, None)

    def _remember(self, push_id: str, given: Mapping[Place, Authorization]) -> None:
        now = self._elapsed()
        for other in [key for key, one in self._remembered.items() if one.until < now]:
            del self._remembered[other]
        remembered = self._remembered.setdefault(push_id, _Remembered())
        remembered.of_places.update(given)
        remembered.until = now + _REMEMBERED_SECONDS

    def _seal(self, push_id: str, place: Place, one: Authorization) -> bytes:
        document = {
            # Read back only for the push and the place that it was sealed for.
            "push": push_id,
            "place": str(place),
            "scheme": one.scheme.value,
            "secret": one.secret,
            "expires_at": one.expires_at.isoformat() if one.expires_at else None,
        }
        return self._fernet.encrypt(json.dumps(document).encode())

    def _open(self, push_id: str, place: Place, sealed: bytes) -> Authorization | None:
        try:
            document = json.loads(self._fernet.decrypt(sealed))
        except InvalidToken:
            _log.warning("authorization_unreadable", push_id=push_id, place=str(place))
            return None
        if (document["push"], document["place"]) != (push_id, str(place)):
            return None
        expires_at = document["expires_at"]
        return Authorization(
            AuthorizationScheme(document["scheme"]),
            document["secret"],
            datetime.fromisoformat(expires_at) if expires_at else None,
        )


def new_key() -> bytes:
    """A key for a vault."""
    return Fernet.generate_key()
