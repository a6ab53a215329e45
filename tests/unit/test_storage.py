import time
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from layover import storage
from layover.adapters.sql.migrate import DatabaseUnreachable, SchemaUnknown
from layover.errors import LayoverError, StorageUnavailable
from layover.settings import Settings, SettingsError
from layover.storage import Patience, StartupTimedOut, open_database

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def brief_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_FIRST_PAUSE_SECONDS", 0.001)


async def test_what_is_away_is_waited_for_and_named_meanwhile() -> None:
    missing: dict[str, str] = {"server": "starting"}
    seen: list[str] = []
    answers: list[Exception | None] = [DatabaseUnreachable("port 1"), StorageUnavailable(), None]

    async def attempt() -> str:
        seen.append(missing["database"])
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return "opened"

    patience = Patience(timedelta(seconds=30), missing)
    assert await patience.until("database", attempt) == "opened"
    assert seen == ["not reached yet", *["away: see the server's log"] * 2]
    assert missing == {"server": "starting"}


async def test_what_stays_away_is_given_up_on_with_the_reason() -> None:
    missing: dict[str, str] = {}

    async def attempt() -> None:
        raise DatabaseUnreachable("no route to 10.0.0.1")

    started_at = time.monotonic()
    with pytest.raises(StartupTimedOut, match=r"database after 0 s.*startup_timeout.*10\.0\.0\.1"):
        await Patience(timedelta(seconds=0.2), missing).until("database", attempt)
    assert 0.2 <= time.monotonic() - started_at < 2
    # What anybody may ask for names no hosts.
    assert "10.0.0.1" not in missing["database"]


async def test_what_waiting_does_not_mend_is_told_at_once() -> None:
    async def attempt() -> None:
        raise SchemaUnknown("9999")

    with pytest.raises(SchemaUnknown):
        await Patience(timedelta(days=1), {}).until("database", attempt)


async def test_a_server_that_is_not_to_wait_tries_once() -> None:
    attempts = []

    async def attempt() -> None:
        attempts.append(1)
        raise StorageUnavailable

    with pytest.raises(StartupTimedOut, match="1 attempts"):
        await Patience(timedelta(0), {}).until("database", attempt)
    assert attempts == [1]
    assert issubclass(StartupTimedOut, LayoverError)


async def test_the_database_is_the_folders_own_unless_another_is_given(tmp_path: Path) -> None:
    database = open_database(Settings(data_dir=tmp_path))
    await database.ping()
    database.close()
    assert (tmp_path / "layover.db").is_file()


async def test_a_url_that_is_none_is_told_by_its_setting_without_what_it_holds() -> None:
    url = SecretStr("postgresql://user:s3cret@host:port/name")
    with pytest.raises(SettingsError, match="database_url: ") as refused:
        open_database(Settings(database_url=url))
    assert "s3cret" not in str(refused.value)
