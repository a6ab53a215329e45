"""What every TokenStore does, on every database; and what tokens that are made rest on."""

from dataclasses import replace
from datetime import timedelta

import pytest

from layover.identity.management import Place, Token, TokenFilter
from layover.identity.models import (
    NewToken,
    OrganizationUnknown,
    Principal,
    ProjectUnknown,
    Role,
    TokenKind,
    Unauthenticated,
)
from tests.contract.tenants import Refused, Tenants, owner
from tests.stores import NOW, Stores

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
EVERYTHING = TokenFilter()


@pytest.fixture
async def tenants(stores: Stores) -> Tenants:
    tenants = Tenants(stores)
    await tenants.add_users()
    return tenants


async def ids(tenants: Tenants, wanted: TokenFilter) -> list[str]:
    page = await tenants.tokens.list_tokens(wanted, None, 100, NOW)
    assert page.next_place is None
    return [token.id for token in page.tokens]


async def test_a_token_tells_all_but_its_secret(tenants: Tenants) -> None:
    await tenants.token("t", TokenKind.PULL, project_id="mine", build_id="b", created_by="member")
    await tenants.stores.identity.mark_used({"t": NOW + HOUR / 2})
    expected = Token(
        id="t",
        kind=TokenKind.PULL,
        description="about t",
        organization_id="org",
        user_id=None,
        project_id="mine",
        build_id="b",
        created_by="member",
        parent_id=None,
        maker="name of member",
        created_at=NOW,
        expires_at=NOW + HOUR,
        last_used_at=NOW + HOUR / 2,
    )
    assert await tenants.tokens.find_token("t", NOW) == expected
    assert await tenants.tokens.find_token("t", NOW + HOUR) is None
    assert await tenants.tokens.find_token("unknown", NOW) is None
    (listed,) = (await tenants.tokens.list_tokens(EVERYTHING, None, 9, NOW)).tokens
    assert listed == expected


async def test_it_is_told_who_or_what_made_a_token(tenants: Tenants) -> None:
    await tenants.token("parent", TokenKind.PROJECT, project_id="mine")
    await tenants.token("child", TokenKind.PULL, project_id="mine", parent_id="parent")
    makers = {
        token.id: token.maker
        for token in (await tenants.tokens.list_tokens(EVERYTHING, None, 9, NOW)).tokens
    }
    assert makers == {"parent": "the server", "child": "project token parent"}


async def test_tokens_are_listed_by_what_they_are_for_and_by_who_made_them(
    tenants: Tenants,
) -> None:
    await tenants.token("org-wide", TokenKind.ORGANIZATION, created_by="owner")
    await tenants.token("project", TokenKind.PROJECT, project_id="mine", created_by="owner")
    await tenants.token("pull", TokenKind.PULL, project_id="mine", created_by="member")
    await tenants.token("child", TokenKind.PULL, project_id="mine", parent_id="project")
    await tenants.token("users", TokenKind.USER, created_by="member", lifetime=None)
    await tenants.token(
        "foreign", TokenKind.PROJECT, organization_id="other-org", project_id="foreign"
    )
    await tenants.token("build", TokenKind.BUILD, project_id="mine", build_id="b")
    await tenants.token("over", TokenKind.PULL, project_id="mine", lifetime=timedelta(0))
    await tenants.token("revoked", TokenKind.PULL, project_id="mine")
    assert await tenants.tokens.revoke_token("revoked", NOW) == 1
    assert set(await ids(tenants, TokenFilter(organization_id="org"))) == {
        "org-wide",
        "project",
        "pull",
        "child",
    }
    assert set(await ids(tenants, TokenFilter(project_id="mine"))) == {"project", "pull", "child"}
    assert set(await ids(tenants, TokenFilter(created_by="member"))) == {"pull", "users"}
    assert await ids(tenants, TokenFilter(parent_id="project")) == ["child"]
    assert await ids(tenants, TokenFilter(organization_id="org", created_by="member")) == ["pull"]
    assert await ids(tenants, TokenFilter(project_id="unknown")) == []


