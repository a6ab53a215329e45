import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protobuf.wkt import Timestamp

from layover.cli import audit
from layover.cli.audit import read_moment
from layover.cli.main import run
from layover.client.api import Client
from layover.rpc.layover.v1.audit_pb import AuditEvent, ListAuditEventsRequest

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
EVENT = AuditEvent(
    id=7,
    at=Timestamp(seconds=int(NOW.timestamp())),
    organization_id="org",
    actor_kind="user",
    actor_id="u1",
    actor_name="Zoë\x1b[2J",
    action="manifests.push",
    subject="p/app:v1",
    result="done",
    address="192.0.2.1",
    request_id="0123456789abcdef",
    details={"digest": "sha256:a", "client": "docker"},
)


def test_a_time_is_how_long_ago_or_rfc_3339() -> None:
    assert read_moment("24h", NOW) == NOW - timedelta(days=1)
    assert read_moment("2026-01-31T12:00:00Z", NOW) == NOW
    assert read_moment("2026-01-31T13:00:00+01:00", NOW) == NOW
    for text in ("", "yesterday", "2026-01-31T12:00:00", "2026-01-31", "-1h"):
        with pytest.raises(ValueError, match="expected how long ago"):
            read_moment(text, NOW)


@given(text=st.text())
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        assert read_moment(text, NOW).tzinfo is not None
    except ValueError as error:
        assert "expected how long ago" in str(error)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ListAuditEventsRequest, int]]:
    """What the server was asked for; it answers with one event."""
    heard: list[tuple[ListAuditEventsRequest, int]] = []

    async def answer(
        _client: Client, request: ListAuditEventsRequest, limit: int
    ) -> list[AuditEvent]:
        heard.append((request, limit))
        return [EVENT]

    monkeypatch.setattr(Client, "list_audit_events", answer)
    monkeypatch.setenv("LAYOVER_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("LAYOVER_TOKEN", "t")
    return heard


def test_a_table_shows_who_did_what_and_drives_no_terminal(
    asked: list[tuple[ListAuditEventsRequest, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", "list", "--project", "p", "--limit", "5"], prog_name="layover") == 0
    shown = capsys.readouterr().out
    for fact in ("2026-01-31T12:00:00", "Zoë", "u1", "manifests.push", "p/app:v1", "192.0.2.1"):
        assert fact in shown
    assert "\x1b" not in shown
    ((request, limit),) = asked
    assert (request.project_id, request.organization_id, limit) == ("p", "", 5)


def test_json_and_csv_hold_all_of_an_event(
    asked: list[tuple[ListAuditEventsRequest, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", "list", "-o", "json"], prog_name="layover") == 0
    (event,) = json.loads(capsys.readouterr().out)
    assert next(iter(event)) == "id"
    assert (event["id"], event["actorId"], event["projectId"]) == (7, "u1", None)
    assert event["details"] == {"client": "docker", "digest": "sha256:a"}
    assert run(["audit", "list", "-o", "csv"], prog_name="layover") == 0
    heading, row, _ = capsys.readouterr().out.split("\n")
    assert heading.startswith("id,at,action,subject,result,")
    assert row.startswith("7,2026-01-31T12:00:00.000Z,manifests.push,p/app:v1,done,")
    assert len(asked) == 2


def test_filters_are_asked_of_the_server(asked: list[tuple[ListAuditEventsRequest, int]]) -> None:
    arguments = ["--server", "--since", "2026-01-30T12:00:00Z", "--until", "1h"]
    arguments += ["--action", "tokens", "--actor", "u1"]
    assert run(["audit", "list", *arguments], prog_name="layover") == 0
    ((request, _),) = asked
    assert (request.server, request.action, request.actor_id) == (True, "tokens", "u1")
    assert request.since is not None
    assert request.since.seconds == int((NOW - timedelta(days=1)).timestamp())
    assert request.until is not None


@pytest.mark.parametrize(
    "arguments",
    [
        ["--project", "p", "--org", "o"],
        ["--org", "o", "--server"],
        ["--since", "yesterday"],
        ["--limit", "0"],
    ],
)
def test_what_makes_no_sense_is_wrong_usage(
    arguments: list[str], asked: list[tuple[ListAuditEventsRequest, int]]
) -> None:
    assert run(["audit", "list", *arguments], prog_name="layover") == 2
    assert asked == []
    assert audit.command.name == "audit"
