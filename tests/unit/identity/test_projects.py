from dataclasses import replace
from datetime import timedelta

import pytest

import layover.identity.projects
from layover.adapters.sql.projects import SqlProjectStore
from layover.identity.management import TooMany
from layover.identity.models import (
    ActionDenied,
    OrganizationUnknown,
    ProjectPolicy,
    ProjectUnknown,
    Unauthenticated,
)
from layover.identity.names import InvalidName
from layover.identity.retention import InvalidRetention
from tests.stores import REPOSITORY, push_image
from tests.unit.identity.tenancy import Tenancy

pytestmark = pytest.mark.anyio

POLICY = ProjectPolicy(timedelta(days=1), timedelta(days=2), quota_bytes=1 << 30)


async def test_owners_and_organization_tokens_make_projects(tenancy: Tenancy) -> None:
    for who in ("owner", "organization"):
        made = await tenancy.projects.create(await tenancy.caller(who), None, " web ", POLICY)
        assert (made.name, made.organization_id, made.policy) == ("web", "org", POLICY)
        found = await tenancy.identity.list_projects(await tenancy.caller("viewer"))
        assert made in found
    for who in ("member", "viewer"):
        with pytest.raises(ActionDenied):
            await tenancy.projects.create(await tenancy.caller(who), None, "web", POLICY)
    for who, organization_id in (
        ("stranger", "org"),
        ("owner", "other-org"),
        ("project", "org"),
        ("owner", "nosuchorga"),
    ):
        with pytest.raises(OrganizationUnknown):
            await tenancy.projects.create(await tenancy.caller(who), organization_id, "web", POLICY)


async def test_a_project_has_a_name_and_a_policy_that_can_be(tenancy: Tenancy) -> None:
    owner = await tenancy.caller("owner")
    for name in ("", "a\nb", "x" * 101):
        with pytest.raises(InvalidName):
            await tenancy.projects.create(owner, None, name, POLICY)
        with pytest.raises(InvalidName):
            await tenancy.identity.change_policy(owner, "mine", lambda policy: policy, name)
    with pytest.raises(InvalidRetention):
        await tenancy.projects.create(
            owner, None, "web", replace(POLICY, retention=timedelta(days=3))
        )
    renamed = await tenancy.identity.change_policy(owner, "mine", lambda policy: policy, " web ")
    assert renamed.name == "web"


async def test_there_are_so_many_projects_and_no_more(
    tenancy: Tenancy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layover.identity.projects, "MAX_PROJECTS", 2)
    owner = await tenancy.caller("owner")
    await tenancy.projects.create(owner, None, "two", POLICY)
    with pytest.raises(TooMany, match="2 projects"):
        await tenancy.projects.create(owner, None, "three", POLICY)


async def test_owners_delete_projects_and_they_are_gone_for_everybody(tenancy: Tenancy) -> None:
    for who in ("member", "viewer", "organization", "project", "pull"):
        with pytest.raises(ActionDenied):
            await tenancy.projects.delete(await tenancy.caller(who), "mine")
    for who, project_id in (("stranger", "mine"), ("owner", "foreign"), ("owner", "nosuchproj")):
        with pytest.raises(ProjectUnknown):
            await tenancy.projects.delete(await tenancy.caller(who), project_id)
    await push_image(tenancy.stores, REPOSITORY, b"layer", build_id="build")
    owner = await tenancy.caller("owner")
    await tenancy.projects.delete(owner, "mine")
    with pytest.raises(ProjectUnknown):
        await tenancy.projects.delete(owner, "mine")
    assert await tenancy.identity.list_projects(owner) == []
    assert await tenancy.identity.list_projects(await tenancy.caller("organization")) == []
    for who in ("project", "pull"):
        with pytest.raises(Unauthenticated):
            await tenancy.caller(who)


async def test_what_comes_later_goes_with_the_next_clean_up(tenancy: Tenancy) -> None:
    async def left() -> int:
        store = SqlProjectStore(tenancy.stores.database)
        return await store.clear_project("mine", tenancy.clock.now, 100)

    await tenancy.projects.delete(await tenancy.caller("owner"), "mine")
    await push_image(tenancy.stores, REPOSITORY, b"late", tag="latest", now=tenancy.clock.now)
    await tenancy.projects.clear_deleted()
    assert await left() == 0
    # Requests last for a day at most; what could still come is nothing's.
    tenancy.clock.advance(timedelta(days=2))
    await tenancy.projects.clear_deleted()
    await push_image(tenancy.stores, REPOSITORY, b"later", tag="latest", now=tenancy.clock.now)
    await tenancy.projects.clear_deleted()
    assert await left() > 0
