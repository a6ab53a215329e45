import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layover import logs
from layover.identity.ids import new_secret
from layover.redaction import REDACTED
from tests.unit.test_redaction import JWT, SECRETS, TOKEN, VALUES

Read = Callable[[], str]


@pytest.fixture(params=["json", "console"])
def read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    """Logging as a server's, in each format; what was written since it was last read."""
    handlers, level = list(logging.root.handlers), logging.root.level
    stream = io.StringIO()

    def read() -> str:
        text = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return text

    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(as_json=request.param == "json")
    yield read
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(event=st.text(), name=st.sampled_from(["a", "reason", "path"]), value=VALUES)
def test_whatever_is_logged_no_token_comes_out(
    read: Read, event: str, name: str, value: Any
) -> None:
    structlog.get_logger("test").info(f"{event}{TOKEN}", **{name: value})
    logging.getLogger("library").warning("%s and %s", JWT, value)
    text = read()
    assert text
    assert not any(secret in text for secret in SECRETS)


def test_an_exception_is_told_without_tokens_and_without_local_variables(read: Read) -> None:
    local_only = "kept in a local variable"

    def fails(secret: str) -> None:
        hidden = f"{local_only} {secret}"
        raise KeyError(TOKEN) from ValueError(f"Authorization: Bearer {secret}", len(hidden))

    secret = new_secret()
    log = structlog.get_logger("test")
    try:
        fails(secret)
    except KeyError as error:
        log.exception("request_failed")
        log.error("rpc_failed", exc_info=error)
        logging.getLogger("library").exception("failed")
    text = read()
    assert text.count("KeyError") >= 3
    assert text.count("in fails") >= 3
    for word in (secret, TOKEN, local_only):
        assert word not in text


def test_what_is_bound_once_is_redacted_in_every_line(read: Read) -> None:
    with structlog.contextvars.bound_contextvars(caller=TOKEN):
        structlog.get_logger("test").info("worked")
    text = read()
    assert REDACTED in text
    assert TOKEN not in text


@pytest.mark.parametrize("read", ["json"], indirect=True)
def test_a_line_is_json_with_all_else_that_was_said(read: Read) -> None:
    structlog.get_logger("test").warning("push_refused", reason=f"{TOKEN} is over", size_bytes=7)
    told = json.loads(read())
    assert told.pop("timestamp")
    assert told == {
        **{"event": "push_refused", "level": "warning"},
        **{"reason": f"{REDACTED} is over", "size_bytes": 7},
    }