async def test_pages_have_each_token_once_the_newest_first(tenants: Tenants) -> None:
    for number in range(5):
        # Two were made at the same moment.
        await tenants.token(
            f"t{number}",
            TokenKind.PULL,
            project_id="mine",
            created_at=NOW + timedelta(seconds=number // 2),
        )
    found: list[str] = []
    after: Place | None = None
    for size in (2, 2, 1):
        page = await tenants.tokens.list_tokens(EVERYTHING, after, 2, NOW)
        assert len(page.tokens) == size
        found += [token.id for token in page.tokens]
        after = page.next_place
    assert after is None
    assert found == ["t4", "t3", "t2", "t1", "t0"]


async def test_a_revoked_token_is_gone_with_what_it_made_and_once(tenants: Tenants) -> None:
    await tenants.token("parent", TokenKind.PROJECT, project_id="mine")
    await tenants.token("build", TokenKind.BUILD, project_id="mine", parent_id="parent")
    await tenants.token("pull", TokenKind.PULL, project_id="mine", parent_id="build")
    await tenants.token("other", TokenKind.PULL, project_id="mine")
    assert await tenants.tokens.revoke_token("parent", NOW) == 3
    assert await tenants.tokens.revoke_token("parent", NOW) == 0
    assert await tenants.tokens.revoke_token("unknown", NOW) == 0
    for gone in ("parent", "build", "pull"):
        assert not await tenants.lives(gone)
        assert await tenants.tokens.find_token(gone, NOW) is None
    assert await tenants.lives("other")


async def test_what_a_token_made_ends_with_it_at_the_latest_but_for_builds(
    tenants: Tenants,
) -> None:
    await tenants.token("parent", TokenKind.PROJECT, project_id="mine", lifetime=HOUR)
    for token_id, kind in (("pull", TokenKind.PULL), ("build", TokenKind.BUILD)):
        await tenants.token(
            token_id, kind, project_id="mine", parent_id="parent", lifetime=2 * HOUR
        )
    await tenants.token(
        "for-ever", TokenKind.PULL, project_id="mine", parent_id="parent", lifetime=None
    )
    ends = {}
    for token_id in ("pull", "build", "for-ever"):
        token = await tenants.tokens.find_token(token_id, NOW)
        assert token is not None
        ends[token_id] = token.expires_at
    assert ends == {"pull": NOW + HOUR, "build": NOW + 2 * HOUR, "for-ever": NOW + HOUR}
    # What drives a build is not forgotten with what made it.
    store = tenants.stores.identity
    await store.delete_over_tokens(NOW + HOUR, NOW)
    assert await store.find_principal(b"build", NOW + HOUR)
    await store.delete_over_tokens(NOW + 2 * HOUR, NOW)
    assert await tenants.tokens.find_token("parent", NOW) is None


async def test_no_token_is_made_by_one_that_is_over(tenants: Tenants) -> None:
    await tenants.token("parent", TokenKind.PROJECT, project_id="mine")
    await tenants.tokens.revoke_token("parent", NOW)
    for parent in ("parent", "unknown"):
        with pytest.raises(Unauthenticated):
            await tenants.token("child", TokenKind.PULL, project_id="mine", parent_id=parent)


async def test_no_token_is_made_for_what_was_deleted(tenants: Tenants) -> None:
    await tenants.projects.delete_project("mine", NOW)
    with pytest.raises(ProjectUnknown):
        await tenants.token("t1", TokenKind.PROJECT, project_id="mine")
    await tenants.organizations.delete_organization("org", owner(), NOW)
    with pytest.raises(OrganizationUnknown):
        await tenants.token("t2", TokenKind.ORGANIZATION)
    with pytest.raises(OrganizationUnknown):
        await tenants.token("t3", TokenKind.ORGANIZATION, organization_id="unknown")


async def test_who_makes_a_token_is_asked_for_the_role_of_that_moment(tenants: Tenants) -> None:
    made = NewToken(
        Principal("t", TokenKind.PROJECT, "org", project_id="mine"), b"t", "", NOW, None, "member"
    )
    asked: list[Role | None] = []

    def check(role: Role | None) -> None:
        asked.append(role)
        if role is None:
            raise Refused

    store = tenants.stores.identity
    await store.add_token(made, check)
    with pytest.raises(Refused):
        await store.add_token(replace(made, secret_hash=b"u", created_by="outsider"), check)
    assert asked == [Role.MEMBER, None]
    assert await store.find_principal(b"t", NOW)
    assert not await store.find_principal(b"u", NOW)
