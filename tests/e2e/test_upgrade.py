"""A data folder that an older release left, served by this one."""

import json
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ServerFactory
from tests.e2e.engines import Skopeo
from tests.e2e.processes import wait_until
from tests.e2e.registry import Registry, digest_of
from tests.e2e.server import LayoverServer
from tests.e2e.test_server_life import NO_BUILDER
from tests.fixtures.schemas import released

pytestmark = pytest.mark.embedded_only

_WEEK = timedelta(days=7)
_MOMENT = timedelta(minutes=5)

# Nothing that a running build reports is in a release's folder for longer than a minute.
_RUNNING = "running"


def _rows(server: LayoverServer, *command: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(server.cli(*command, "--output", "json").stdout)
    return rows


def _has(found: object, seen: object) -> bool:
    """Whether all that was seen is found; a newer release may show more, and other times."""
    if isinstance(seen, dict):
        return isinstance(found, dict) and all(
            name in found and _has(found[name], value)
            for name, value in seen.items()
            if not name.endswith(("At", "expiresIn"))
        )
    if isinstance(seen, list):
        return isinstance(found, list) and len(found) == len(seen) and all(map(_has, found, seen))
    return found == seen


@pytest.mark.parametrize("schema", released.SCHEMAS)
def test_all_that_was_seen_is_there_until_seven_days_after_it_was_saved(
    start_server: ServerFactory, own_folder: Path, schema: str
) -> None:
    released.restore(schema, own_folder / "old", age=_WEEK - _MOMENT)
    server = start_server(data_folder=own_folder / "old", settings=NO_BUILDER)
    seen = released.seen(schema, server.host)
    assert _has(_rows(server, "list", "projects"), seen["projects"])
    assert _has(_rows(server, "list", "builds"), seen["builds"])
    for (shown,) in seen["shown"]:
        assert _has(_rows(server, "builds", "show", shown["id"]), [shown]), shown["id"]
    for build_id, log in seen["logs"].items():
        assert server.cli("builds", "show", build_id, "--log").stdout == log
    for name, repository in seen["repositories"].items():
        _check_repository(Registry(server, name, server.basic_auth), repository)


def _check_repository(registry: Registry, seen: dict[str, Any]) -> None:
    assert registry("GET", "tags/list").json()["tags"] == sorted(seen["tags"])
    for tag, digest in seen["tags"].items():
        assert registry("HEAD", f"manifests/{tag}").headers["Docker-Content-Digest"] == digest
    for kind in ("manifests", "blobs"):
        for digest in seen[kind]:
            found = registry("GET", f"{kind}/{digest}")
            assert found.status == 200, (kind, digest)
            assert digest_of(found.body, digest.partition(":")[0]) == digest
    for digest in seen["manifests"]:
        referrers = registry("GET", f"referrers/{digest}").json()["manifests"]
        assert sorted(found["digest"] for found in referrers) == seen["referrers"].get(digest, [])


def test_builds_and_pushes_of_an_older_release_are_pulled_whole(
    start_server: ServerFactory, own_folder: Path, skopeo: Skopeo, tmp_path: Path
) -> None:
    released.restore("0001", own_folder / "old")
    server = start_server(data_folder=own_folder / "old", settings=NO_BUILDER)
    seen = released.seen("0001", server.host)
    references = [
        f"{server.host}/{name}:{tag}"
        for name, repository in seen["repositories"].items()
        for tag in repository["tags"]
    ]
    assert len(references) > 10
    for number, reference in enumerate(references):
        skopeo(
            *("copy", "--all", "--preserve-digests", "--src-tls-verify=false"),
            *("--src-creds", f"x-token:{server.token}", f"docker://{reference}"),
            f"dir:{tmp_path / str(number)}",
        )


def test_seven_days_after_it_was_saved_all_is_gone_and_its_bytes_follow(
    start_server: ServerFactory, own_folder: Path
) -> None:
    data_folder = own_folder / "old"
    released.restore("0001", data_folder, age=_WEEK + _MOMENT)
    server = start_server(data_folder=data_folder, settings={**NO_BUILDER, "REAPER_INTERVAL": "1s"})
    seen = released.seen("0001", server.host)
    # The one that was running is canceled when its client is not heard of, and counts from then.
    running = {build["id"] for build in seen["builds"] if build["status"] == _RUNNING}
    assert {row["id"] for row in _rows(server, "list", "builds")} == running
    for name, repository in seen["repositories"].items():
        registry = Registry(server, name, server.basic_auth)
        listed = registry("GET", "tags/list")
        assert listed.status == 404 or listed.json()["tags"] == []
        for reference in (*repository["tags"], *repository["manifests"]):
            assert registry("GET", f"manifests/{reference}").status == 404, reference
    # What clients were told just before the upgrade is there for an hour more; an hour later:
    server.stop()
    with closing(sqlite3.connect(data_folder / "layover.db")) as database, database:
        for table, column in (
            *(("manifests", "leased_until"), ("manifests", "check_at")),
            *(("repository_blobs", "leased_until"), ("repository_blobs", "check_at")),
            ("repository_blobs", "shown_until"),
        ):
            database.execute(f"UPDATE {table} SET {column} = {column} - 7200000000")
    server.start()
    wait_until(lambda: not _files(data_folder), timeout=30, what="an empty blob store")


def _files(data_folder: Path) -> list[Path]:
    return [path for path in (data_folder / "blobs").rglob("*") if path.is_file()]
