import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layover.audit.listing import AuditListing, Scope
from layover.audit.log import AuditLog
from layover.audit.models import AuditQuery, InvalidAuditQuery
from layover.errors import LayoverError
from layover.identity.management import OrganizationNotGiven
from layover.identity.models import (
    ActionDenied,
    OrganizationUnknown,
    Principal,
    ProjectUnknown,
    Role,
    TokenKind,
)
from layover.identity.origin import Origin
from tests.unit.audit.memory import MemoryAuditStore
from tests.unit.builds.world import FOREIGN_PROJECT, PROJECT, World

pytestmark = pytest.mark.anyio

MEMBER = Principal("t", TokenKind.USER, user_id="u3", roles={"org1": Role.MEMBER})
ADMIN = Principal("t", TokenKind.USER, user_id="u4", roles={"org2": Role.OWNER}, is_admin=True)
BOTH = Principal("t", TokenKind.USER, user_id="u5", roles={"org1": Role.OWNER, "org2": Role.OWNER})
ORGANIZATION = Principal("t", TokenKind.ORGANIZATION, "org1")


class Listed:
    """Three events: of a project, of a user of the other organization, of nobody."""

    def __init__(self) -> None:
        self.world = World()
        self.store = MemoryAuditStore()
        self.log = AuditLog(
            self.store, self.world.audit_places, self.world.identity, self.world.clock
        )
        self.listing = AuditListing(self.store, self.world.identity)

    async def fill(self) -> None:
        await self.log.record("x.one", self.world.project_token, Origin(), subject="project")
        await self.log.record("x.two", self.world.foreigner, Origin(), subject="foreign")
        await self.log.record("x.three", None, Origin(), subject="nobody")

    async def subjects(self, principal: Principal, scope: Scope = Scope()) -> list[str]:  # noqa: B008  # frozen
        page = await self.listing.list_page(principal, scope, AuditQuery())
        return [event.subject for event in page.events]


@pytest.mark.parametrize(
    ("principal", "scope", "expected"),
    [
        ("user", Scope(), ["project"]),
        ("user", Scope("org1"), ["project"]),
        ("user", Scope(project_id=PROJECT), ["project"]),
        ("user", Scope("org2"), OrganizationUnknown),
        ("user", Scope("never-was"), OrganizationUnknown),
        ("user", Scope(project_id=FOREIGN_PROJECT), ProjectUnknown),
        ("user", Scope(project_id="never-was"), ProjectUnknown),
        ("user", Scope(is_server=True), ActionDenied),
        ("user", Scope("org1", PROJECT), InvalidAuditQuery),
        ("user", Scope("org1", is_server=True), InvalidAuditQuery),
        ("foreigner", Scope(), ["foreign"]),
        ("project_token", Scope(project_id=PROJECT), ActionDenied),
        ("project_token", Scope(), OrganizationUnknown),
        (MEMBER, Scope(), ActionDenied),
        (MEMBER, Scope(project_id=PROJECT), ActionDenied),
        (ORGANIZATION, Scope(), ActionDenied),
        (ADMIN, Scope(is_server=True), ["nobody"]),
        (ADMIN, Scope("org1"), OrganizationUnknown),
        (BOTH, Scope(), OrganizationNotGiven),
        (BOTH, Scope("org2"), ["foreign"]),
    ],
)
async def test_owners_see_their_log_and_administrators_the_servers(
    principal: Principal | str, scope: Scope, expected: list[str] | type[LayoverError]
) -> None:
    listed = Listed()
    await listed.fill()
    if isinstance(principal, str):
        principal = getattr(listed.world, principal)
    assert isinstance(principal, Principal)
    if isinstance(expected, list):
        assert await listed.subjects(principal, scope) == expected
        return
    with pytest.raises(expected):
        await listed.subjects(principal, scope)


async def test_whose_log_it_is_cannot_be_said_past_the_scope() -> None:
    listed = Listed()
    await listed.fill()
    page = await listed.listing.list_page(
        listed.world.user, Scope("org1"), AuditQuery("org2", FOREIGN_PROJECT)
    )
    assert [event.subject for event in page.events] == ["project"]


async def test_pages_go_through_all_of_it() -> None:
    listed = Listed()
    for at in range(7):
        await listed.log.record("x.do", listed.world.user, Origin(), subject=str(at))
    found: list[str] = []
    token = ""
    while True:
        page = await listed.listing.list_page(
            listed.world.user, Scope(), AuditQuery(), page_size=3, page_token=token
        )
        found += [event.subject for event in page.events]
        if page.next_token is None:
            break
        token = page.next_token
    assert found == list("6543210")


async def test_a_page_is_bounded() -> None:
    listed = Listed()
    for _ in range(1_001):
        await listed.log.record("x.do", listed.world.user, Origin())
    for size, expected in ((0, 100), (1, 1), (2**31 - 1, 1_000)):
        page = await listed.listing.list_page(listed.world.user, Scope(), AuditQuery(), size)
        assert len(page.events) == expected
    with pytest.raises(InvalidAuditQuery):
        await listed.listing.list_page(listed.world.user, Scope(), AuditQuery(), -1)


async def test_no_time_is_after_its_own_end() -> None:
    listed = Listed()
    now = listed.world.clock()
    with pytest.raises(InvalidAuditQuery):
        await listed.listing.list_page(listed.world.user, Scope(), AuditQuery(since=now, until=now))


@given(token=st.text(min_size=1) | st.from_regex(r"[A-Za-z0-9_-]{1,40}"))
async def test_any_page_token_is_understood_or_refused(token: str) -> None:
    listed = Listed()
    with contextlib.suppress(InvalidAuditQuery):
        await listed.listing.list_page(listed.world.user, Scope(), AuditQuery(), page_token=token)
