"""Organizations, users, projects and tokens in SQL."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Executable,
    Insert,
    Row,
    and_,
    bindparam,
    delete,
    insert,
    or_,
    select,
    update,
)

from layover.adapters.sql.database import Database
from layover.adapters.sql.schema import organizations, projects, server_keys, tokens, users
from layover.identity.models import FirstTenant, Principal, Project, ProjectPolicy, TokenKind

# What every request asks. Made once: building a statement and finding it in SQLAlchemy's cache
# takes longer than SQLite does to answer it.
_LIVE = or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > bindparam("now"))
_TOKEN_BY_SECRET = select(tokens).where(tokens.c.secret_hash == bindparam("key"), _LIVE)
_TOKEN_BY_ID = select(tokens).where(tokens.c.id == bindparam("key"), _LIVE)
_PROJECTS = select(projects, organizations.c.name.label("organization_name")).join(organizations)
_PROJECT_BY_ID = _PROJECTS.where(projects.c.id == bindparam("key"))
_PROJECTS_OF = _PROJECTS.where(projects.c.organization_id == bindparam("key")).order_by(
    projects.c.name, projects.c.id
)


class SqlIdentityStore:
    """The IdentityStore of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_principal(self, secret_hash: bytes, now: datetime) -> Principal | None:
        return await self._find(_TOKEN_BY_SECRET, secret_hash, now)

    async def find_principal_by_id(self, token_id: str, now: datetime) -> Principal | None:
        return await self._find(_TOKEN_BY_ID, token_id, now)

    async def _find(self, query: Executable, key: bytes | str, now: datetime) -> Principal | None:
        row = await self._database.look_up(
            lambda connection: connection.execute(query, {"key": key, "now": now}).first()
        )
        if row is None:
            return None
        return Principal(
            token_id=row.id,
            kind=TokenKind(row.kind),
            organization_id=row.organization_id,
            user_id=row.user_id,
            project_id=row.project_id,
            build_id=row.build_id,
            tags=frozenset((row.tags or "").split()),
        )

    async def add_token(
        self,
        principal: Principal,
        secret_hash: bytes,
        description: str,
        created_at: datetime,
        expires_at: datetime | None,
    ) -> None:
        statement = _insert_token(principal, secret_hash, description, created_at, expires_at)
        await self._database.write(lambda connection: connection.execute(statement))

    async def revoke_build_tokens(self, build_id: str, kind: TokenKind) -> None:
        statement = delete(tokens).where(
            and_(tokens.c.build_id == build_id, tokens.c.kind == kind.value)
        )
        await self._database.write(lambda connection: connection.execute(statement))

    async def delete_expired_tokens(self, now: datetime) -> int:
        statement = delete(tokens).where(tokens.c.expires_at <= now)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)

    async def find_project(self, project_id: str) -> Project | None:
        found = await self._projects(_PROJECT_BY_ID, project_id)
        return found[0] if found else None

    async def list_projects(self, organization_id: str) -> list[Project]:
        return await self._projects(_PROJECTS_OF, organization_id)

    async def _projects(self, query: Executable, key: str) -> list[Project]:
        rows = await self._database.look_up(
            lambda connection: connection.execute(query, {"key": key}).all()
        )
        return [_project(row) for row in rows]

    async def change_policy(
        self, project_id: str, change: Callable[[ProjectPolicy], ProjectPolicy]
    ) -> Project | None:
        def work(connection: Connection) -> Project | None:
            row = connection.execute(_PROJECT_BY_ID, {"key": project_id}).first()
            if row is None:
                return None
            project = _project(row)
            project = replace(project, policy=change(project.policy))
            connection.execute(
                update(projects)
                .where(projects.c.id == project_id)
                .values(_policy_values(project.policy))
            )
            return project

        return await self._database.write(work)

    async def has_organization(self) -> bool:
        query = select(organizations.c.id).limit(1)
        return await self._database.read(
            lambda connection: connection.execute(query).first() is not None
        )

    async def create_first_tenant(self, tenant: FirstTenant, secret_hash: bytes) -> bool:
        now, organization_id = tenant.created_at, tenant.admin.organization_id

        def work(connection: Connection) -> bool:
            if connection.execute(select(organizations.c.id).limit(1)).first() is not None:
                return False
            connection.execute(
                insert(organizations).values(
                    id=organization_id, name=tenant.organization_name, created_at=now
                )
            )
            connection.execute(
                insert(users).values(
                    id=tenant.admin.user_id,
                    organization_id=organization_id,
                    name=tenant.user_name,
                    created_at=now,
                )
            )
            connection.execute(
                insert(projects).values(
                    id=tenant.project_id,
                    organization_id=organization_id,
                    name=tenant.project_name,
                    created_at=now,
                    **_policy_values(ProjectPolicy()),
                )
            )
            connection.execute(
                _insert_token(tenant.admin, secret_hash, "made at the first start", now, None)
            )
            return True

        return await self._database.write(work)

    async def server_key(self, name: str, candidate: bytes) -> bytes:
        def work(connection: Connection) -> bytes:
            query = select(server_keys.c.value).where(server_keys.c.name == name)
            key: bytes | None = connection.execute(query).scalar()
            if key is None:
                connection.execute(insert(server_keys).values(name=name, value=candidate))
                key = candidate
            return key

        return await self._database.write(work)


def _project(row: Row[Any]) -> Project:
    return Project(
        id=row.id,
        name=row.name,
        organization_id=row.organization_id,
        organization_name=row.organization_name,
        created_at=row.created_at,
        policy=ProjectPolicy(
            retention=timedelta(seconds=row.retention_seconds),
            max_retention=timedelta(seconds=row.max_retention_seconds),
            extends_on_pull=row.extends_on_pull,
            quota_bytes=row.quota_bytes,
        ),
    )


def _policy_values(policy: ProjectPolicy) -> dict[str, int | bool | None]:
    return {
        "retention_seconds": int(policy.retention.total_seconds()),
        "max_retention_seconds": int(policy.max_retention.total_seconds()),
        "extends_on_pull": policy.extends_on_pull,
        "quota_bytes": policy.quota_bytes,
    }


def _insert_token(
    principal: Principal,
    secret_hash: bytes,
    description: str,
    created_at: datetime,
    expires_at: datetime | None,
) -> Insert:
    return insert(tokens).values(
        id=principal.token_id,
        kind=principal.kind.value,
        secret_hash=secret_hash,
        organization_id=principal.organization_id,
        user_id=principal.user_id,
        project_id=principal.project_id,
        build_id=principal.build_id,
        tags=" ".join(sorted(principal.tags)) or None,
        description=description,
        created_at=created_at,
        expires_at=expires_at,
    )
