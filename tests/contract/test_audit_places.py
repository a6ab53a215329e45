"""Whose log an event belongs in, on every database."""

from datetime import timedelta

import pytest
from sqlalchemy import insert, update

from layover.adapters.sql.audit_places import SqlAuditPlaces
from layover.adapters.sql.builds import SqlBuildStore
from layover.adapters.sql.pushes import SqlPushStore
from layover.adapters.sql.schema import memberships, projects, users
from layover.audit.ports import Named
from layover.builds.models import Build, BuildStatus
from layover.identity.models import (
    NewToken,
    Organization,
    Principal,
    Project,
    Role,
    TokenKind,
)
from layover.oci.digest import Digest
from layover.oci.references import Destination
from layover.promotion.models import Push
from tests.stores import NOW, RETENTION, Stores

pytestmark = pytest.mark.anyio

MINE = Project("mine", "mine", "org", "org", NOW)
ORG = Organization("org", "org", NOW)
PUSH = Push(
    id="push1",
    project_id="mine",
    build_id="b1",
    target="",
    source=Digest.of(b"an image"),
    destinations=(Destination.parse("registry.example/app:v1"),),
    created_at=NOW,
    created_by="user ada",
)


@pytest.fixture
def places(stores: Stores) -> SqlAuditPlaces:
    return SqlAuditPlaces(stores.database)


async def add(stores: Stores, principal: Principal, expires_in: timedelta | None = None) -> None:
    until = None if expires_in is None else NOW + expires_in
    secret_hash = principal.token_id.encode()
    await stores.identity.add_token(NewToken(principal, secret_hash, "for ci", NOW, until))


async def test_projects_organizations_builds_pushes_and_tokens_are_found_where_they_are(
    stores: Stores, places: SqlAuditPlaces
) -> None:
    await add(stores, Principal("p1", TokenKind.PROJECT, "org", project_id="mine"))
    await add(stores, Principal("o1", TokenKind.ORGANIZATION, "org"))
    await SqlBuildStore(stores.database).add(Build("b1", "mine", BuildStatus.CREATED, (), NOW, NOW))
    await SqlPushStore(stores.database).add(PUSH, 1)
    for named, key, expected in (
        (Named.PROJECT, "mine", MINE),
        (Named.ORGANIZATION, "org", ORG),
        (Named.BUILD, "b1", MINE),
        (Named.PUSH, "push1", MINE),
        (Named.TOKEN, "p1", MINE),
        (Named.TOKEN, "o1", ORG),
    ):
        assert await places.find_place(named, key) == expected
    for named in Named:
        assert await places.find_place(named, "never-was") is None


async def test_what_was_deleted_is_nowhere(stores: Stores, places: SqlAuditPlaces) -> None:
    await add(stores, Principal("p1", TokenKind.PROJECT, "org", project_id="mine"))
    await stores.database.write(
        lambda connection: connection.execute(
            update(projects).where(projects.c.id == "mine").values(deleted_at=NOW)
        )
    )
    assert await places.find_place(Named.PROJECT, "mine") is None
    assert await places.find_place(Named.TOKEN, "p1") is None
    assert await places.find_place(Named.ORGANIZATION, "org") == ORG


async def test_whose_a_token_was_is_known_also_when_it_is_over(
    stores: Stores, places: SqlAuditPlaces
) -> None:
    build = Principal("t1", TokenKind.BUILD, "org", project_id="mine", build_id="b1", name="for ci")
    await add(stores, build, -RETENTION)
    assert await places.find_holder(b"t1") == build
    await stores.identity.revoke_build_tokens("b1", TokenKind.BUILD, NOW)
    assert await places.find_holder(b"t1") == build
    assert await places.find_holder(b"never was") is None


async def test_a_users_token_is_the_users_in_each_organization(
    stores: Stores, places: SqlAuditPlaces
) -> None:
    def add_user(connection: object) -> None:
        execute = connection.execute  # type: ignore[attr-defined]  # a Connection
        execute(insert(users).values(id="u1", name="zoë", is_admin=False, created_at=NOW))
        for organization_id, role in (("org", "owner"), ("other-org", "viewer")):
            execute(
                insert(memberships).values(
                    user_id="u1", organization_id=organization_id, role=role, created_at=NOW
                )
            )

    await stores.database.write(add_user)
    await add(stores, Principal("t1", TokenKind.USER, user_id="u1"))
    assert await places.find_holder(b"t1") == Principal(
        "t1",
        TokenKind.USER,
        user_id="u1",
        name="zoë",
        roles={"org": Role.OWNER, "other-org": Role.VIEWER},
    )
    assert await places.find_place(Named.TOKEN, "t1") is None
