"""The management services on a database of a test's own: two organizations and their users."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import insert, update

from layover.adapters.sql.organizations import SqlOrganizationStore
from layover.adapters.sql.projects import SqlProjectStore
from layover.adapters.sql.schema import memberships, users
from layover.adapters.sql.tokens import SqlTokenStore
from layover.identity.models import Principal, Project, Role, TokenKind
from layover.identity.organizations import OrganizationService
from layover.identity.projects import ProjectService
from layover.identity.service import IdentityService
from layover.identity.tokens import TokenService
from tests.stores import Stores, opened
from tests.unit.identity.clock import Clock

# Of "org" with the project "mine"; "other-org" has "foreign" and the stranger.
MEMBERS = {
    "owner": ("org", Role.OWNER),
    "second": ("org", Role.OWNER),
    "member": ("org", Role.MEMBER),
    "viewer": ("org", Role.VIEWER),
    "stranger": ("other-org", Role.OWNER),
}


@dataclass
class Tenancy:
    """The services, wired as app.py wires them."""

    stores: Stores
    clock: Clock

    def __post_init__(self) -> None:
        database = self.stores.database
        self.identity = IdentityService(self.stores.identity, self.clock)
        self.organizations = OrganizationService(SqlOrganizationStore(database), self.clock)
        self.projects = ProjectService(
            SqlProjectStore(database), self.identity, self.organizations, self.clock
        )
        self.tokens = TokenService(
            SqlTokenStore(database), self.identity, self.organizations, self.clock
        )
        self._secrets: dict[str, str] = {}

    async def start(self) -> None:
        """Make the users, each with a token, and a project's and an organization's token."""
        with self.stores.database.engine.begin() as connection:
            for user_id, (organization_id, role) in MEMBERS.items():
                connection.execute(
                    insert(users).values(
                        id=user_id,
                        name=user_id,
                        is_admin=user_id == "owner",
                        created_at=self.clock.now,
                    )
                )
                connection.execute(
                    insert(memberships).values(
                        user_id=user_id,
                        organization_id=organization_id,
                        role=role.value,
                        created_at=self.clock.now,
                    )
                )
        for user_id in MEMBERS:
            self_made = Principal("", TokenKind.USER, user_id=user_id)
            created = await self.tokens.create_user_token(self_made, f"{user_id}'s", None)
            self._secrets[user_id] = created.secret
        owner = await self.caller("owner")
        for name, created in {
            "organization": await self.tokens.create_organization_token(owner, "org", "", None),
            "project": await self.tokens.create_project_token(owner, await self.mine(), "", None),
            "pull": await self.tokens.create_pull_token(
                owner, await self.mine(), None, None, "", None
            ),
        }.items():
            self._secrets[name] = created.secret

    def secret(self, name: str) -> str:
        """The token of a user, or of one of the other kinds."""
        return self._secrets[name]

    async def caller(self, name: str) -> Principal:
        """Who calls with that token, as of now. Raises Unauthenticated."""
        return await self.identity.authenticate(self._secrets[name])

    async def mine(self) -> Project:
        project = await self.stores.identity.find_project("mine")
        assert project is not None
        return project

    def join(self, user_id: str, organization_id: str, role: Role) -> None:
        """Make a user a member of one more organization, behind the services' back."""
        with self.stores.database.engine.begin() as connection:
            connection.execute(
                insert(memberships).values(
                    user_id=user_id,
                    organization_id=organization_id,
                    role=role.value,
                    created_at=self.clock.now,
                )
            )

    def make_admin(self, user_id: str, *, is_admin: bool) -> None:
        with self.stores.database.engine.begin() as connection:
            connection.execute(update(users).where(users.c.id == user_id).values(is_admin=is_admin))


@asynccontextmanager
async def tenancy_in(folder: Path) -> AsyncIterator[Tenancy]:
    """A tenancy on an SQLite database in the folder."""
    with opened(folder) as stores:
        tenancy = Tenancy(stores, Clock())
        await tenancy.start()
        yield tenancy
