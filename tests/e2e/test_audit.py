"""What a server's owner reads afterwards of what was done on it, and from where."""

import json
from pathlib import Path
from typing import Any

import pytest

from layover.identity.ids import new_secret
from tests.e2e.images import busybox_context
from tests.e2e.pairs import EMBEDDED, REPLICATED
from tests.e2e.registry import Registry, basic, image
from tests.e2e.server import LayoverServer

pytestmark = pytest.mark.pairs(EMBEDDED, REPLICATED)


def told(server: LayoverServer, *flags: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(
        server.cli("audit", "list", "--output", "json", "--limit", "1000", *flags).stdout
    )
    return rows


def test_each_thing_that_was_done_is_told_with_its_address_and_result(
    server: LayoverServer, tmp_path: Path
) -> None:
    project = server.project_id
    build = server.save(busybox_context(tmp_path / "context", "audited"))
    registry = Registry(server, f"{project}/audited", basic(server.token))
    registry.push_blob(b"{}")
    assert registry.push_manifest("v1", image()).status == 201
    assert registry("DELETE", "manifests/v1").status == 202
    made = server.request(
        "POST",
        "/layover.v1.TokensService/CreateToken",
        body=json.dumps(
            {"kind": "TOKEN_KIND_PULL", "projectId": project, "description": "for the audit"}
        ).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {server.token}"},
        authenticate=False,
    )
    assert made.status == 200, made
    token, secret = made.json()["token"]["id"], made.json()["secret"]
    unknown = new_secret()
    puller = registry.as_(basic(secret))
    assert puller("GET", "/token").status == 200
    assert puller("DELETE", "manifests/v2").status == 403
    assert registry.as_(basic(unknown))("GET", "/token").status == 401

    events = told(server, "--project", project)
    for action, subject, result, actor in (
        ("builds.create", build.id, "done", "user"),
        ("manifests.push", f"{project}:{build.id}", "done", "build"),
        ("builds.finish", build.id, "done", "build"),
        ("manifests.push", f"{project}/audited:v1", "done", "user"),
        ("tags.delete", f"{project}/audited:v1", "done", "user"),
        ("tokens.create", token, "done", "user"),
        ("login.registry", "", "done", "pull"),
        ("repositories.delete", f"{project}/audited", "denied", "pull"),
    ):
        found = [
            event
            for event in events
            if (event["action"], event["subject"], event["result"], event["actorKind"])
            == (action, subject, result, actor)
        ]
        assert found, (action, events)
        assert {event["address"] for event in found} <= {"127.0.0.1", "::1"}
        assert all(event["requestId"] and event["projectId"] == project for event in found)

    refusals = told(server, "--server", "--action", "login")
    assert any(event["details"].get("token") == unknown[:12] for event in refusals)
    assert {event["result"] for event in refusals} == {"denied"}
    everything = json.dumps([*events, *refusals])
    for each in (secret, unknown, server.token):
        assert each not in everything

    shown = server.cli("audit", "list", "--project", project, "--action", "tokens").stdout
    assert token in shown
    assert "manifests.push" not in shown
