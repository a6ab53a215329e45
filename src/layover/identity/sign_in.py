"""Signs users in to the pages: by a password, or by what a provider said of them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from layover.identity.ids import new_cookie_secret, new_id, secret_hash
from layover.identity.models import ActionDenied, Principal, TokenKind
from layover.identity.passwords import Passwords, check_password
from layover.identity.ports import SignInStore
from layover.identity.sign_in_models import (
    PasswordNotAllowed,
    Session,
    SignInRefused,
    User,
)
from layover.identity.throttle import LoginThrottle
from layover.identity.user_names import parse_user_name, shown_name

# A working day. It does not grow with use: a stolen cookie is worth that much at the most.
SESSION_LIFETIME = timedelta(hours=12)

_LONGEST_NAME = 256

_log = structlog.get_logger(__name__)


class SignInService:
    """Users' passwords and sessions."""

    def __init__(
        self,
        store: SignInStore,
        passwords: Passwords,
        throttle: LoginThrottle,
        now: Callable[[], datetime],
    ) -> None:
        self._store, self._passwords, self._throttle, self._now = store, passwords, throttle, now

    async def sign_in(self, name: str, password: str, address: str) -> str:
        """The secret of a new session for the user of this name and password.

        Raises SignInRefused, alike in text and time whatever was wrong; TooManyAttempts.
        """
        name = name.strip().lower()[:_LONGEST_NAME]
        attempt = await self._throttle.attempt(address, name)
        user = await self._store.find_user_by_name(name)
        encoded = user.password_hash if user else None
        if not await self._passwords.verify(encoded, password) or user is None or not encoded:
            refused = SignInRefused(user.name if user else "")
            _log.info("sign_in_refused", user=refused.user_name, address=address)
            raise refused
        attempt.succeeded()
        if self._passwords.is_outdated(encoded):
            renewed = await self._passwords.hash(password)
            await self._store.renew_password_hash(user.id, encoded, renewed)
            user = replace(user, password_hash=renewed)
        return await self.start_session(user, "password")

    async def sign_in_by_provider(
        self, issuer: str, subject: str, names: tuple[object, ...]
    ) -> str:
        """The secret of a new session for whom a provider vouches; made at the first sign-in.

        A user is who the issuer and the subject say and nobody else: never a local user, whatever
        the name. `names` are what the provider calls them, the best first.
        """
        base = shown_name(*names)
        user, is_new = await self._store.ensure_oidc_user(
            User(id=new_id(), name=base, oidc_issuer=issuer),
            subject,
            lambda taken: f"{base}-{taken + 1}" if taken else base,
            self._now(),
        )
        if is_new:
            _log.info("user_created", user=user.id, name=user.name, issuer=issuer)
        return await self.start_session(user, "provider")

    async def create_local_user(self, name: str, password: str) -> User:
        """A user who is a member of nothing yet.

        Raises InvalidUserName, InvalidPassword, UserNameTaken.
        """
        name = parse_user_name(name)
        user = User(id=new_id(), name=name, password_hash=await self._passwords.hash(password))
        await self._store.add_user(user, self._now())
        _log.info("user_created", user=user.id, name=name)
        return user

    async def start_session(self, user: User, by: str) -> str:
        """A secret for the browser's cookie: a new one at each sign-in.

        Raises SignInRefused when the user's password was changed meanwhile.
        """
        secret, now = new_cookie_secret(), self._now()
        expires_at = now + SESSION_LIFETIME
        if not await self._store.add_session(secret_hash(secret), user, now, expires_at):
            raise SignInRefused
        _log.info("signed_in", user=user.id, name=user.name, by=by)
        return secret

    async def session(self, secret: str) -> Session | None:
        """The session of a cookie's secret; None for anything else."""
        return await self._store.find_session(secret_hash(secret), self._now()) if secret else None

    async def end_session(self, secret: str) -> None:
        """Sign the browser out; repeating it does nothing."""
        await self._store.delete_session(secret_hash(secret))

    async def set_password(self, principal: Principal, password: str) -> User:
        """Replace the password of the user whose token this is; that user's browsers are out.

        Raises ActionDenied, PasswordNotAllowed, InvalidPassword.
        """
        if principal.kind is not TokenKind.USER or principal.user_id is None:
            raise ActionDenied("set a password: it takes a user's own")
        user = await self._store.find_user(principal.user_id)
        if user is None:
            raise ActionDenied("set a password: its user is gone")
        if user.oidc_issuer is not None:
            raise PasswordNotAllowed
        check_password(password)
        await self._store.set_password(user.id, await self._passwords.hash(password))
        _log.info("password_changed", user=user.id, name=user.name)
        return user

    async def forget_over_sessions(self) -> int:
        """Delete what is over; return how many. Such sessions are refused without it too."""
        return await self._store.delete_over_sessions(self._now())
