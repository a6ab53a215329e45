from datetime import timedelta

import pytest

from layover.identity.management import InvalidLifetime, TokenUnknown
from layover.identity.models import (
    ActionDenied,
    OrganizationUnknown,
    Principal,
    ProjectUnknown,
    Role,
    TokenKind,
    Unauthenticated,
)
from layover.identity.names import InvalidName
from layover.identity.paging import encode_place
from layover.identity.tokens import CreatedToken
from tests.unit.identity.tenancy import Tenancy

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


async def pull(
    tenancy: Tenancy,
    who: str,
    lifetime: timedelta | None = None,
    build_id: str | None = None,
    until: timedelta | None = None,
) -> CreatedToken:
    end = None if until is None else tenancy.clock.now + until
    return await tenancy.tokens.create_pull_token(
        await tenancy.caller(who), await tenancy.mine(), build_id, end, "", lifetime
    )


async def listed(
    tenancy: Tenancy, who: str, organization_id: str | None = None, project_id: str | None = None
) -> set[str]:
    page = await tenancy.tokens.list_tokens(
        await tenancy.caller(who), organization_id, project_id, 0, ""
    )
    return {token.id for token in page.tokens}


async def test_a_user_makes_tokens_of_its_own_and_nobody_else_does(tenancy: Tenancy) -> None:
    viewer = await tenancy.caller("viewer")
    made = await tenancy.tokens.create_user_token(viewer, " my laptop ", 30 * 24 * HOUR)
    assert made.secret not in repr(made)
    assert (made.token.kind, made.token.description) == (TokenKind.USER, "my laptop")
    assert (made.token.maker, made.token.organization_id) == ("viewer", None)
    assert made.token.expires_at == tenancy.clock.now + 30 * 24 * HOUR
    caller = await tenancy.identity.authenticate(made.secret)
    assert (caller.user_id, caller.roles) == ("viewer", viewer.roles)
    for who in ("organization", "project", "pull"):
        with pytest.raises(ActionDenied):
            await tenancy.tokens.create_user_token(await tenancy.caller(who), "", None)


async def test_owners_alone_make_what_stays(tenancy: Tenancy) -> None:
    mine = await tenancy.mine()
    for who in ("member", "viewer", "organization", "project"):
        caller = await tenancy.caller(who)
        with pytest.raises(ActionDenied):
            await tenancy.tokens.create_project_token(caller, mine, "", None)
        if who != "project":
            with pytest.raises(ActionDenied):
                await tenancy.tokens.create_organization_token(caller, "org", "", None)
    with pytest.raises(OrganizationUnknown):
        await tenancy.tokens.create_organization_token(
            await tenancy.caller("project"), "org", "", None
        )
    stranger = await tenancy.caller("stranger")
    with pytest.raises(ProjectUnknown):
        await tenancy.tokens.create_project_token(stranger, mine, "", None)
    with pytest.raises(OrganizationUnknown):
        await tenancy.tokens.create_organization_token(stranger, "org", "", None)


async def test_a_pull_token_lives_for_an_hour_and_never_beyond_its_build(
    tenancy: Tenancy,
) -> None:
    now = tenancy.clock.now
    assert (await pull(tenancy, "viewer")).token.expires_at == now + HOUR
    assert (await pull(tenancy, "viewer", 30 * 24 * HOUR)).token.expires_at == now + 30 * 24 * HOUR
    bound = await pull(tenancy, "viewer", 30 * 24 * HOUR, "build", until=2 * HOUR)
    assert (bound.token.expires_at, bound.token.build_id) == (now + 2 * HOUR, "build")
    assert bound.token.description == "pull build build"
    caller = await tenancy.identity.authenticate(bound.secret)
    assert (caller.kind, caller.project_id, caller.build_id) == (TokenKind.PULL, "mine", "build")
    for who, refusal in (("pull", ActionDenied), ("stranger", ProjectUnknown)):
        with pytest.raises(refusal):
            await pull(tenancy, who)


@pytest.mark.parametrize(
    "lifetime", [timedelta(0), timedelta(seconds=-1), timedelta(seconds=59), timedelta(days=3651)]
)
async def test_a_lifetime_that_nobody_can_mean_is_refused(
    lifetime: timedelta, tenancy: Tenancy
) -> None:
    with pytest.raises(InvalidLifetime, match="1m to 3650d"):
        await pull(tenancy, "viewer", lifetime)
    with pytest.raises(InvalidLifetime):
        await tenancy.tokens.create_user_token(await tenancy.caller("owner"), "", lifetime)


async def test_a_description_is_one_line_that_can_be_read(tenancy: Tenancy) -> None:
    for description in ("two\nlines", "x" * 201, "\u202e"):
        with pytest.raises(InvalidName):
            await tenancy.tokens.create_user_token(await tenancy.caller("owner"), description, None)


async def test_what_a_token_makes_ends_with_it(tenancy: Tenancy) -> None:
    owner = await tenancy.caller("owner")
    project = await tenancy.caller("project")
    made = await pull(tenancy, "project")
    assert made.token.maker == f"project token {project.token_id}"
    assert await tenancy.tokens.revoke(owner, project.token_id) == 2
    with pytest.raises(Unauthenticated):
        await tenancy.identity.authenticate(made.secret)
    # Also a request of it that was authorized before makes nothing any more.
    with pytest.raises(Unauthenticated):
        await tenancy.identity.create_pull_token(project, await tenancy.mine())


