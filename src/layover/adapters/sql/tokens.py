"""Tokens as they are looked after, in SQL."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, literal, or_, select, tuple_

from layover.adapters.sql.database import Database
from layover.adapters.sql.identity import revoke
from layover.adapters.sql.schema import Timestamp, tokens, users
from layover.identity.management import Place, Token, TokenFilter, TokenPage
from layover.identity.models import TokenKind

_PARENT = tokens.alias("parent")
_TOKENS = (
    select(
        tokens,
        users.c.name.label("user_name"),
        _PARENT.c.kind.label("parent_kind"),
    )
    .outerjoin(users, users.c.id == tokens.c.created_by)
    .outerjoin(_PARENT, _PARENT.c.id == tokens.c.parent_id)
    .where(tokens.c.revoked_at.is_(None))
)


class SqlTokenStore:
    """The TokenStore of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_token(self, token_id: str, now: datetime) -> Token | None:
        query = _TOKENS.where(tokens.c.id == token_id, _is_unexpired(now))
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return None if row is None else _token(row)

    async def list_tokens(
        self, wanted: TokenFilter, after: Place | None, limit: int, now: datetime
    ) -> TokenPage:
        query = _TOKENS.where(_is_unexpired(now), tokens.c.kind != TokenKind.BUILD.value)
        for column, value in (
            (tokens.c.organization_id, wanted.organization_id),
            (tokens.c.project_id, wanted.project_id),
            (tokens.c.created_by, wanted.created_by),
            (tokens.c.parent_id, wanted.parent_id),
        ):
            if value is not None:
                query = query.where(column == value)
        if after is not None:
            place = tuple_(literal(after.created_at, Timestamp), literal(after.id))
            query = query.where(tuple_(tokens.c.created_at, tokens.c.id) < place)
        # One more than asked for tells whether there are more.
        query = query.order_by(tokens.c.created_at.desc(), tokens.c.id.desc()).limit(limit + 1)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        found = tuple(_token(row) for row in rows[:limit])
        last = found[-1] if len(rows) > limit else None
        return TokenPage(found, None if last is None else Place(last.created_at, last.id))

    async def revoke_token(self, token_id: str, now: datetime) -> int:
        one = select(tokens.c.id).where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
        return await self._database.write(lambda connection: revoke(connection, one, now))


def _is_unexpired(now: datetime) -> Any:
    return or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now)


def _token(row: Row[Any]) -> Token:
    return Token(
        id=row.id,
        kind=TokenKind(row.kind),
        description=row.description,
        organization_id=row.organization_id,
        user_id=row.user_id,
        project_id=row.project_id,
        build_id=row.build_id,
        created_by=row.created_by,
        parent_id=row.parent_id,
        maker=_maker(row),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )


def _maker(row: Row[Any]) -> str:
    if row.user_name is not None:
        return str(row.user_name)
    if row.parent_kind is not None:
        return f"{row.parent_kind} token {row.parent_id}"
    if row.trust_policy_id is not None:
        return f"trust policy {row.trust_policy_id}"
    return "the server"
