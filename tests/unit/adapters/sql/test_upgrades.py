"""Each migration on a database that the release before it wrote, with data in it."""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command, op
from alembic.config import Config
from sqlalchemy import Boolean, Engine, MetaData, inspect

import layover.adapters.sql
from layover.adapters.sql.database import Database
from layover.adapters.sql.migrate import migrate
from tests.fixtures.schemas import released

_MIGRATIONS = Path(layover.adapters.sql.__file__).parent / "migrations"

_SECOND = 1_000_000
_DAY = 86_400 * _SECOND

Rows = list[dict[str, Any]]


class Upgrade:
    """A database before and after, and the folder of its blobs."""

    def __init__(self, folder: Path, schema: str, postgres_url: str | None = None) -> None:
        released.restore(schema, folder)
        self.folder = folder
        self._url = f"sqlite:///{folder / 'layover.db'}"
        if postgres_url is not None:
            rows, self._url = self.tables(), postgres_url
            self._fill(schema, rows)
        self.before = self.tables()
        self.began = datetime.now(UTC)
        self.migrate()
        self.after = self.tables()

    def migrate(self) -> None:
        with self._engine() as engine:
            migrate(engine)

    def tables(self) -> dict[str, Rows]:
        """Every row of every table."""
        with self._engine() as engine, engine.connect() as connection:
            return {
                name: [
                    dict(row)
                    for row in connection.exec_driver_sql(f"SELECT * FROM {name}").mappings()
                ]
                for name in inspect(connection).get_table_names()
            }

    def query(self, *statements: str) -> Sequence[tuple[Any, ...]]:
        """Run statements in one transaction; return what the last one found."""
        with self._engine() as engine, engine.begin() as connection:
            for statement in statements:
                found = connection.exec_driver_sql(statement)
            return [tuple(row) for row in found.all()]

    def _fill(self, schema: str, rows: dict[str, Rows]) -> None:
        """Make PostgreSQL's database what SQLite's was."""
        with self._engine() as engine, engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.attributes["connection"] = connection
            command.upgrade(config, schema)
            found = MetaData()
            found.reflect(connection)
            for table in found.sorted_tables:
                for row in rows[table.name] if table.name != "alembic_version" else ():
                    # SQLite's booleans are numbers.
                    booleans = {
                        column.name: bool(row[column.name])
                        for column in table.columns
                        if isinstance(column.type, Boolean)
                    }
                    connection.execute(table.insert().values({**row, **booleans}))

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        database = Database(self._url)
        try:
            yield database.engine
        finally:
            database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def first(tmp_path: Path, request: pytest.FixtureRequest) -> Upgrade:
    """The upgrade from the first schema."""
    on_sqlite = request.param == "sqlite"
    return Upgrade(
        tmp_path, "0001", None if on_sqlite else request.getfixturevalue("empty_postgres_url")
    )


def test_the_fixtures_are_of_every_released_schema() -> None:
    revisions = sorted(path.name[:4] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))
    # The newest one is not out yet, or has nothing after it.
    assert revisions[:-1] == released.SCHEMAS


@pytest.mark.parametrize("schema", released.SCHEMAS)
def test_an_upgrade_is_done_once(tmp_path: Path, schema: str) -> None:
    upgrade = Upgrade(tmp_path, schema)
    upgrade.migrate()
    assert upgrade.tables() == upgrade.after


@pytest.mark.parametrize("schema", released.SCHEMAS)
def test_no_upgrade_breaks_a_foreign_key(tmp_path: Path, schema: str) -> None:
    upgrade = Upgrade(tmp_path, schema)
    assert upgrade.query("PRAGMA foreign_key_check") == []
    assert upgrade.query("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize(
    "index", ["ix_retentions_expires_at", "ix_manifests_check_at", "ix_tags_retention_id"]
)
def test_an_upgrade_that_fails_changes_nothing_and_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: str
) -> None:
    whole = Upgrade(tmp_path / "whole", "0001")
    released.restore("0001", tmp_path / "cut")
    path = tmp_path / "cut" / "layover.db"
    before = _dump(path)
    create = op.create_index

    def fails(name: str, *arguments: Any, **more: Any) -> None:
        if name == index:
            raise BrokenError
        create(name, *arguments, **more)

    monkeypatch.setattr(op, "create_index", fails)
    database = Database(f"sqlite:///{path}")
    try:
        with pytest.raises(BrokenError):
            migrate(database.engine)
        assert _dump(path) == before
        monkeypatch.undo()
        migrate(database.engine)
    finally:
        database.close()
    with closing(sqlite3.connect(path)) as connection:
        for table, rows in whole.after.items():
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (len(rows),)


