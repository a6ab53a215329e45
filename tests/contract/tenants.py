"""Users with roles, and tokens that they made, written straight into a database."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import insert

from layover.adapters.sql.organizations import SqlOrganizationStore
from layover.adapters.sql.projects import SqlProjectStore
from layover.adapters.sql.schema import memberships, users
from layover.adapters.sql.tokens import SqlTokenStore
from layover.identity.management import Actor
from layover.identity.models import NewToken, Principal, Role, TokenKind
from tests.stores import NOW, Stores

# Of the organization "org", whose project is "mine"; "other-org" has "foreign" and the outsider.
ROLES = {"owner": Role.OWNER, "second": Role.OWNER, "member": Role.MEMBER, "viewer": Role.VIEWER}


class Refused(Exception):
    """What a check of these tests raises."""


@dataclass
class Tenants:
    """The stores of an identity, with their users."""

    stores: Stores
    organizations: SqlOrganizationStore = field(init=False)
    projects: SqlProjectStore = field(init=False)
    tokens: SqlTokenStore = field(init=False)

    def __post_init__(self) -> None:
        self.organizations = SqlOrganizationStore(self.stores.database)
        self.projects = SqlProjectStore(self.stores.database)
        self.tokens = SqlTokenStore(self.stores.database)

    async def add_users(self) -> None:
        await self.add_members("org", ROLES)
        await self.add_members("other-org", {"outsider": Role.OWNER})
        await self.add_members("", {"nobody": None})

    async def add_members(self, organization_id: str, roles: Mapping[str, Role | None]) -> None:
        with self.stores.database.engine.begin() as connection:
            for user_id, role in roles.items():
                connection.execute(
                    insert(users).values(
                        id=user_id, name=f"name of {user_id}", is_admin=False, created_at=NOW
                    )
                )
                if role is not None:
                    connection.execute(
                        insert(memberships).values(
                            user_id=user_id,
                            organization_id=organization_id,
                            role=role.value,
                            created_at=NOW,
                        )
                    )

    async def token(
        self,
        token_id: str,
        kind: TokenKind,
        *,
        organization_id: str | None = "org",
        project_id: str | None = None,
        build_id: str | None = None,
        created_by: str | None = None,
        parent_id: str | None = None,
        created_at: datetime = NOW,
        lifetime: timedelta | None = timedelta(hours=1),
    ) -> None:
        """A token whose secret hashes to its ID."""
        if kind is TokenKind.USER:
            organization_id = None
        principal = Principal(
            token_id,
            kind,
            organization_id,
            user_id=created_by if kind is TokenKind.USER else None,
            project_id=project_id,
            build_id=build_id,
        )
        await self.stores.identity.add_token(
            NewToken(
                principal,
                token_id.encode(),
                f"about {token_id}",
                created_at,
                None if lifetime is None else created_at + lifetime,
                created_by=created_by,
                parent_id=parent_id,
            )
        )

    async def lives(self, token_id: str) -> bool:
        return await self.stores.identity.find_principal(token_id.encode(), NOW) is not None


def anybody(user_id: str = "owner") -> Actor:
    """Who may do everything."""
    return Actor(user_id, lambda role: None)


def owner(user_id: str = "owner") -> Actor:
    """Who may do what owners may."""

    def check(role: Role | None) -> None:
        if role is not Role.OWNER:
            raise Refused

    return Actor(user_id, check)
