from urllib.parse import quote, unquote, urljoin, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layover.http.pages.return_to import HOME, own_path, sign_in_path

BASE = "https://layover.example.com/signin"


@pytest.mark.parametrize(
    "path", ["/", "/device", "/device?code=BCDF-GHJK", "/join/abcdefgh234567", "/a/b?c=d&e=f"]
)
def test_a_path_of_ours_is_gone_on_to(path: str) -> None:
    assert own_path(path) == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "device",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\\/evil.example",
        "https://evil.example",
        "https:evil.example",
        "javascript:alert(1)",
        "/%2F/evil.example",
        "/%5Cevil.example",
        "/%09/evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "/device\n",
        " //evil.example",
        "/a//evil.example",
        "/.//evil.example",
        "/..//evil.example",
        "/../x",
        "/device?code=http://evil.example",
        "/@evil.example:80",
        "/device#//evil.example",
        "/signin?return_to=/signin",
        "/signout",
        "/" + "a" * 600,
        "/\N{FULLWIDTH SOLIDUS}evil.example",
    ],
)
def test_whatever_is_no_path_of_ours_leads_home(text: str) -> None:
    assert own_path(text) == HOME


@given(
    st.text(alphabet=st.sampled_from("/\\.:@?#&=%25Ff09 \t\n\r\0aevil-_~;,"), max_size=30)
    | st.text(max_size=30)
)
@example("//evil")
@example("/%2f%2fevil")
def test_no_text_leads_to_another_server_however_it_is_decoded(text: str) -> None:
    for form in (text, unquote(text), unquote(unquote(text)), quote(text), f"/{text}"):
        found = own_path(form)
        for read in (found, unquote(found), found.replace("\\", "/")):
            assert urlsplit(urljoin(BASE, read)).netloc == "layover.example.com"
        assert found.startswith("/")
        assert not found.startswith(("//", "/\\"))
        assert own_path(found) == found


@given(st.text(max_size=50))
def test_the_sign_in_page_is_always_our_own(text: str) -> None:
    path = sign_in_path(text)
    assert path == "/signin" or path.startswith("/signin?return_to=/")
    assert path.isascii()
