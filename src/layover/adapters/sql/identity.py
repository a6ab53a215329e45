"""Organizations, users, projects and tokens in SQL."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Executable,
    Insert,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)

from layover.adapters.sql.database import Database
from layover.adapters.sql.schema import (
    memberships,
    organizations,
    projects,
    server_keys,
    tokens,
    trust_policies,
    users,
)
from layover.identity.models import (
    FirstTenant,
    NewToken,
    OrganizationUnknown,
    Principal,
    Project,
    ProjectPolicy,
    ProjectUnknown,
    Role,
    TokenKind,
    Unauthenticated,
)

# What every request asks. Made once: building a statement and finding it in SQLAlchemy's cache
# takes longer than SQLite does to answer it.
_UNEXPIRED = or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > bindparam("now"))
# Tokens and who has them, for `principal_of`: a row a role where it is a user's, one row else.
HELD_TOKENS = (
    select(
        tokens,
        users.c.name.label("user_name"),
        users.c.is_admin,
        memberships.c.organization_id.label("member_of"),
        memberships.c.role,
    )
    .outerjoin(users, users.c.id == tokens.c.user_id)
    .outerjoin(memberships, memberships.c.user_id == tokens.c.user_id)
)
_TOKENS = HELD_TOKENS.where(_UNEXPIRED)
_TOKEN_BY_SECRET = _TOKENS.where(
    tokens.c.secret_hash == bindparam("key"), tokens.c.revoked_at.is_(None)
)
_TOKEN_BY_ID = _TOKENS.where(tokens.c.id == bindparam("key"), tokens.c.revoked_at.is_(None))
_ENDED_BUILD = _TOKENS.where(
    tokens.c.secret_hash == bindparam("key"),
    tokens.c.revoked_at.is_not(None),
    tokens.c.kind == TokenKind.BUILD.value,
)
_PROJECTS = (
    select(projects, organizations.c.name.label("organization_name"))
    .join(organizations)
    .where(projects.c.deleted_at.is_(None), organizations.c.deleted_at.is_(None))
)
_PROJECT_BY_ID = _PROJECTS.where(projects.c.id == bindparam("key"))
_PROJECTS_OF = _PROJECTS.where(
    projects.c.organization_id.in_(bindparam("key", expanding=True))
).order_by(projects.c.name, projects.c.id)


class SqlIdentityStore:
    """The IdentityStore of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_principal(self, secret_hash: bytes, now: datetime) -> Principal | None:
        return await self._find(_TOKEN_BY_SECRET, secret_hash, now)

    async def find_principal_by_id(self, token_id: str, now: datetime) -> Principal | None:
        return await self._find(_TOKEN_BY_ID, token_id, now)

    async def find_ended_build(self, secret_hash: bytes, now: datetime) -> Principal | None:
        return await self._find(_ENDED_BUILD, secret_hash, now)

    async def _find(self, query: Executable, key: bytes | str, now: datetime) -> Principal | None:
        rows = await self._database.look_up(
            lambda connection: connection.execute(query, {"key": key, "now": now}).all()
        )
        return principal_of(rows)

    async def add_token(
        self, token: NewToken, check_role: Callable[[Role | None], None] | None = None
    ) -> None:
        def work(connection: Connection) -> None:
            _check_bindings(connection, token)
            if token.created_by is not None and check_role is not None:
                check_role(
                    role_of(connection, token.created_by, token.principal.organization_id or "")
                )
            expires_at = _expiry(connection, token)
            connection.execute(insert_token(replace(token, expires_at=expires_at)))

        await self._database.write(work)

    async def revoke_build_tokens(self, build_id: str, kind: TokenKind, now: datetime) -> None:
        bound = select(tokens.c.id).where(
            and_(tokens.c.build_id == build_id, tokens.c.kind == kind.value)
        )
        await self._database.write(lambda connection: revoke(connection, bound, now))

    async def mark_used(self, used: Mapping[str, datetime]) -> None:
        statement = (
            update(tokens)
            .where(tokens.c.id == bindparam("key"))
            .values(last_used_at=bindparam("used_at"))
        )
        rows = [{"key": token_id, "used_at": at} for token_id, at in sorted(used.items())]
        await self._database.write(lambda connection: connection.execute(statement, rows))

    async def delete_over_tokens(self, expired_by: datetime, revoked_by: datetime) -> int:
        child = tokens.alias("child")
        statement = delete(tokens).where(
            or_(tokens.c.expires_at <= expired_by, tokens.c.revoked_at <= revoked_by),
            ~exists().where(
                child.c.parent_id == tokens.c.id,
                child.c.kind == TokenKind.BUILD.value,
                child.c.revoked_at.is_(None),
                child.c.expires_at > expired_by,
            ),
        )
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)

    async def find_project(self, project_id: str) -> Project | None:
        found = await self._projects(_PROJECT_BY_ID, project_id)
        return found[0] if found else None

    async def list_projects(self, organization_ids: Collection[str]) -> list[Project]:
        return await self._projects(_PROJECTS_OF, list(organization_ids))

    async def _projects(self, query: Executable, key: str | list[str]) -> list[Project]:
        rows = await self._database.look_up(
            lambda connection: connection.execute(query, {"key": key}).all()
        )
        return [_project(row) for row in rows]

    async def change_policy(
        self,
        project_id: str,
        change: Callable[[ProjectPolicy], ProjectPolicy],
        name: str | None = None,
    ) -> Project | None:
        def work(connection: Connection) -> Project | None:
            row = connection.execute(_PROJECT_BY_ID, {"key": project_id}).first()
            if row is None:
                return None
            project = _project(row)
            project = replace(
                project,
                policy=change(project.policy),
                name=project.name if name is None else name,
            )
            connection.execute(
                update(projects)
                .where(projects.c.id == project_id)
                .values(name=project.name, **policy_values(project.policy))
            )
            return project

        return await self._database.write(work)

    async def has_organization(self) -> bool:
        query = select(organizations.c.id).limit(1)
        return await self._database.read(
            lambda connection: connection.execute(query).first() is not None
        )

    async def create_first_tenant(self, tenant: FirstTenant, secret_hash: bytes) -> bool:
        now, organization_id = tenant.created_at, tenant.organization_id

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
                    id=tenant.admin.user_id, name=tenant.user_name, is_admin=True, created_at=now
                )
            )
            connection.execute(
                insert(memberships).values(
                    user_id=tenant.admin.user_id,
                    organization_id=organization_id,
                    role=Role.OWNER.value,
                    created_at=now,
                )
            )
            connection.execute(
                insert(projects).values(
                    id=tenant.project_id,
                    organization_id=organization_id,
                    name=tenant.project_name,
                    created_at=now,
                    **policy_values(ProjectPolicy()),
                )
            )
            connection.execute(
                insert_token(
                    NewToken(
                        tenant.admin,
                        secret_hash,
                        "made at the first start",
                        now,
                        expires_at=None,
                        created_by=tenant.admin.user_id,
                    )
                )
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


def policy_values(policy: ProjectPolicy) -> dict[str, int | bool | None]:
    return {
        "retention_seconds": int(policy.retention.total_seconds()),
        "max_retention_seconds": int(policy.max_retention.total_seconds()),
        "extends_on_pull": policy.extends_on_pull,
        "quota_bytes": policy.quota_bytes,
    }


def principal_of(rows: Sequence[Row[Any]]) -> Principal | None:
    """The caller behind one token's rows of HELD_TOKENS, None where there are none."""
    if not rows:
        return None
    row = rows[0]
    return Principal(
        token_id=row.id,
        kind=TokenKind(row.kind),
        organization_id=row.organization_id,
        user_id=row.user_id,
        project_id=row.project_id,
        build_id=row.build_id,
        tags=frozenset((row.tags or "").split()),
        name=row.user_name or row.description,
        roles={each.member_of: Role(each.role) for each in rows if each.member_of},
        is_admin=bool(row.is_admin),
    )


def revoke(connection: Connection, token_ids: Select[tuple[str]], now: datetime) -> int:
    """Revoke these tokens, and what those made, and so on; return how many that were."""
    made = token_ids.cte("made", recursive=True)
    made = made.union(select(tokens.c.id).where(tokens.c.parent_id == made.c.id))
    revoked = connection.execute(
        update(tokens)
        .where(tokens.c.id.in_(select(made.c.id)), tokens.c.revoked_at.is_(None))
        .values(revoked_at=now)
        # SQLite counts no rows of a statement that begins WITH.
        .returning(tokens.c.id)
    )
    return len(revoked.all())


def role_of(connection: Connection, user_id: str, organization_id: str) -> Role | None:
    """The user's role in the organization, None for none. Held until the transaction ends."""
    role = connection.execute(
        select(memberships.c.role)
        .where(memberships.c.user_id == user_id, memberships.c.organization_id == organization_id)
        .with_for_update(read=True)
    ).scalar()
    return None if role is None else Role(role)


def _check_bindings(connection: Connection, token: NewToken) -> None:
    """Raise ProjectUnknown or OrganizationUnknown when what the token is for was deleted.

    Unauthenticated when the trust policy that it is by is gone.
    """
    if token.trust_policy_id is not None:
        # Held, so that it goes either before this token or with it.
        trusted = select(trust_policies.c.id).where(trust_policies.c.id == token.trust_policy_id)
        if connection.execute(trusted.with_for_update(read=True)).first() is None:
            raise Unauthenticated
    principal = token.principal
    for table, key, unknown in (
        (projects, principal.project_id, ProjectUnknown),
        (organizations, principal.organization_id, OrganizationUnknown),
    ):
        if key is not None:
            query = select(table.c.deleted_at).where(table.c.id == key)
            found = connection.execute(query.with_for_update(read=True)).first()
            if found is None or found.deleted_at is not None:
                raise unknown(key)


def _expiry(connection: Connection, token: NewToken) -> datetime | None:
    """When the token ends: with the one that made it at the latest, but for a build's.

    Raises Unauthenticated when that one is over.
    """
    if token.parent_id is None:
        return token.expires_at
    parent = connection.execute(
        select(tokens.c.expires_at, tokens.c.revoked_at)
        .where(tokens.c.id == token.parent_id)
        .with_for_update(read=True)
    ).first()
    if parent is None or parent.revoked_at is not None:
        raise Unauthenticated
    until: datetime | None = parent.expires_at
    if until is None or token.principal.kind is TokenKind.BUILD:
        return token.expires_at
    return min(until, token.expires_at or until)


def insert_token(token: NewToken) -> Insert:
    """What keeps a new token."""
    principal = token.principal
    return insert(tokens).values(
        id=principal.token_id,
        kind=principal.kind.value,
        secret_hash=token.secret_hash,
        organization_id=principal.organization_id,
        user_id=principal.user_id,
        project_id=principal.project_id,
        build_id=principal.build_id,
        tags=" ".join(sorted(principal.tags)) or None,
        description=token.description,
        created_by=token.created_by,
        parent_id=token.parent_id,
        trust_policy_id=token.trust_policy_id,
        created_at=token.created_at,
        expires_at=token.expires_at,
    )
