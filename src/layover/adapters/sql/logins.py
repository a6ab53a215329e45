"""Command lines that wait to be logged in, in SQL."""

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from layover.adapters.sql.database import Database
from layover.adapters.sql.identity import insert_token
from layover.adapters.sql.schema import login_requests
from layover.identity.models import NewToken
from layover.identity.sign_in_models import LoginRequest, LoginState

# What every waiting stream asks each second.
_STATE = select(login_requests.c.user_id, login_requests.c.denied_at).where(
    login_requests.c.id_hash == bindparam("key"), login_requests.c.expires_at > bindparam("now")
)
_UNDECIDED = login_requests.c.user_id.is_(None) & login_requests.c.denied_at.is_(None)


class SqlLoginStore:
    """The LoginStore of a metadata database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, id_hash: bytes, request: LoginRequest, admit: Callable[[Sequence[str]], None]
    ) -> bool:
        over = delete(login_requests).where(login_requests.c.expires_at <= request.created_at)
        same_code = select(login_requests.c.id_hash).where(
            login_requests.c.user_code == request.user_code
        )
        row = {
            "id_hash": id_hash,
            "user_code": request.user_code,
            "address": request.address,
            "user_agent": request.user_agent,
            "created_at": request.created_at,
            "expires_at": request.expires_at,
        }

        def work(connection: Connection) -> bool:
            connection.execute(over)
            # The denied ones too: they take room until their time is over.
            admit(connection.execute(select(login_requests.c.address)).scalars().all())
            if connection.execute(same_code).first() is not None:
                return False
            connection.execute(insert(login_requests).values(row))
            return True

        return await self._database.write(work)

    async def find_pending(self, user_code: str, now: datetime) -> LoginRequest | None:
        query = select(login_requests).where(
            login_requests.c.user_code == user_code, login_requests.c.expires_at > now, _UNDECIDED
        )
        row = await self._database.look_up(lambda connection: connection.execute(query).first())
        if row is None:
            return None
        return LoginRequest(
            row.user_code, row.address, row.user_agent, row.created_at, row.expires_at
        )

    async def decide(self, user_code: str, user_id: str, now: datetime, *, approve: bool) -> bool:
        statement = (
            update(login_requests)
            .where(
                login_requests.c.user_code == user_code,
                login_requests.c.expires_at > now,
                _UNDECIDED,
            )
            .values(user_id=user_id, denied_at=None if approve else now)
        )
        return await self._database.write(
            lambda connection: connection.execute(statement).rowcount == 1
        )

    async def state(self, id_hash: bytes, now: datetime) -> tuple[LoginState, str | None] | None:
        row = await self._database.look_up(
            lambda connection: connection.execute(_STATE, {"key": id_hash, "now": now}).first()
        )
        if row is None:
            return None
        if row.denied_at is not None:
            return LoginState.DENIED, None
        if row.user_id is None:
            return LoginState.PENDING, None
        return LoginState.APPROVED, row.user_id

    async def redeem(self, id_hash: bytes, token: NewToken, now: datetime) -> bool:
        statement = delete(login_requests).where(
            login_requests.c.id_hash == id_hash,
            login_requests.c.user_id == token.principal.user_id,
            login_requests.c.denied_at.is_(None),
            login_requests.c.expires_at > now,
        )

        def work(connection: Connection) -> bool:
            if connection.execute(statement).rowcount != 1:
                return False
            connection.execute(insert_token(token))
            return True

        return await self._database.write(work)

    async def delete_over(self, now: datetime) -> int:
        statement = delete(login_requests).where(login_requests.c.expires_at <= now)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)
