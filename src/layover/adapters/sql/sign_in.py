"""Users and their browsers' sessions in SQL."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from layover.adapters.sql.database import Database
from layover.adapters.sql.schema import memberships, organizations, sessions, users
from layover.identity.models import Organization, Role
from layover.identity.sign_in_models import Session, User, UserNameTaken

_SESSION = (
    select(
        users,
        sessions.c.expires_at,
        organizations.c.id.label("organization_id"),
        organizations.c.name.label("organization_name"),
        organizations.c.created_at.label("organization_created_at"),
        memberships.c.role,
    )
    .select_from(sessions)
    .join(users, users.c.id == sessions.c.user_id)
    .outerjoin(memberships, memberships.c.user_id == users.c.id)
    .outerjoin(
        organizations,
        (organizations.c.id == memberships.c.organization_id)
        & organizations.c.deleted_at.is_(None),
    )
    .where(sessions.c.secret_hash == bindparam("key"), sessions.c.expires_at > bindparam("now"))
    .order_by(organizations.c.name, organizations.c.id)
)


class SqlSignInStore:
    """The SignInStore of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_user(self, user_id: str) -> User | None:
        query = select(users).where(users.c.id == user_id)
        row = await self._database.look_up(lambda connection: connection.execute(query).first())
        return _user(row) if row else None

    async def find_user_by_name(self, name: str) -> User | None:
        query = select(users).where(users.c.name == name, users.c.oidc_issuer.is_(None))
        row = await self._database.look_up(lambda connection: connection.execute(query).first())
        return _user(row) if row else None

    async def add_user(self, user: User, now: datetime) -> None:
        def work(connection: Connection) -> None:
            if _is_taken(connection, user.name):
                raise UserNameTaken(user.name)
            _insert(connection, user, None, now)

        await self._database.write(work)

    async def ensure_oidc_user(
        self, user: User, subject: str, names: Callable[[int], str], now: datetime
    ) -> tuple[User, bool]:
        query = select(users).where(
            users.c.oidc_issuer == user.oidc_issuer, users.c.oidc_subject == subject
        )

        def work(connection: Connection) -> tuple[User, bool]:
            row = connection.execute(query).first()
            if row is not None:
                return _user(row), False
            free = (name for name in map(names, count()) if not _is_taken(connection, name))
            made = replace(user, name=next(free))
            _insert(connection, made, subject, now)
            return made, True

        return await self._database.write(work)

    async def set_password(self, user_id: str, password_hash: str) -> None:
        def work(connection: Connection) -> None:
            connection.execute(
                update(users).where(users.c.id == user_id).values(password_hash=password_hash)
            )
            connection.execute(delete(sessions).where(sessions.c.user_id == user_id))

        await self._database.write(work)

    async def renew_password_hash(self, user_id: str, old: str, new: str) -> None:
        statement = (
            update(users)
            .where(users.c.id == user_id, users.c.password_hash == old)
            .values(password_hash=new)
        )
        await self._database.write(lambda connection: connection.execute(statement))

    async def add_session(
        self, secret_hash: bytes, user: User, now: datetime, expires_at: datetime
    ) -> bool:
        query = select(users.c.password_hash).where(users.c.id == user.id)

        def work(connection: Connection) -> bool:
            row = connection.execute(query).first()
            # A password that is changed while the old one is looked at signs nobody in.
            if row is None or row.password_hash != user.password_hash:
                return False
            connection.execute(
                insert(sessions).values(
                    secret_hash=secret_hash, user_id=user.id, created_at=now, expires_at=expires_at
                )
            )
            return True

        return await self._database.write(work)

    async def find_session(self, secret_hash: bytes, now: datetime) -> Session | None:
        rows = await self._database.look_up(
            lambda connection: connection.execute(_SESSION, {"key": secret_hash, "now": now}).all()
        )
        if not rows:
            return None
        return Session(
            _user(rows[0]),
            rows[0].expires_at,
            tuple(
                (
                    Organization(
                        row.organization_id, row.organization_name, row.organization_created_at
                    ),
                    Role(row.role),
                )
                for row in rows
                if row.organization_id is not None
            ),
        )

    async def delete_session(self, secret_hash: bytes) -> None:
        statement = delete(sessions).where(sessions.c.secret_hash == secret_hash)
        await self._database.write(lambda connection: connection.execute(statement))

    async def delete_over_sessions(self, now: datetime) -> int:
        statement = delete(sessions).where(sessions.c.expires_at <= now)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)


def _is_taken(connection: Connection, name: str) -> bool:
    query = select(users.c.id).where(users.c.name == name)
    return connection.execute(query).first() is not None


def _insert(connection: Connection, user: User, subject: str | None, now: datetime) -> None:
    connection.execute(
        insert(users).values(
            id=user.id,
            name=user.name,
            password_hash=user.password_hash,
            oidc_issuer=user.oidc_issuer,
            oidc_subject=subject,
            is_admin=user.is_admin,
            created_at=now,
        )
    )


def _user(row: Row[Any]) -> User:
    return User(
        id=row.id,
        name=row.name,
        is_admin=row.is_admin,
        oidc_issuer=row.oidc_issuer,
        password_hash=row.password_hash,
    )
