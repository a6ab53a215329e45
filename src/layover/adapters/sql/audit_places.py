"""Whose log an event belongs in, in SQL."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import BindParameter, Row, Select, bindparam, null, or_, select

from layover.adapters.sql.database import Database
from layover.adapters.sql.identity import HELD_TOKENS, principal_of
from layover.adapters.sql.schema import (
    builds,
    organizations,
    projects,
    pushes,
    tokens,
)
from layover.audit.ports import Named
from layover.identity.models import Organization, Principal, Project

_KEY: BindParameter[Any] = bindparam("key")
_OF_ORGANIZATION = (
    organizations.c.id.label("organization_id"),
    organizations.c.name.label("organization_name"),
    organizations.c.created_at.label("organization_created_at"),
)
_COLUMNS = (
    *_OF_ORGANIZATION,
    projects.c.id.label("project_id"),
    projects.c.name.label("project_name"),
    projects.c.created_at.label("project_created_at"),
)
_PROJECTS = (
    select(*_COLUMNS)
    .select_from(projects.join(organizations))
    .where(projects.c.deleted_at.is_(None), organizations.c.deleted_at.is_(None))
)
_ORGANIZATIONS = select(*_OF_ORGANIZATION, null().label("project_id")).where(
    organizations.c.deleted_at.is_(None)
)
_TOKENS = (
    select(*_COLUMNS)
    .select_from(
        tokens.join(organizations, organizations.c.id == tokens.c.organization_id).outerjoin(
            projects, projects.c.id == tokens.c.project_id
        )
    )
    .where(
        organizations.c.deleted_at.is_(None),
        or_(tokens.c.project_id.is_(None), projects.c.deleted_at.is_(None)),
    )
)
_PLACES: Mapping[Named, Select[Any]] = {
    Named.ORGANIZATION: _ORGANIZATIONS.where(organizations.c.id == _KEY),
    Named.PROJECT: _PROJECTS.where(projects.c.id == _KEY),
    Named.BUILD: _PROJECTS.join(builds, builds.c.project_id == projects.c.id).where(
        builds.c.id == _KEY
    ),
    Named.PUSH: _PROJECTS.join(pushes, pushes.c.project_id == projects.c.id).where(
        pushes.c.id == _KEY
    ),
    Named.TOKEN: _TOKENS.where(tokens.c.id == _KEY),
}

_HOLDERS = HELD_TOKENS.where(tokens.c.secret_hash == _KEY)


class SqlAuditPlaces:
    """The AuditPlaces of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_place(self, named: Named, key: str) -> Project | Organization | None:
        row = await self._database.look_up(
            lambda connection: connection.execute(_PLACES[named], {"key": key}).first()
        )
        return None if row is None else _place(row)

    async def find_holder(self, secret_hash: bytes) -> Principal | None:
        rows = await self._database.look_up(
            lambda connection: connection.execute(_HOLDERS, {"key": secret_hash}).all()
        )
        return principal_of(rows)


def _place(row: Row[Any]) -> Project | Organization:
    if row.project_id is None:
        return Organization(row.organization_id, row.organization_name, row.organization_created_at)
    return Project(
        id=row.project_id,
        name=row.project_name,
        organization_id=row.organization_id,
        organization_name=row.organization_name,
        created_at=row.project_created_at,
    )
