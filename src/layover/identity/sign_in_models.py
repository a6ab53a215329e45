"""Who signs in, and what signs a command line in."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from layover.identity.models import ManagementError, Organization, Principal, Role, TokenKind


class SignInError(ManagementError):
    """Why somebody is not signed in."""


class SignInRefused(SignInError):
    """Name and password do not go together: no such user, no password, a wrong one read alike.

    `user_name` is for the logs, and empty where there is no such user: what was typed into the
    wrong field may be a password.
    """

    def __init__(self, user_name: str = "") -> None:
        super().__init__("this name and password do not go together")
        self.user_name = user_name


class ProviderRefused(SignInError):
    """The sign-in at the OpenID Connect provider came to nothing; the reason is for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__("the sign-in at the provider did not work: start it again")
        self.reason = reason


class InvalidUserName(SignInError):
    """Not a name for a local user."""

    def __init__(self) -> None:
        super().__init__(
            "a user name has 1 to 64 characters of a-z, 0-9, dot, dash and underscore, and begins"
            " with a letter or a digit"
        )


class UserNameTaken(SignInError):
    """There is a user of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is a user {name!r} already: choose another name")
        self.name = name


class InvalidPassword(SignInError):
    """Not a password that is taken; the message says why and never quotes it."""


class PasswordNotAllowed(SignInError):
    """The user signs in with the OpenID Connect provider, whose word ends with its account."""

    def __init__(self) -> None:
        super().__init__("you sign in with the server's provider, so there is no password to set")


class LoginUnknown(SignInError):
    """No command line waits under this ID or code: it never did, or its time is over."""

    def __init__(self) -> None:
        super().__init__("no such login is waiting, or its time is over: run `layover login` again")


class LoginDenied(SignInError):
    """A user said no."""

    def __init__(self) -> None:
        super().__init__("the login was denied in the browser")


class TooManyLogins(SignInError):
    """So many command lines wait that another one is not let in for now."""

    def __init__(self) -> None:
        super().__init__("too many logins are waiting: approve or end one, or try again later")


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who can sign in."""

    id: str
    name: str
    is_admin: bool = False
    oidc_issuer: str | None = None
    """The provider that signs the user in; None for a local user."""
    password_hash: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Session:
    """A browser in which somebody is signed in."""

    user: User
    expires_at: datetime
    memberships: tuple[tuple[Organization, Role], ...] = ()
    """The user's organizations, by name, as they are now."""

    @property
    def principal(self) -> Principal:
        """The user as a caller, who came with no token."""
        return Principal(
            token_id="",
            kind=TokenKind.USER,
            user_id=self.user.id,
            name=self.user.name,
            roles={organization.id: role for organization, role in self.memberships},
            is_admin=self.user.is_admin,
        )


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """A command line that waits for a user to approve it."""

    user_code: str
    address: str
    user_agent: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class LoginLimits:
    """How many command lines may wait at a time, and for how long."""

    lifetime: timedelta = timedelta(minutes=10)
    pending: int = 1000
    pending_per_address: int = 10
    streams: int = 500
    streams_per_address: int = 20


class LoginState(Enum):
    """What became of a login."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