class BrokenError(Exception):
    """What a migration may run into."""


def _dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def test_0001_every_row_is_kept_as_it_was(first: Upgrade) -> None:
    assert all(first.before.values()), "a table without rows shows nothing"
    for table, rows in first.before.items():
        if table in ("alembic_version", "uploads", "users", "tokens"):
            # Users and tokens change with the schema after it, as is told there.
            continue
        kept = [{name: row[name] for name in rows[0]} for row in first.after[table]]
        assert sorted(kept, key=repr) == sorted(rows, key=repr), table


def test_0001_deleting_a_build_still_takes_its_steps_along(first: Upgrade) -> None:
    assert first.query("SELECT count(*) FROM build_steps") != [(0,)]
    for table in ("build_steps", "build_logs", "build_dockerfiles", "builder_leases"):
        assert first.query("DELETE FROM builds", f"SELECT count(*) FROM {table}") == [(0,)]


def test_0001_projects_keep_seven_days_unless_told_otherwise(first: Upgrade) -> None:
    for project in first.after["projects"]:
        assert project["retention_seconds"] == 7 * 86_400
        assert project["max_retention_seconds"] == 90 * 86_400
        assert (project["extends_on_pull"], project["quota_bytes"]) == (0, None)
    assert {build["retention_seconds"] for build in first.after["builds"]} == {7 * 86_400}


def test_0001_every_blob_is_found_where_its_file_lies(first: Upgrade) -> None:
    algorithms = set()
    for blob in first.after["blobs"]:
        algorithm, _, hexadecimal = blob["digest"].partition(":")
        content = (first.folder / "blobs" / blob["key"]).read_bytes()
        assert hashlib.new(algorithm, content).hexdigest() == hexadecimal
        assert len(content) == blob["size_bytes"]
        assert blob["quarantined_at"] is None
        algorithms.add(algorithm)
    assert algorithms == {"sha256", "sha512"}


def test_0001_a_build_lives_seven_days_from_its_end_and_a_running_one_on(first: Upgrade) -> None:
    expected = {
        build["id"]: (
            build["project_id"],
            build["created_at"],
            build["finished_at"] and _round_up(build["finished_at"] + 7 * _DAY),
        )
        for build in first.before["builds"]
    }
    assert None in {expires_at for _, _, expires_at in expected.values()}
    assert {
        row["build_id"]: (row["project_id"], row["created_at"], row["expires_at"])
        for row in first.after["retentions"]
        if row["build_id"] is not None
    } == expected
    assert {(row["ended_at"], row["end_reason"]) for row in first.after["retentions"]} == {
        (None, None)
    }


def test_0001_a_push_lives_seven_days_from_the_last_one(first: Upgrade) -> None:
    expected = {
        (manifest["repository_id"], manifest["digest"]): _round_up(pushed_at + 7 * _DAY)
        for manifest in first.before["manifests"]
        if (pushed_at := _last_push(first.before, manifest)) is not None
    }
    found = [row for row in first.after["retentions"] if row["build_id"] is None]
    assert {(row["repository_id"], row["digest"]): row["expires_at"] for row in found} == expected
    assert len(found) == len(expected)
    # An image that was pushed again counts from then.
    latest = _tag(first.before, "latest")
    assert expected[latest["repository_id"], latest["digest"]] == _round_up(
        latest["updated_at"] + 7 * _DAY
    )


def test_0001_a_tag_lives_as_the_build_that_saved_it_or_as_its_push(first: Upgrade) -> None:
    retentions = {row["id"]: row for row in first.after["retentions"]}
    assert len(first.after["tags"]) == len(first.before["tags"])
    for tag in first.after["tags"]:
        retention = retentions[tag["retention_id"]]
        if tag["build_id"] is not None:
            assert retention["build_id"] == tag["build_id"]
        else:
            assert (retention["repository_id"], retention["digest"]) == (
                tag["repository_id"],
                tag["digest"],
            )


