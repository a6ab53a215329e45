from hypothesis import example, given
from hypothesis import strategies as st

from layover.audit.text import LONGEST, cleaned
from layover.identity.ids import new_secret, public_part


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("", "mine/app:v1", "Zoë's laptop", "sha256:" + "a" * 64, "layover_app/x:v1"):
        assert cleaned(text) == text


def test_nothing_that_drives_a_terminal_or_turns_text_round_is_kept() -> None:
    assert cleaned("a\x1b[2Jb\r\nc\x00") == "a\ufffd[2Jb\ufffd\ufffdc\ufffd"
    assert cleaned("a\u202eb\u2028c\ud800") == "a\ufffdb\ufffdc\ufffd"


def test_of_a_token_no_more_is_kept_than_tells_it_from_others() -> None:
    secret = new_secret()
    for text in (secret, f"x {secret.upper()} y", secret + secret):
        assert secret[len(str(public_part(secret))) :] not in cleaned(text).lower()
    assert cleaned(f"build {secret}") == f"build {public_part(secret)}***"


def test_what_looks_like_any_other_secret_is_not_kept() -> None:
    assert cleaned("see eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln!") == "see [redacted]!"
    assert cleaned("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.") == "[redacted]"
    assert cleaned("https://user:pass@example.com/") == "https://[redacted]@example.com/"


@given(text=st.text(), before=st.integers(0, 2 * LONGEST))
@example(text="", before=LONGEST - 10)
def test_any_text_becomes_short_and_printable_and_tells_no_secret(text: str, before: int) -> None:
    secret = new_secret()
    found = cleaned("x" * before + secret + text)
    assert len(found) <= LONGEST
    assert found.isprintable()
    assert secret[-20:] not in found