async def test_owners_see_all_tokens_and_others_those_that_they_made(tenancy: Tenancy) -> None:
    by_member = (await pull(tenancy, "member")).token.id
    by_project = (await pull(tenancy, "project")).token.id
    own = {name: (await tenancy.caller(name)).token_id for name in tenancy_names()}
    everything = {own["organization"], own["project"], own["pull"], by_member, by_project}
    assert await listed(tenancy, "owner", "org") == everything
    assert await listed(tenancy, "owner", project_id="mine") == everything - {own["organization"]}
    assert await listed(tenancy, "second", "org") == everything
    assert await listed(tenancy, "member", "org") == {by_member}
    assert await listed(tenancy, "member", project_id="mine") == {by_member}
    assert await listed(tenancy, "member") == {by_member, own["member"]}
    assert await listed(tenancy, "viewer", project_id="mine") == set()
    assert await listed(tenancy, "organization", "org") == set()
    assert await listed(tenancy, "project") == {by_project}
    assert await listed(tenancy, "pull") == set()
    for who in ("stranger", "project"):
        with pytest.raises(OrganizationUnknown):
            await listed(tenancy, who, "org")
    with pytest.raises(ProjectUnknown):
        await listed(tenancy, "stranger", project_id="mine")


def tenancy_names() -> tuple[str, ...]:
    return ("owner", "member", "organization", "project", "pull")


async def test_pages_follow_each_other(tenancy: Tenancy) -> None:
    owner = await tenancy.caller("owner")
    first = await tenancy.tokens.list_tokens(owner, "org", None, 2, "")
    assert len(first.tokens) == 2
    assert first.next_place is not None
    second = await tenancy.tokens.list_tokens(owner, "org", None, 2, encode_place(first.next_place))
    assert len(second.tokens) == 1
    assert second.next_place is None
    assert not {token.id for token in first.tokens} & {token.id for token in second.tokens}


async def test_a_token_is_revoked_by_its_maker_its_owner_and_itself(tenancy: Tenancy) -> None:
    for revoker in ("member", "owner", "second"):
        made = await pull(tenancy, "member")
        assert await tenancy.tokens.revoke(await tenancy.caller(revoker), made.token.id) == 1
        with pytest.raises(Unauthenticated):
            await tenancy.identity.authenticate(made.secret)
    made = await pull(tenancy, "project")
    assert await tenancy.tokens.revoke(await tenancy.caller("project"), made.token.id) == 1
    made = await pull(tenancy, "member")
    itself = await tenancy.identity.authenticate(made.secret)
    assert await tenancy.tokens.revoke(itself, made.token.id) == 1
    user = await tenancy.caller("viewer")
    assert await tenancy.tokens.revoke(user, user.token_id) == 1


async def test_a_token_that_is_not_ones_own_reads_as_one_that_does_not_exist(
    tenancy: Tenancy,
) -> None:
    by_member = (await pull(tenancy, "member")).token.id
    of_owner = (await tenancy.caller("owner")).token_id
    build = await tenancy.identity.create_build_token(
        await tenancy.caller("owner"), await tenancy.mine(), "build", frozenset()
    )
    of_build = (await tenancy.identity.authenticate(build)).token_id
    for who, token_id in (
        ("viewer", by_member),
        ("stranger", by_member),
        ("organization", by_member),
        ("project", by_member),
        ("pull", by_member),
        # A user's own tokens are nobody else's, an owner's included.
        ("second", of_owner),
        ("stranger", of_owner),
        # It goes with its build.
        ("owner", of_build),
        ("owner", "nosuchtoke"),
    ):
        with pytest.raises(TokenUnknown) as caught:
            await tenancy.tokens.revoke(await tenancy.caller(who), token_id)
        assert str(caught.value) == f"unknown token {token_id!r}"
    assert await tenancy.identity.authenticate(build)


async def test_a_caller_is_told_who_it_is_and_what_it_sees(tenancy: Tenancy) -> None:
    async def told(who: str) -> tuple[str, list[str]]:
        token, organizations = await tenancy.tokens.caller(await tenancy.caller(who))
        assert token is not None
        return token.kind.value, [organization.id for organization in organizations]

    assert await told("viewer") == ("user", ["org"])
    assert await told("organization") == ("organization", ["org"])
    assert await told("project") == ("project", [])
    ci = Principal("ci", TokenKind.CI)
    assert await tenancy.tokens.caller(ci) == (None, [])
    gone = await tenancy.caller("pull")
    await tenancy.tokens.revoke(gone, gone.token_id)
    with pytest.raises(Unauthenticated):
        await tenancy.tokens.caller(gone)


async def test_a_caller_of_several_organizations_can_be_narrowed_to_one(
    tenancy: Tenancy,
) -> None:
    tenancy.join("owner", "other-org", Role.VIEWER)
    owner = await tenancy.caller("owner")
    narrow = await tenancy.identity.narrowed(owner, "other-org")
    assert narrow.roles == {"other-org": Role.VIEWER}
    projects = await tenancy.identity.list_projects(narrow)
    assert [project.id for project in projects] == ["foreign"]
    for who in ("organization", "project", "pull"):
        caller = await tenancy.caller(who)
        assert await tenancy.identity.narrowed(caller, "org") == caller
        with pytest.raises(OrganizationUnknown):
            await tenancy.identity.narrowed(caller, "other-org")
    for organization_id in ("other-org", "nosuchorga"):
        with pytest.raises(OrganizationUnknown):
            await tenancy.identity.narrowed(await tenancy.caller("viewer"), organization_id)
