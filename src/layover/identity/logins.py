"""Logs command lines in: they ask, a signed-in user approves, and the token comes to who asked.

The flow is a device's (RFC 8628). The ID is the command line's secret, and what the token is given
for; the code is what a person reads and compares, and opens nothing by itself.
"""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from layover.identity.ids import new_cookie_secret, new_id, new_secret, secret_hash
from layover.identity.models import NewToken, Principal, TokenKind
from layover.identity.origin import Origin
from layover.identity.ports import LoginStore
from layover.identity.sign_in_models import (
    LoginDenied,
    LoginLimits,
    LoginRequest,
    LoginState,
    LoginUnknown,
    TooManyLogins,
    User,
)
from layover.identity.throttle import LoginThrottle, client_network

TOKEN_LIFETIME = timedelta(days=90)

# No vowels, so that no word comes of it, and nothing that is read as another (RFC 8628, section
# 6.1). Eight of them are 34 bits, of which at most some thousands are in use, for ten minutes.
CODE_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
_CODE_LENGTH = 8

# As often a waiting stream looks: whichever replica has it, it need not be the one that approves.
_POLL_SECONDS = 1.0

_CODES_TRIED = 5
_LONGEST_CODE_INPUT = 32

_log = structlog.get_logger(__name__)

DEFAULT_LIMITS = LoginLimits()


@dataclass(frozen=True, slots=True)
class StartedLogin:
    """What a command line is told."""

    id: str = field(repr=False)
    user_code: str


class LoginService:
    """Starts, approves and finishes logins."""

    def __init__(
        self,
        store: LoginStore,
        throttle: LoginThrottle,
        now: Callable[[], datetime],
        limits: LoginLimits = DEFAULT_LIMITS,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._store, self._throttle, self._now = store, throttle, now
        self._limits, self._sleep = limits, sleep
        self._streams: Counter[str] = Counter()

    async def start(self, origin: Origin) -> StartedLogin:
        """Let a command line wait to be approved. Raises TooManyLogins."""
        now = self._now()
        for _ in range(_CODES_TRIED):
            started = StartedLogin(new_cookie_secret(), _new_code())
            request = LoginRequest(
                started.user_code,
                origin.address,
                origin.user_agent,
                now,
                now + self._limits.lifetime,
            )
            if await self._store.add(secret_hash(started.id), request, self._admission(request)):
                return started
        raise TooManyLogins

    def _admission(self, request: LoginRequest) -> Callable[[Sequence[str]], None]:
        """What raises TooManyLogins where those that wait are too many for one more."""
        limits, network = self._limits, client_network(request.address)

        def admit(waiting: Sequence[str]) -> None:
            same = sum(client_network(address) == network for address in waiting)
            if len(waiting) >= limits.pending or same >= limits.pending_per_address:
                raise TooManyLogins

        return admit

    async def find(self, code: str, address: str) -> LoginRequest:
        """The login that waits under what a user typed, for the user to look at.

        Raises LoginUnknown; TooManyAttempts after too many such of one address.
        """
        user_code = read_code(code)
        request = await self._store.find_pending(user_code, self._now()) if user_code else None
        if request is None:
            await self._throttle.failed(address, "a code")
            raise LoginUnknown
        return request

    async def decide(self, code: str, user: User, address: str, *, approve: bool) -> LoginRequest:
        """Approve or deny a login as this user, and return it. Raises as `find` does."""
        request = await self.find(code, address)
        if not await self._store.decide(request.user_code, user.id, self._now(), approve=approve):
            raise LoginUnknown
        _log.info(
            "login_approved" if approve else "login_denied",
            user=user.id,
            name=user.name,
            address=request.address,
        )
        return request

    async def finish(self, login_id: str, origin: Origin) -> str:
        """Wait until the login is decided, and return its user's token, once.

        Raises LoginUnknown, LoginDenied; TooManyLogins when too many wait here already.
        """
        id_hash = secret_hash(login_id)
        with self._stream_of(client_network(origin.address)):
            while True:
                found = await self._store.state(id_hash, self._now())
                if found is None:
                    await self._throttle.failed(origin.address, login_id)
                    raise LoginUnknown
                match found:
                    case LoginState.DENIED, _:
                        raise LoginDenied
                    case LoginState.APPROVED, str(user_id):
                        return await self._redeem(id_hash, user_id, origin)
                await self._sleep(_POLL_SECONDS)

    async def forget_over(self) -> int:
        """Delete what is over; return how many."""
        return await self._store.delete_over(self._now())

    @contextlib.contextmanager
    def _stream_of(self, network: str) -> Iterator[None]:
        limits = self._limits
        if (
            self._streams.total() >= limits.streams
            or self._streams[network] >= limits.streams_per_address
        ):
            raise TooManyLogins
        self._streams[network] += 1
        try:
            yield
        finally:
            self._streams[network] -= 1
            if not self._streams[network]:
                del self._streams[network]

    async def _redeem(self, id_hash: bytes, user_id: str, origin: Origin) -> str:
        secret, now = new_secret(), self._now()
        token = NewToken(
            Principal(new_id(), TokenKind.USER, user_id=user_id),
            secret_hash(secret),
            f"layover login from {origin.address or 'somewhere'}",
            created_at=now,
            expires_at=now + TOKEN_LIFETIME,
            created_by=user_id,
        )
        if not await self._store.redeem(id_hash, token, now):
            raise LoginUnknown
        _log.info("login_finished", user=user_id, token=token.principal.token_id)
        return secret


def read_code(text: str) -> str | None:
    """The code that a user typed: in any case, with dashes and spaces or without."""
    if len(text) > _LONGEST_CODE_INPUT:
        return None
    letters = "".join(text.upper().replace("-", " ").split())
    if len(letters) != _CODE_LENGTH or not set(letters) <= set(CODE_ALPHABET):
        return None
    return _shown(letters)


def _new_code() -> str:
    return _shown("".join(secrets.choice(CODE_ALPHABET) for _ in range(_CODE_LENGTH)))


def _shown(letters: str) -> str:
    return f"{letters[:4]}-{letters[4:]}"
