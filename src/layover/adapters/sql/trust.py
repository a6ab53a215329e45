"""Trust policies in SQL."""

import json
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select

from layover.adapters.sql.database import Database
from layover.adapters.sql.schema import organizations, projects, trust_policies, users
from layover.identity.models import Grant
from layover.identity.trust import Provider, TrustPolicy, TrustRule

_POLICIES = (
    select(trust_policies, users.c.name.label("user_name"))
    .join(projects, projects.c.id == trust_policies.c.project_id)
    .join(organizations, organizations.c.id == projects.c.organization_id)
    .outerjoin(users, users.c.id == trust_policies.c.created_by)
    .where(projects.c.deleted_at.is_(None), organizations.c.deleted_at.is_(None))
    .order_by(trust_policies.c.name, trust_policies.c.id)
)
# Asked for every token of somebody else's, valid or not.
_ISSUER = (
    select(trust_policies.c.id)
    .join(projects, projects.c.id == trust_policies.c.project_id)
    .join(organizations, organizations.c.id == projects.c.organization_id)
    .where(
        trust_policies.c.issuer == bindparam("issuer"),
        projects.c.deleted_at.is_(None),
        organizations.c.deleted_at.is_(None),
    )
    .limit(1)
)


class SqlTrustStore:
    """The TrustStore of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_trust_policy(self, policy: TrustPolicy, limit: int) -> bool:
        rule = policy.rule
        count = select(func.count()).where(trust_policies.c.project_id == policy.project_id)
        statement = insert(trust_policies).values(
            id=policy.id,
            project_id=policy.project_id,
            name=policy.name,
            provider=rule.provider.value,
            issuer=rule.issuer,
            audience=rule.audience,
            claims=json.dumps(dict(rule.claims)),
            grants=rule.grants.value,
            created_by=policy.created_by,
            created_at=policy.created_at,
        )

        def work(connection: Connection) -> bool:
            if connection.execute(count).scalar_one() >= limit:
                return False
            connection.execute(statement)
            return True

        return await self._database.write(work)

    async def list_trust_policies(self, project_id: str) -> list[TrustPolicy]:
        query = _POLICIES.where(trust_policies.c.project_id == project_id)
        return await self._database.read(
            lambda connection: [_policy(row) for row in connection.execute(query)]
        )

    async def trusts_issuer(self, issuer: str) -> bool:
        return await self._database.look_up(
            lambda connection: connection.execute(_ISSUER, {"issuer": issuer}).first() is not None
        )

    async def find_trust_policies(self, issuer: str) -> list[TrustPolicy]:
        query = _POLICIES.where(trust_policies.c.issuer == issuer)
        return await self._database.read(
            lambda connection: [_policy(row) for row in connection.execute(query)]
        )

    async def delete_trust_policy(self, project_id: str, policy_id: str) -> bool:
        # What was traded for by it goes along: tokens.trust_policy_id, and parent_id from there.
        statement = delete(trust_policies).where(
            trust_policies.c.project_id == project_id, trust_policies.c.id == policy_id
        )
        return await self._database.write(
            lambda connection: connection.execute(statement).rowcount > 0
        )


def _policy(row: Row[Any]) -> TrustPolicy:
    return TrustPolicy(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        rule=TrustRule(
            provider=Provider(row.provider),
            issuer=row.issuer,
            audience=row.audience,
            claims=json.loads(row.claims),
            grants=Grant(row.grants),
        ),
        created_at=row.created_at,
        created_by=row.created_by,
        created_by_name=row.user_name or "",
    )
