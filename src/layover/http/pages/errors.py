"""How errors are told on a page: a status each, and "internal error" for what is a bug."""

from collections.abc import Mapping
from http import HTTPStatus

from layover.errors import LayoverError, StorageFull, StorageUnavailable
from layover.http.pages.forms import FormRefused, FormTooLarge
from layover.identity.issuer_keys import IssuerUnavailable
from layover.identity.management import AlreadyMember, InvitationUnknown
from layover.identity.sign_in_models import (
    InvalidPassword,
    InvalidUserName,
    LoginDenied,
    LoginUnknown,
    PasswordNotAllowed,
    ProviderRefused,
    SignInRefused,
    TooManyLogins,
    UserNameTaken,
)
from layover.identity.throttle import TooManyAttempts
from layover.registry.models import UploadTruncated

PAGE_STATUSES: Mapping[type[LayoverError], HTTPStatus] = {
    FormRefused: HTTPStatus.FORBIDDEN,
    FormTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    InvalidPassword: HTTPStatus.UNPROCESSABLE_ENTITY,
    InvalidUserName: HTTPStatus.UNPROCESSABLE_ENTITY,
    AlreadyMember: HTTPStatus.CONFLICT,
    InvitationUnknown: HTTPStatus.NOT_FOUND,
    IssuerUnavailable: HTTPStatus.BAD_GATEWAY,
    LoginDenied: HTTPStatus.FORBIDDEN,
    LoginUnknown: HTTPStatus.NOT_FOUND,
    PasswordNotAllowed: HTTPStatus.FORBIDDEN,
    ProviderRefused: HTTPStatus.FORBIDDEN,
    SignInRefused: HTTPStatus.FORBIDDEN,
    StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
    StorageUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    TooManyAttempts: HTTPStatus.TOO_MANY_REQUESTS,
    TooManyLogins: HTTPStatus.TOO_MANY_REQUESTS,
    # Whoever would read it has gone.
    UploadTruncated: HTTPStatus.BAD_REQUEST,
    UserNameTaken: HTTPStatus.CONFLICT,
}

# What is said instead of an error's own words, which are an administrator's.
_TEXTS: Mapping[type[LayoverError], str] = {
    IssuerUnavailable: "the sign-in provider cannot be reached: try again in a moment",
}


def text_of(error: LayoverError) -> str:
    """What a user is told, as a sentence."""
    text = _TEXTS.get(type(error), str(error))
    return f"{text[:1].upper()}{text[1:]}."
