"""`layover projects trust` asks for what was typed, and shows what there is."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from protobuf.wkt import Timestamp

from layover.cli.main import run
from layover.rpc.layover.v1 import trust_pb
from layover.rpc.layover.v1.trust_connect import TrustService, TrustServiceASGIApplication
from tests.unit.cli.exchange import listening

PROJECT = "pppppppppp"
POLICY = trust_pb.TrustPolicy(
    id="policyaaaa",
    project_id=PROJECT,
    name="github acme/app",
    provider="github",
    issuer="https://token.actions.githubusercontent.com",
    claims={"repository": "acme/app", "ref": "refs/heads/main"},
    grants=trust_pb.Grant.PROJECT,
    created_by="alice",
    created_at=Timestamp.from_datetime(datetime(2026, 1, 1, tzinfo=UTC)),
)


class Trust(TrustService):
    def __init__(self) -> None:
        self.made: list[trust_pb.CreateTrustPolicyRequest] = []
        self.deleted: list[tuple[str, str]] = []
        self.warning = ""

    async def create_trust_policy(
        self, request: trust_pb.CreateTrustPolicyRequest, ctx: Any
    ) -> trust_pb.CreateTrustPolicyResponse:
        self.made.append(request)
        return trust_pb.CreateTrustPolicyResponse(policy=POLICY, warning=self.warning)

    async def list_trust_policies(
        self, request: trust_pb.ListTrustPoliciesRequest, ctx: Any
    ) -> trust_pb.ListTrustPoliciesResponse:
        assert request.project_id == PROJECT
        return trust_pb.ListTrustPoliciesResponse(policies=[POLICY])

    async def delete_trust_policy(
        self, request: trust_pb.DeleteTrustPolicyRequest, ctx: Any
    ) -> trust_pb.DeleteTrustPolicyResponse:
        if request.policy_id != POLICY.id:
            raise ConnectError(Code.NOT_FOUND, f"unknown trust policy {request.policy_id!r}")
        self.deleted.append((request.project_id, request.policy_id))
        return trust_pb.DeleteTrustPolicyResponse()


@pytest.fixture
def trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trust]:
    service = Trust()
    with listening(TrustServiceASGIApplication(service)) as url:
        monkeypatch.setenv("LAYOVER_CONFIG_DIR", str(tmp_path))
        monkeypatch.setenv("LAYOVER_URL", url)
        monkeypatch.setenv("LAYOVER_TOKEN", "layover_user")
        monkeypatch.setenv("LAYOVER_PROJECT_ID", PROJECT)
        yield service


def typed(*arguments: str) -> int:
    return run(["projects", "trust", *arguments], prog_name="layover")


def test_conditions_claims_and_the_rest_are_asked_for_as_typed(
    trust: Trust, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("add", "github", "repository=acme/app", "branch = release/*=x") == 0
    assert "acme/app" in capsys.readouterr().out
    status = typed(
        *("add", "generic", "--issuer", "https://ci.example", "--claim", "sub=a", "--grant"),
        *("pull", "--claim", "/build/branch=main", "--name", "mine", "--audience", "ours"),
        *("--project", "oooooooooo"),
    )
    assert status == 0
    first, second = trust.made
    assert (first.project_id, first.provider, first.name) == (
        PROJECT,
        "github",
        "github acme/app release/*=x",
    )
    assert first.conditions == {"repository": "acme/app", "branch": "release/*=x"}
    assert first.grants is trust_pb.Grant.PROJECT
    assert second.claims == {"sub": "a", "/build/branch": "main"}
    assert (second.project_id, second.name, second.audience, second.issuer) == (
        "oooooooooo",
        "mine",
        "ours",
        "https://ci.example",
    )
    assert second.grants is trust_pb.Grant.PULL


@pytest.mark.parametrize(
    "arguments",
    [
        ("add",),
        ("add", "jenkins"),
        ("add", "github", "repository"),
        ("add", "github", "=acme/app"),
        ("add", "github", "repository= "),
        ("add", "github", "branch=a", "branch=b"),
        ("add", "generic", "--claim", "sub=a", "--claim", "sub=b"),
        ("add", "github", "repository=acme/app", "--grant", "admin"),
        ("rm",),
    ],
)
def test_wrong_usage_reaches_no_server(trust: Trust, arguments: tuple[str, ...]) -> None:
    assert typed(*arguments) == 2
    assert trust.made == []


def test_what_keeps_a_policy_from_trusting_anybody_is_a_warning(
    trust: Trust, capsys: pytest.CaptureFixture[str]
) -> None:
    trust.warning = "the keys cannot be read"
    assert typed("add", "github", "repository=acme/app", "-o", "json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)[0]["id"] == POLICY.id
    assert "warning: it trusts nobody yet: the keys cannot be read" in told.err


def test_policies_are_listed_in_each_form(trust: Trust, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("list", "--output", "json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "id": POLICY.id,
            "name": "github acme/app",
            "projectId": PROJECT,
            "provider": "github",
            "issuer": POLICY.issuer,
            "audience": None,
            "claims": {"repository": "acme/app", "ref": "refs/heads/main"},
            "grants": "project",
            "createdBy": "alice",
            "createdAt": "2026-01-01T00:00:00.000Z",
        }
    ]
    assert typed("list", "--output", "csv") == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.startswith("id,name,")
    assert row.startswith(f"{POLICY.id},github acme/app,")
    assert typed("list") == 0
    table = capsys.readouterr().out
    assert "ref=refs/heads/main" in table
    assert "repository=acme/app" in table


def test_each_policy_that_is_there_is_deleted(
    trust: Trust, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("rm", "unknown", POLICY.id) == 1
    told = capsys.readouterr()
    assert trust.deleted == [(PROJECT, POLICY.id)]
    assert told.out.split() == [POLICY.id]
    assert "unknown trust policy 'unknown'" in told.err
