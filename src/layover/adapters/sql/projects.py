"""Projects that come and go, in SQL.

A deleted project's row stays, for what refers to it. From the moment that it says so nobody sees
the project any more; what is in it is let go of in small transactions, as of builds that are
deleted one by one, and the collector does the rest (docs/decisions/0006).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    case,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)

from layover.adapters.sql.builds import end_builds
from layover.adapters.sql.database import Database
from layover.adapters.sql.identity import policy_values, revoke
from layover.adapters.sql.pushes import cancel_pushes, uncanceled_pushes
from layover.adapters.sql.retention_rows import DELETED
from layover.adapters.sql.schema import (
    Timestamp,
    builds,
    manifests,
    organizations,
    projects,
    pushes,
    repositories,
    repository_blobs,
    retentions,
    tokens,
    trust_policies,
    uploads,
)
from layover.builds.models import BuildStatus
from layover.identity.models import OrganizationUnknown, Project


class SqlProjectStore:
    """The ProjectStore of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count_projects(self, organization_id: str) -> int:
        query = select(func.count()).where(
            projects.c.organization_id == organization_id, projects.c.deleted_at.is_(None)
        )
        return await self._database.read(lambda connection: connection.execute(query).scalar_one())

    async def add_project(self, project: Project) -> None:
        live = (
            select(organizations.c.id)
            .where(
                organizations.c.id == project.organization_id, organizations.c.deleted_at.is_(None)
            )
            .with_for_update(read=True)
        )
        statement = insert(projects).values(
            id=project.id,
            organization_id=project.organization_id,
            name=project.name,
            created_at=project.created_at,
            **policy_values(project.policy),
        )

        def work(connection: Connection) -> None:
            if connection.execute(live).first() is None:
                raise OrganizationUnknown(project.organization_id)
            connection.execute(statement)

        await self._database.write(work)

    async def delete_project(self, project_id: str, now: datetime) -> bool:
        def work(connection: Connection) -> bool:
            # First, so that whatever is being added waits for this or this for it.
            deleted = connection.execute(
                update(projects)
                .where(projects.c.id == project_id, projects.c.deleted_at.is_(None))
                .values(deleted_at=now)
            )
            if not deleted.rowcount:
                return False
            revoke(connection, select(tokens.c.id).where(tokens.c.project_id == project_id), now)
            connection.execute(
                delete(trust_policies).where(trust_policies.c.project_id == project_id)
            )
            end_builds(
                connection,
                builds.c.project_id == project_id,
                BuildStatus.CANCELED,
                "its project was deleted",
                now,
            )
            cancel_pushes(connection, pushes.c.project_id == project_id, now)
            return True

        return await self._database.write(work)

    async def deleted_projects(self) -> list[tuple[str, datetime]]:
        query = select(projects.c.id, projects.c.deleted_at).where(
            projects.c.deleted_at.is_not(None)
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [(row.id, row.deleted_at) for row in rows]

    async def clear_project(self, project_id: str, now: datetime, limit: int) -> int:
        # Most of the time nothing is left: then the disk need not be woken.
        left = [query.limit(1) for query in _left(project_id, now)]
        if not await self._database.read(
            lambda connection: any(connection.execute(query).first() for query in left)
        ):
            return 0
        return await self._database.write(
            lambda connection: _clear(connection, project_id, now, limit)
        )


def _left(project_id: str, now: datetime) -> Sequence[Select[Any]]:
    """What is in a project still: builds, pushes into it, uploads; blobs and manifests that are
    leased; pushes to other registries."""
    live_builds = (
        select(retentions.c.id)
        .join(builds, builds.c.id == retentions.c.build_id)
        .where(builds.c.project_id == project_id, retentions.c.ended_at.is_(None))
    )
    repository = select(repositories.c.id).where(repositories.c.project_id == project_id)
    pushed = select(retentions.c.id).where(
        retentions.c.repository_id.in_(repository), retentions.c.ended_at.is_(None)
    )
    sessions = select(uploads.c.id).where(
        uploads.c.repository_id.in_(repository), uploads.c.expires_at > now
    )
    links = select(repository_blobs.c.digest).where(
        repository_blobs.c.repository_id.in_(repository), _is_link_held(now)
    )
    held = select(manifests.c.digest).where(
        manifests.c.repository_id.in_(repository), _is_manifest_held(now)
    )
    return live_builds, pushed, sessions, links, held, uncanceled_pushes(project_id)


def _is_link_held(now: datetime) -> ColumnElement[bool]:
    held = repository_blobs.c
    return or_(held.leased_until > now, held.shown_until > now, held.kept_until > now)


def _is_manifest_held(now: datetime) -> ColumnElement[bool]:
    return or_(manifests.c.leased_until > now, manifests.c.kept_until > now)


def _clear(connection: Connection, project_id: str, now: datetime, limit: int) -> int:
    live_builds, pushed, sessions, *_ = _left(project_id, now)
    over = cancel_pushes(connection, pushes.c.project_id == project_id, now)
    for live in (live_builds, pushed):
        ids = connection.execute(live.limit(limit)).scalars().all()
        over += connection.execute(
            update(retentions)
            .where(retentions.c.id.in_(ids), retentions.c.ended_at.is_(None))
            .values(ended_at=now, end_reason=DELETED)
        ).rowcount
    # The job that removes those whose time is over does the rest, and knows which are written to.
    ids = connection.execute(sessions.limit(limit)).scalars().all()
    over += connection.execute(
        update(uploads).where(uploads.c.id.in_(ids)).values(expires_at=now)
    ).rowcount
    if over:
        return over
    # No push that was told that these are there can go on, nor one to another registry.
    repository = select(repositories.c.id).where(repositories.c.project_id == project_id)
    for table, is_held, values in (
        (repository_blobs, _is_link_held(now), {"shown_until": None}),
        (manifests, _is_manifest_held(now), {}),
    ):
        # Of what something needs still the collector looks at when that is gone.
        check_at = case((table.c.check_at.is_(None), null()), else_=literal(now, Timestamp))
        over += connection.execute(
            update(table)
            .where(table.c.repository_id.in_(repository), is_held)
            .values(leased_until=now, kept_until=None, check_at=check_at, **values)
        ).rowcount
    return over
