"""Organizations, their members and invitations in SQL."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from layover.adapters.sql.database import Database
from layover.adapters.sql.identity import revoke, role_of
from layover.adapters.sql.schema import (
    invitations,
    memberships,
    organizations,
    projects,
    tokens,
    users,
)
from layover.identity.management import (
    Actor,
    AlreadyMember,
    Invitation,
    LastOwner,
    Member,
    MemberUnknown,
    OrganizationNotEmpty,
    TooMany,
)
from layover.identity.models import Organization, Role, TokenKind

_ORGANIZATIONS = select(organizations).where(organizations.c.deleted_at.is_(None))
_INVITATIONS = select(invitations, users.c.name.label("user_name")).join(
    users, users.c.id == invitations.c.created_by
)


class SqlOrganizationStore:
    """The OrganizationStore of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_organization(self, organization_id: str) -> Organization | None:
        query = _ORGANIZATIONS.where(organizations.c.id == organization_id)
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return None if row is None else _organization(row)

    async def list_organizations(self, organization_ids: Sequence[str]) -> list[Organization]:
        query = _ORGANIZATIONS.where(organizations.c.id.in_(organization_ids)).order_by(
            organizations.c.name, organizations.c.id
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [_organization(row) for row in rows]

    async def add_organization(self, organization: Organization, owner_id: str) -> None:
        def work(connection: Connection) -> None:
            connection.execute(
                insert(organizations).values(
                    id=organization.id,
                    name=organization.name,
                    created_at=organization.created_at,
                )
            )
            _add_member(connection, organization.id, owner_id, Role.OWNER, organization.created_at)

        await self._database.write(work)

    async def rename_organization(self, organization_id: str, name: str, actor: Actor) -> bool:
        def work(connection: Connection) -> bool:
            _check(connection, actor, organization_id)
            statement = (
                update(organizations)
                .where(organizations.c.id == organization_id, organizations.c.deleted_at.is_(None))
                .values(name=name)
            )
            return bool(connection.execute(statement).rowcount)

        return await self._database.write(work)

    async def delete_organization(self, organization_id: str, actor: Actor, now: datetime) -> bool:
        def work(connection: Connection) -> bool:
            _check(connection, actor, organization_id)
            # First, so that a project that is being made waits for this or this for it.
            deleted = connection.execute(
                update(organizations)
                .where(organizations.c.id == organization_id, organizations.c.deleted_at.is_(None))
                .values(deleted_at=now)
            )
            if not deleted.rowcount:
                return False
            count = connection.execute(
                select(func.count()).where(
                    projects.c.organization_id == organization_id,
                    projects.c.deleted_at.is_(None),
                )
            ).scalar_one()
            if count:
                raise OrganizationNotEmpty(organization_id, count)
            for table in (invitations, memberships):
                connection.execute(delete(table).where(table.c.organization_id == organization_id))
            revoke(
                connection,
                select(tokens.c.id).where(tokens.c.organization_id == organization_id),
                now,
            )
            return True

        return await self._database.write(work)

    # --- members -------------------------------------------------------------------------------

    async def list_members(self, organization_id: str) -> list[Member]:
        query = (
            select(memberships, users.c.name)
            .join(users, users.c.id == memberships.c.user_id)
            .where(memberships.c.organization_id == organization_id)
            .order_by(users.c.name)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [Member(row.user_id, row.name, Role(row.role), row.created_at) for row in rows]

    async def change_member(
        self,
        organization_id: str,
        user_id: str,
        role: Role | None,
        actor: Actor,
        now: datetime,
        *,
        ended_kinds: Collection[TokenKind],
        ends_invitations: bool,
    ) -> int:
        of_member = (memberships.c.organization_id == organization_id) & (
            memberships.c.user_id == user_id
        )

        def work(connection: Connection) -> int:
            # All owners are locked where rows can be: of two who remove each other one remains.
            owners = set(
                connection.execute(
                    select(memberships.c.user_id)
                    .where(
                        memberships.c.organization_id == organization_id,
                        memberships.c.role == Role.OWNER.value,
                    )
                    .order_by(memberships.c.user_id)
                    .with_for_update()
                ).scalars()
            )
            _check(connection, actor, organization_id)
            if connection.execute(select(memberships.c.role).where(of_member)).first() is None:
                raise MemberUnknown(user_id)
            if owners == {user_id} and role is not Role.OWNER:
                raise LastOwner
            if role is None:
                connection.execute(delete(memberships).where(of_member))
            else:
                connection.execute(update(memberships).where(of_member).values(role=role.value))
            if ends_invitations:
                connection.execute(
                    delete(invitations).where(
                        invitations.c.organization_id == organization_id,
                        invitations.c.created_by == user_id,
                    )
                )
            made = select(tokens.c.id).where(
                tokens.c.organization_id == organization_id,
                tokens.c.created_by == user_id,
                tokens.c.kind.in_([kind.value for kind in ended_kinds]),
            )
            return revoke(connection, made, now)

        return await self._database.write(work)

    # --- invitations ---------------------------------------------------------------------------

    async def add_invitation(
        self, invitation: Invitation, secret_hash: bytes, actor: Actor, limit: int
    ) -> None:
        of_organization = invitations.c.organization_id == invitation.organization_id
        open_ones = select(func.count()).where(
            of_organization, invitations.c.expires_at > invitation.created_at
        )

        def work(connection: Connection) -> None:
            _check(connection, actor, invitation.organization_id)
            if connection.execute(open_ones).scalar_one() >= limit:
                raise TooMany("invitations", limit, "delete one first")
            connection.execute(
                insert(invitations).values(
                    id=invitation.id,
                    secret_hash=secret_hash,
                    organization_id=invitation.organization_id,
                    role=invitation.role.value,
                    note=invitation.note,
                    created_by=invitation.created_by,
                    created_at=invitation.created_at,
                    expires_at=invitation.expires_at,
                )
            )

        await self._database.write(work)

    async def list_invitations(self, organization_id: str, now: datetime) -> list[Invitation]:
        query = _INVITATIONS.where(
            invitations.c.organization_id == organization_id, invitations.c.expires_at > now
        ).order_by(invitations.c.created_at.desc(), invitations.c.id.desc())
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [_invitation(row) for row in rows]

    async def delete_invitation(self, organization_id: str, invitation_id: str) -> bool:
        statement = delete(invitations).where(
            invitations.c.organization_id == organization_id, invitations.c.id == invitation_id
        )
        return await self._database.write(
            lambda connection: bool(connection.execute(statement).rowcount)
        )

    async def find_invitation(self, secret_hash: bytes, now: datetime) -> Invitation | None:
        query = _INVITATIONS.where(
            invitations.c.secret_hash == secret_hash, invitations.c.expires_at > now
        )
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return None if row is None else _invitation(row)

    async def accept_invitation(
        self, secret_hash: bytes, user_id: str, now: datetime
    ) -> Organization | None:
        def work(connection: Connection) -> Organization | None:
            # What one deletes no other one finds: used once, whoever is quicker.
            used = connection.execute(
                delete(invitations)
                .where(invitations.c.secret_hash == secret_hash, invitations.c.expires_at > now)
                .returning(invitations.c.organization_id, invitations.c.role)
            ).first()
            if used is None:
                return None
            organization = connection.execute(
                _ORGANIZATIONS.where(organizations.c.id == used.organization_id)
            ).first()
            if organization is None:
                return None
            role = role_of(connection, user_id, used.organization_id)
            if role is not None:
                raise AlreadyMember(role)
            _add_member(connection, used.organization_id, user_id, Role(used.role), now)
            return _organization(organization)

        return await self._database.write(work)

    async def delete_over_invitations(self, now: datetime) -> int:
        is_over = invitations.c.expires_at <= now
        if not await self._database.read(
            lambda connection: connection.execute(
                select(invitations.c.id).where(is_over).limit(1)
            ).first()
        ):
            return 0
        statement = delete(invitations).where(is_over)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)


def _check(connection: Connection, actor: Actor, organization_id: str) -> None:
    actor.check(role_of(connection, actor.user_id, organization_id))


def _add_member(
    connection: Connection, organization_id: str, user_id: str, role: Role, now: datetime
) -> None:
    connection.execute(
        insert(memberships).values(
            user_id=user_id, organization_id=organization_id, role=role.value, created_at=now
        )
    )


def _organization(row: Row[Any]) -> Organization:
    return Organization(row.id, row.name, row.created_at)


def _invitation(row: Row[Any]) -> Invitation:
    return Invitation(
        id=row.id,
        organization_id=row.organization_id,
        role=Role(row.role),
        note=row.note,
        created_by=row.created_by,
        created_by_name=row.user_name,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
