from http import HTTPStatus

import pytest

from layover.errors import LayoverError, StorageUnavailable
from layover.http.pages.errors import PAGE_STATUSES, text_of
from layover.http.pages.forms import FormRefused, FormTooLarge
from layover.identity.issuer_keys import IssuerUnavailable
from layover.identity.sign_in_models import SignInError
from tests.unit.http.oci.test_errors import leaf_classes
from tests.unit.http.pages.site import Site


def test_no_error_of_signing_in_reaches_a_browser_unmapped() -> None:
    assert leaf_classes(SignInError) | {FormRefused, FormTooLarge} <= set(PAGE_STATUSES)


def test_every_error_is_told_as_a_refusal_or_a_failure() -> None:
    for kind, status in PAGE_STATUSES.items():
        assert issubclass(kind, LayoverError)
        assert status >= HTTPStatus.BAD_REQUEST


def test_an_error_is_a_sentence_and_says_nothing_of_the_servers_own_network() -> None:
    told = text_of(IssuerUnavailable("https://login.lan", "10.1.2.3 does not answer"))
    assert "lan" not in told
    assert "10.1.2.3" not in told
    assert told[0].isupper()
    assert told.endswith(".")


@pytest.mark.anyio
async def test_a_failure_of_the_servers_own_is_a_page_too(
    pages: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = await pages.signed_in()
    for error, status in ((StorageUnavailable(), 503), (RuntimeError("at line 7 of it"), 500)):

        async def fails(_secret: str, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(pages.sign_in, "session", fails)
        answer = await browser.get("/")
        assert answer.status_code == status
        assert 'role="alert"' in answer.text
        assert "line 7" not in answer.text
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