def test_0001_a_retention_retains_all_that_it_reaches_and_nothing_else(first: Upgrade) -> None:
    edges: dict[tuple[int, str], set[str]] = {}
    for reference in first.before["manifest_references"]:
        if reference["kind"] == "manifest":
            key = (reference["repository_id"], reference["manifest_digest"])
            edges.setdefault(key, set()).add(reference["digest"])
    for manifest in first.before["manifests"]:
        if manifest["subject"] is not None:
            key = (manifest["repository_id"], manifest["subject"])
            edges.setdefault(key, set()).add(manifest["digest"])
    expected = set()
    for retention in first.after["retentions"]:
        reached = {
            (tag["repository_id"], tag["digest"])
            for tag in first.after["tags"]
            if tag["retention_id"] == retention["id"]
        }
        if retention["digest"] is not None:
            reached.add((retention["repository_id"], retention["digest"]))
        new = set(reached)
        while new:
            repository_id, digest = new.pop()
            for target in edges.get((repository_id, digest), set()):
                if (repository_id, target) not in reached:
                    reached.add((repository_id, target))
                    new.add((repository_id, target))
        expected |= {(retention["id"], *place) for place in reached}
    found = [tuple(row.values()) for row in first.after["retained_manifests"]]
    assert set(found) == expected
    assert len(found) == len(expected)
    # So nothing is left that nobody knows why it is there.
    retained = {(repository_id, digest) for _, repository_id, digest in found}
    everything = {(row["repository_id"], row["digest"]) for row in first.before["manifests"]}
    assert retained == everything
    assert {row["check_at"] for row in first.after["manifests"]} == {None}


def test_0001_what_a_client_was_told_is_there_stays_for_an_hour(first: Upgrade) -> None:
    least = (first.began + timedelta(hours=1)).timestamp() * _SECOND
    named = {
        (row["repository_id"], row["digest"])
        for row in first.before["manifest_references"]
        if row["kind"] == "blob"
    }
    unnamed = 0
    for link in first.after["repository_blobs"]:
        assert least <= link["leased_until"] <= least + 60 * _SECOND
        if (link["repository_id"], link["digest"]) in named:
            assert (link["shown_until"], link["check_at"]) == (None, None)
        else:
            # Uploaded for a manifest that is still to come, or left by a build that was deleted.
            assert link["shown_until"] == link["check_at"] == link["leased_until"]
            unnamed += 1
    assert unnamed == 2
    assert all(row["leased_until"] >= least for row in first.after["manifests"])


def test_0001_an_upload_of_the_old_kind_is_forgotten(first: Upgrade) -> None:
    assert first.before["uploads"]
    assert first.after["uploads"] == []


