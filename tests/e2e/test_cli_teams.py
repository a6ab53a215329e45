"""Organizations, members, projects and tokens, as a team's owner types them."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from layover.adapters.sql.schema import memberships, tokens, users
from layover.identity.ids import new_id, new_secret
from tests.e2e.registry import Registry, add_tenant, basic
from tests.e2e.server import LayoverServer
from tests.stores import NOW


@pytest.fixture(scope="module")
def server(short_tmp: Path) -> Iterator[LayoverServer]:
    server = LayoverServer(short_tmp / "teams")
    try:
        server.start()
        assert server.project_id
        yield server
    finally:
        server.remove()


def listed(server: LayoverServer, *arguments: str, token: str = "") -> list[dict[str, Any]]:
    env = {"LAYOVER_TOKEN": token} if token else {}
    rows: list[dict[str, Any]] = json.loads(
        server.cli(*arguments, "--output", "json", env=env).stdout
    )
    for row in rows:
        assert list(row)[:2] == ["id", "name"]
    return rows


def refused(
    server: LayoverServer, *arguments: str, token: str = "", status: int = 1
) -> "subprocess.CompletedProcess[str]":
    env = {"LAYOVER_TOKEN": token} if token else {}
    done = server.cli(*arguments, env=env, check=False)
    assert done.returncode == status, done
    assert done.stdout == ""
    return done


def secret_of(server: LayoverServer, *arguments: str, token: str = "") -> str:
    """What a command prints that makes a token: nothing else."""
    env = {"LAYOVER_TOKEN": token} if token else {}
    done = server.cli(*arguments, env=env)
    secret = done.stdout.removesuffix("\n")
    assert secret.startswith("layover_")
    assert "\n" not in secret
    assert secret not in done.stderr
    return secret


def organization_of(server: LayoverServer) -> str:
    (project,) = (
        row for row in listed(server, "projects", "list") if row["id"] == server.project_id
    )
    return str(project["organizationId"])


def add_user(server: LayoverServer, name: str, role: str) -> str:
    """A member of the first organization, who accepted an invitation; return its token."""
    secret, user_id = new_secret(), new_id()
    organization_id = organization_of(server)
    with server.transaction() as connection:
        connection.execute(
            insert(users).values(id=user_id, name=name, is_admin=False, created_at=NOW)
        )
        connection.execute(
            insert(memberships).values(
                user_id=user_id, organization_id=organization_id, role=role, created_at=NOW
            )
        )
        connection.execute(
            insert(tokens).values(
                id=new_id(),
                kind="user",
                secret_hash=hashlib.sha256(secret.encode()).digest(),
                user_id=user_id,
                created_by=user_id,
                description="",
                created_at=NOW,
            )
        )
    return secret


def logs_in(server: LayoverServer, token: str) -> bool:
    return server.request("GET", "/v2/", headers=basic(token), authenticate=False).status == 200


def test_an_administrator_makes_an_organization_with_a_project_and_deletes_both(
    server: LayoverServer,
) -> None:
    (made,) = listed(server, "orgs", "create", "Acme")
    assert (made["name"], made["role"]) == ("Acme", "owner")
    (renamed,) = listed(server, "orgs", "rename", made["id"], "Acme Web")
    assert renamed["name"] == "Acme Web"
    assert made["id"] in {row["id"] for row in listed(server, "orgs", "list")}
    assert "Acme Web" in server.cli("orgs", "list").stdout
    done = refused(server, "orgs", "create", "txt\u202egpj")
    assert "U+202E" in done.stderr
    assert "\u202e" not in done.stderr
    # Two organizations: which one is meant has to be said.
    assert "--org" in refused(server, "projects", "create", "web").stderr
    (project,) = listed(
        server, "projects", "create", "web", "--org", made["id"], "--retention", "200d"
    )
    assert (project["organizationId"], project["retentionSeconds"]) == (made["id"], 200 * 86400)
    assert project["maxRetentionSeconds"] == 200 * 86400
    (called,) = listed(server, "projects", "update", project["id"], "--name", "site")
    assert called["name"] == "site"
    assert "has 1 project" in refused(server, "orgs", "delete", made["id"]).stderr
    assert server.cli("projects", "delete", project["id"]).stdout == f"{project['id']}\n"
    assert server.cli("orgs", "delete", made["id"]).stdout == f"{made['id']}\n"
    assert "unknown organization" in refused(server, "orgs", "delete", made["id"]).stderr


def test_members_are_invited_changed_and_removed_with_what_they_made(
    server: LayoverServer,
) -> None:
    organization = organization_of(server)
    invited = server.cli("members", "invite", "--role", "viewer", "--note", "Ann")
    (link,) = invited.stdout.splitlines()
    assert link.startswith(f"{server.url}/join/")
    assert link.rpartition("/")[2] not in invited.stderr
    (invitation,) = listed(server, "members", "invitations")
    assert (invitation["name"], invitation["role"]) == ("Ann", "viewer")
    assert link.rpartition("/")[2] not in json.dumps(invitation)
    server.cli("members", "uninvite", invitation["id"])
    assert listed(server, "members", "invitations") == []

    bob = add_user(server, "bob", "owner")
    assert {row["name"]: row["role"] for row in listed(server, "members", "list")} == {
        "admin": "owner",
        "bob": "owner",
    }
    ci = secret_of(server, "tokens", "create", "--kind", "organization", token=bob)
    pull = secret_of(server, "pull-token", "--project", server.project_id, token=bob)
    assert logs_in(server, ci)
    changed = server.cli("members", "update", "bob", "--role", "viewer", "--output", "json")
    assert json.loads(changed.stdout)[0]["role"] == "viewer"
    assert "1 token was revoked" in changed.stderr
    assert not logs_in(server, ci)
    assert logs_in(server, pull)
    denied = refused(server, "members", "invite", "--role", "owner", token=bob)
    assert "may not manage members" in denied.stderr
    removed = server.cli("members", "remove", "bob", "--org", organization)
    assert "1 token was revoked" in removed.stderr
    assert not logs_in(server, pull)
    assert listed(server, "projects", "list", token=bob) == []
    assert (
        "unknown organization"
        in refused(server, "members", "list", "--org", organization, token=bob).stderr
    )
    assert "last owner" in refused(server, "members", "remove", "admin").stderr


def test_tokens_are_made_used_listed_and_revoked_with_what_they_made(
    server: LayoverServer,
) -> None:
    project = secret_of(
        server,
        *("tokens", "create", "--kind", "project", "--description", "of CI", "--expires", "90d"),
    )
    # A token makes tokens that pull, and those end with it.
    pull = secret_of(server, "pull-token", token=project)
    registry = Registry(server, server.project_id, basic(project))
    registry.push_image("latest", b"layer")
    puller = registry.as_(basic(pull))
    assert puller("GET", "manifests/latest").status == 200
    assert puller("PUT", "manifests/other", b"{}").status == 403
    (mine,) = (row for row in listed(server, "tokens", "list") if row["name"] == "of CI")
    assert (mine["kind"], mine["projectId"]) == ("project", server.project_id)
    assert mine["createdBy"] == "admin"
    of_project = listed(server, "tokens", "list", "--project", server.project_id)
    (child,) = (row for row in of_project if row["createdBy"] == f"project token {mine['id']}")
    assert child["kind"] == "pull"
    for secret in (project, pull):
        assert secret not in json.dumps(of_project)
    for arguments, why in (
        (("--kind", "project"), "may not manage tokens"),
        (("--kind", "user"), "may not manage a user's own tokens"),
    ):
        done = refused(server, "tokens", "create", *arguments, token=project)
        assert why in done.stderr
    assert "unknown token" in refused(server, "tokens", "revoke", mine["id"], token=pull).stderr
    revoked = server.cli("tokens", "revoke", mine["id"])
    assert revoked.stdout == f"{mine['id']}\n"
    assert "1 that it had made ended too" in revoked.stderr
    assert not logs_in(server, project)
    assert not logs_in(server, pull)
    assert "lives for 1m to 3650d" in refused(server, "pull-token", "--expires", "1s").stderr


def test_another_tenants_things_read_as_things_that_are_not_there(server: LayoverServer) -> None:
    tenant = add_tenant(server, "teamsother")
    told = set()
    for project_id in (server.project_id, "nosuchproj"):
        done = refused(server, "projects", "delete", project_id, token=tenant.user)
        told.add(done.stderr.replace(project_id, "ID"))
    assert len(told) == 1
    told = set()
    for organization_id in (organization_of(server), "nosuchorga"):
        done = refused(server, "orgs", "delete", organization_id, token=tenant.user)
        told.add(done.stderr.replace(organization_id, "ID"))
    assert len(told) == 1