def _round_up(microseconds: int) -> int:
    return -(-microseconds // _SECOND) * _SECOND


def _tag(tables: dict[str, Rows], name: str) -> dict[str, Any]:
    (tag,) = (tag for tag in tables["tags"] if tag["name"] == name)
    return tag


def _last_push(tables: dict[str, Rows], manifest: dict[str, Any]) -> int | None:
    """When a manifest was last pushed for its own sake; None when it belongs to something else."""
    repository_id, digest = manifest["repository_id"], manifest["digest"]
    tags = [
        tag
        for tag in tables["tags"]
        if (tag["repository_id"], tag["digest"]) == (repository_id, digest)
    ]
    pushed_at: int = manifest["pushed_at"]
    if pushed := [int(tag["updated_at"]) for tag in tags if tag["build_id"] is None]:
        return max(pushed_at, *pushed)
    is_child = any(
        (row["repository_id"], row["digest"], row["kind"]) == (repository_id, digest, "manifest")
        for row in tables["manifest_references"]
    )
    has_subject = any(
        (other["repository_id"], other["digest"]) == (repository_id, manifest["subject"])
        for other in tables["manifests"]
    )
    return None if tags or is_child or has_subject else pushed_at


@pytest.fixture(params=["sqlite", "postgresql"])
def second(tmp_path: Path, request: pytest.FixtureRequest) -> Upgrade:
    """The upgrade from the schema before roles."""
    on_sqlite = request.param == "sqlite"
    return Upgrade(
        tmp_path, "0002", None if on_sqlite else request.getfixturevalue("empty_postgres_url")
    )


def test_whoever_was_an_administrator_owns_the_organization(second: Upgrade) -> None:
    assert second.before["users"]
    assert [
        (m["user_id"], m["organization_id"], m["role"]) for m in second.after["memberships"]
    ] == [(user["id"], user["organization_id"], "owner") for user in second.before["users"]]
    assert all(user["is_admin"] for user in second.after["users"])
    assert [user["name"] for user in second.after["users"]] == [
        user["name"] for user in second.before["users"]
    ]


def test_tokens_open_after_the_upgrade_what_they_opened_before(second: Upgrade) -> None:
    after = {token["id"]: token for token in second.after["tokens"]}
    assert set(after) == {token["id"] for token in second.before["tokens"]}
    kept = ("secret_hash", "user_id", "project_id", "build_id", "tags", "description", "expires_at")
    for token in second.before["tokens"]:
        now = after[token["id"]]
        assert {name: now[name] for name in kept} == {name: token[name] for name in kept}
        assert now["revoked_at"] is None
        if token["kind"] != "user":
            expected = (token["kind"], token["organization_id"])
        elif token["user_id"]:
            # It acts for its user, who owns the organization.
            expected = ("user", None)
        else:
            # It never was anybody's in person.
            expected = ("organization", token["organization_id"])
        assert (now["kind"], now["organization_id"]) == expected


def test_users_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    released.restore("0002", tmp_path)
    with closing(sqlite3.connect(tmp_path / "layover.db")) as database, database:
        database.execute(
            "INSERT INTO users SELECT 'zzzzzzzzzz', organization_id, name, created_at FROM users"
        )
    opened = Database(f"sqlite:///{tmp_path / 'layover.db'}")
    migrate(opened.engine)
    with opened.engine.connect() as connection:
        names = set(connection.exec_driver_sql("SELECT name FROM users").scalars())
    opened.close()
    assert names == {"admin", "admin-zzzzzzzzzz"}


@pytest.fixture(params=["sqlite", "postgresql"])
def third(tmp_path: Path, request: pytest.FixtureRequest) -> Upgrade:
    """The upgrade from the schema before pushes to other registries."""
    on_sqlite = request.param == "sqlite"
    return Upgrade(
        tmp_path, "0003", None if on_sqlite else request.getfixturevalue("empty_postgres_url")
    )


def test_0003_every_row_is_kept_as_it_was(third: Upgrade) -> None:
    # Nobody collected or waited for a collection when that server was killed.
    assert {table for table, rows in third.before.items() if not rows} <= {
        "receipts",
        "server_leases",
        "tombstones",
    }
    for table, rows in third.before.items():
        if table == "alembic_version":
            continue
        names = rows[0] if rows else ()
        kept = [{name: row[name] for name in names} for row in third.after[table]]
        assert sorted(kept, key=repr) == sorted(rows, key=repr), table


def test_0003_nothing_is_on_its_way_to_another_registry(third: Upgrade) -> None:
    added = {"pushes", "push_transfers", "push_authorizations"}
    assert third.after.keys() - third.before.keys() == {*added, "staged_tags"}
    assert not any(third.after[table] for table in added)
    for table in ("manifests", "repository_blobs"):
        assert {row["kept_until"] for row in third.after[table]} == {None}


def test_0003_what_a_running_build_named_waits_for_its_end(tmp_path: Path) -> None:
    released.restore("0003", tmp_path)
    path = tmp_path / "layover.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        before = set(connection.execute("SELECT name FROM tags"))
        running, retention = connection.execute(
            "SELECT builds.id, retentions.id FROM builds"
            " JOIN retentions ON retentions.build_id = builds.id"
            " WHERE status = 'running' ORDER BY builds.id LIMIT 1"
        ).fetchone()
        place = connection.execute("SELECT repository_id, digest FROM tags LIMIT 1").fetchone()
        connection.execute(
            "INSERT INTO tags (repository_id, digest, name, build_id, retention_id, updated_at)"
            " VALUES (?, ?, ?, ?, ?, 0)",
            (*place, running, running, retention),
        )
    database = Database(f"sqlite:///{path}")
    try:
        migrate(database.engine)
    finally:
        database.close()
    with closing(sqlite3.connect(path)) as connection:
        staged = connection.execute("SELECT repository_id, digest, name, build_id FROM staged_tags")
        assert staged.fetchall() == [(*place, running, running)]
        assert set(connection.execute("SELECT name FROM tags")) == before
