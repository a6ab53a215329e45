"""How long builds live, as a user says it and sees it: save, keep, rm, receipts, projects, gc."""

import base64
import json
import re
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ServerFactory
from tests.e2e.engines import DockerEngine
from tests.e2e.images import MIB, busybox_context, random_file
from tests.e2e.pairs import EMBEDDED, REPLICATED
from tests.e2e.processes import environment, run, wait_until
from tests.e2e.referrers import push_referrer, referrers_of
from tests.e2e.server import LayoverServer, SavedBuild

# Long enough for a push, and for a pull, on a busy machine; short enough to wait for.
RETENTION_SECONDS = 30
GRACE_SECONDS = 6.0
INTERVAL_SECONDS = 1.0


@pytest.fixture
def quick_server(start_server: ServerFactory) -> LayoverServer:
    """A server that collects at once what is over."""
    return start_server(
        settings={
            "REAPER_INTERVAL": f"{INTERVAL_SECONDS:.0f}s",
            "GC_GRACE": f"{GRACE_SECONDS:.0f}s",
        }
    )


def listed(server: LayoverServer) -> dict[str, dict[str, Any]]:
    rows = json.loads(server.cli("list", "builds", "--output", "json").stdout)
    return {row["id"]: row for row in rows}


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


def lifetime(row: dict[str, Any]) -> timedelta:
    """How long a build lives from its end, without the part of a second that it is rounded up."""
    lives = time_of(row["expiresAt"]) - time_of(row["finishedAt"])
    return timedelta(seconds=int(lives.total_seconds()))


def stored(server: LayoverServer) -> int:
    """The bytes that the server's blobs take."""
    return sum(path.stat().st_size for path in server.blob_folder.rglob("*") if path.is_file())


def everything_of(server: LayoverServer, build: SavedBuild, *tags: str) -> list[tuple[str, str]]:
    """Each path that leads to something of the build, with the method to ask with."""
    paths = [f"tags/list?last={build.id[:-1]}&n=1"]
    seen: set[str] = set()
    references = [build.id, *tags]
    while references:
        reference = references.pop()
        response = server.manifest(reference)
        paths.append(f"manifests/{reference}")
        body = response.json()
        digest = response.headers["Docker-Content-Digest"]
        if digest in seen:
            continue
        seen.add(digest)
        paths.append(f"manifests/{digest}")
        references += [child["digest"] for child in body.get("manifests", ())]
        blobs = [body["config"], *body["layers"]] if "layers" in body else []
        paths += [f"blobs/{blob['digest']}" for blob in blobs]
    return [
        (method, f"/v2/{server.project_id}/{path}")
        for path in paths[1:]
        for method in ("GET", "HEAD")
    ]


def statuses(server: LayoverServer, asked: list[tuple[str, str]]) -> set[int]:
    return {server.request(method, path).status for method, path in asked}


def openssl_verifies(receipt: dict[str, Any], folder: Path) -> bool:
    """As docs/retention.md says, with nothing of Layover's."""
    folder.mkdir()
    (folder / "document").write_bytes(base64.b64decode(receipt["document"]))
    (folder / "signature").write_bytes(base64.b64decode(receipt["signature"]))
    (folder / "key.pem").write_text(receipt["public_key_pem"])
    done = run(
        (
            *("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem"),
            *("-rawin", "-in", "document", "-sigfile", "signature"),
        ),
        env=environment(folder),
        cwd=folder,
        check=False,
    )
    return done.returncode == 0 and "Signature Verified Successfully" in done.stdout


@pytest.mark.pairs(EMBEDDED, REPLICATED)
def test_a_build_is_gone_at_its_time_with_its_bytes_and_leaves_a_receipt_that_openssl_believes(
    quick_server: LayoverServer, docker: DockerEngine, tmp_path: Path
) -> None:
    server = quick_server
    context = busybox_context(tmp_path / "context", "not for long")
    random_file(context / "random", 3 * MIB)
    (context / "Dockerfile").open("a").write("COPY random /\n")
    empty = stored(server)
    saved = server.save(context, "--retention", f"{RETENTION_SECONDS}s", "--save-tag", "briefly")
    pulled = server.cli("pull", saved.id, "-t", "brief:1", env={"DOCKER_HOST": docker.host})
    assert pulled.stdout == "brief:1\n"
    row = listed(server)[saved.id]
    expires_at = time_of(row["expiresAt"])
    assert lifetime(row) == timedelta(seconds=RETENTION_SECONDS)
    assert re.fullmatch(r"in \d+ s", row["expiresIn"])
    signature = push_referrer(server, saved)
    root = server.manifest(saved.id).headers["Docker-Content-Digest"]
    assert referrers_of(server, root) == [signature]
    asked = [
        *everything_of(server, saved, "briefly"),
        ("GET", f"/v2/{server.project_id}/manifests/{signature}"),
    ]
    # Tag, save tag, index, image, attestation, two configs and more, each by GET and HEAD.
    assert len(asked) >= 16
    assert statuses(server, asked) == {200}
    early = server.cli("builds", "receipt", saved.id, check=False)
    assert early.returncode == 1
    assert "is still there" in early.stderr
    assert stored(server) > empty + 3 * MIB
    assert datetime.now(UTC) < expires_at, "the machine is too slow for this test's times"

    time.sleep((expires_at - datetime.now(UTC)).total_seconds())
    assert statuses(server, asked) == {404}
    assert referrers_of(server, root) == []
    assert listed(server) == {}
    # Told with the time, to who may see the project.
    told = rf"build {saved.id} expired at {expires_at:%Y-%m-%dT%H:%M:%S}"
    for command in (
        ("pull", saved.id),
        ("builds", "show", saved.id),
        ("builds", "rm", "--yes", saved.id),
        ("builds", "keep", saved.id, "--for", "7d"),
    ):
        refused = server.cli(*command, check=False)
        assert refused.returncode == 1
        assert told in refused.stderr, command

    left = expires_at + timedelta(seconds=GRACE_SECONDS + INTERVAL_SECONDS) - datetime.now(UTC)
    # A second more for the collection itself, beside the other tests.
    wait_until(
        lambda: stored(server) == empty,
        timeout=left.total_seconds() + 1,
        what="the bytes to be off the disk",
        interval=0.1,
    )
    wait_until(
        lambda: server.cli("builds", "receipt", saved.id, check=False).returncode == 0,
        timeout=10,
        what="the receipt",
    )
    receipt = json.loads(server.cli("builds", "receipt", saved.id, "--output", "json").stdout)
    assert (receipt["build"], receipt["project"]) == (saved.id, server.project_id)
    assert (receipt["reason"], receipt["kept"]) == ("expired", [])
    freed = {item["digest"]: item for item in receipt["freed"]}
    digests = {path.rpartition("/")[2] for _, path in asked} & set(freed)
    assert {root, signature} <= digests
    assert {path.rpartition("/")[2] for _, path in asked if "sha256:" in path} <= set(freed)
    assert receipt["freed_bytes"] == sum(item["size_bytes"] for item in freed.values()) > 3 * MIB
    shown = server.cli("builds", "receipt", saved.id).stdout
    assert "Signature  good, by the key" in shown
    assert openssl_verifies(receipt, tmp_path / "good")
    changed = base64.b64decode(receipt["document"]).replace(b'"expired"', b'"deleted"')
    forged = {**receipt, "document": base64.b64encode(changed).decode()}
    assert not openssl_verifies(forged, tmp_path / "forged")


def test_a_build_that_is_kept_is_kept_whole(quick_server: LayoverServer, tmp_path: Path) -> None:
    server = quick_server
    context = busybox_context(tmp_path / "context", "kept")
    saved = server.save(context, "--retention", f"{RETENTION_SECONDS}s", "--save-tag", "kept")
    signature = push_referrer(server, saved)
    root = server.manifest(saved.id).headers["Docker-Content-Digest"]
    asked = [
        *everything_of(server, saved, "kept"),
        ("GET", f"/v2/{server.project_id}/manifests/{signature}"),
    ]
    first_end = time_of(listed(server)[saved.id]["expiresAt"])
    before = datetime.now(UTC)
    kept = server.cli("builds", "keep", saved.id, "--for", "14d", "--output", "json")
    (row,) = json.loads(kept.stdout)
    assert row["id"] == saved.id
    until = time_of(row["expiresAt"])
    assert timedelta(0) <= until - before - timedelta(days=14) < timedelta(minutes=1)
    assert row["expiresIn"] in ("in 14 d", "in 13 d 23 h")
    # It never lives shorter for it.
    shorter = server.cli("builds", "keep", saved.id, "--for", "1h", "--output", "json")
    assert json.loads(shorter.stdout)[0]["expiresAt"] == row["expiresAt"]
    assert listed(server)[saved.id]["expiresAt"] == row["expiresAt"]
    shown = server.cli("builds", "show", saved.id).stdout
    assert re.search(rf"{re.escape(row['expiresAt'])} \(in (14 d|13 d 23 h)\)", shown)

    time.sleep(max(0, (first_end - datetime.now(UTC)).total_seconds()) + 2 * INTERVAL_SECONDS)
    assert statuses(server, asked) == {200}
    assert referrers_of(server, root) == [signature]


def test_several_builds_are_removed_and_each_that_cannot_be_is_named(
    server: LayoverServer, tmp_path: Path
) -> None:
    context = busybox_context(tmp_path / "context", "removed")
    one, two = server.save(context), server.save(context)
    gone = server.save(context)
    server.cli("builds", "rm", "--yes", gone.id)
    done = server.cli(
        "builds", "rm", "--yes", one.id, "aaaaaaaaaa", gone.id, two.id, one.id, check=False
    )
    assert done.returncode == 1
    assert done.stdout.split() == [one.id, two.id]
    assert "aaaaaaaaaa: unknown build" in done.stderr
    assert re.search(rf"{gone.id}: build {gone.id} was deleted at \d{{4}}-", done.stderr)
    for build in (one, two):
        shown = server.cli("builds", "show", build.id, check=False)
        assert shown.returncode == 1
        assert f"build {build.id} was deleted at" in shown.stderr
        assert server.request("GET", f"/v2/{server.project_id}/manifests/{build.id}").status == 404
    kept = server.cli("builds", "keep", one.id, "bbbbbbbbbb", "--for", "1d", check=False)
    assert (kept.returncode, kept.stdout) == (1, "")
    assert f"{one.id}: build {one.id} was deleted" in kept.stderr
    assert "bbbbbbbbbb: unknown build" in kept.stderr


def test_a_project_s_policy_holds_for_what_is_saved_from_then_on(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    server = start_server()
    context = busybox_context(tmp_path / "context", "by the project's policy")

    def lives(build: SavedBuild) -> timedelta:
        return lifetime(listed(server)[build.id])

    def policy() -> dict[str, Any]:
        rows = json.loads(server.cli("list", "projects", "--output", "json").stdout)
        (row,) = rows
        (own,) = json.loads(server.cli("projects", "get", "--output", "json").stdout)
        assert own.pop("usedBytes") > 0
        assert own == row
        return {name: row[name] for name in list(row)[5:]}

    usual = server.save(context)
    assert lives(usual) == timedelta(days=7)
    changed = server.cli("projects", "update", "--retention", "72h", "--quota", "50GiB")
    assert "3d" in changed.stdout
    assert policy() == {
        "retentionSeconds": 72 * 3600,
        "maxRetentionSeconds": 90 * 86400,
        "extendsOnPull": False,
        "quotaBytes": 50 << 30,
    }
    assert lives(usual) == timedelta(days=7)
    assert lives(server.save(context)) == timedelta(hours=72)
    server.cli(
        *("projects", "update", server.project_id, "--max-retention=4d", "--extend-on-pull"),
        *("--quota", "none"),
    )
    assert policy() == {
        "retentionSeconds": 72 * 3600,
        "maxRetentionSeconds": 4 * 86400,
        "extendsOnPull": True,
        "quotaBytes": None,
    }
    # What is there keeps its time, also beyond a lower maximum.
    assert lives(usual) == timedelta(days=7)
    for command in (
        ("build", "--save", "--retention", "5d", str(context)),
        ("builds", "keep", usual.id, "--for", "5d"),
    ):
        refused = server.cli(*command, check=False)
        assert refused.returncode == 1
        assert "a retention of 5d is over this project's maximum of 4d" in refused.stderr
    refused = server.cli("projects", "update", "--max-retention", "1h", check=False)
    assert refused.returncode == 1
    assert "a retention of 3d is over the maximum of 1h" in refused.stderr
    assert lives(server.save(context, "--retention", "36h")) == timedelta(hours=36)


def test_a_pull_extends_a_build_where_the_project_says_so_and_nowhere_else(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    server = start_server()
    saved = server.save(busybox_context(tmp_path / "context", "pulled"), "--retention", "1h")

    def left() -> timedelta:
        until = time_of(listed(server)[saved.id]["expiresAt"])
        return until - datetime.now(UTC)

    server.manifest(saved.id)
    assert left() < timedelta(hours=1, seconds=1)
    server.cli("projects", "update", "--retention", "72h", "--extend-on-pull")
    server.manifest(saved.id)
    assert timedelta(hours=71) < left() < timedelta(hours=72, seconds=1)
    server.cli("projects", "update", "--retention", "1h", "--no-extend-on-pull")
    server.manifest(saved.id)
    assert timedelta(hours=71) < left()


def test_a_bake_lives_and_dies_with_all_its_targets(server: LayoverServer, tmp_path: Path) -> None:
    context = busybox_context(tmp_path / "context", "baked")
    targets = {name: {"context": "."} for name in ("app", "worker")}
    (context / "bake.json").write_text(
        json.dumps({"group": {"default": {"targets": [*targets]}}, "target": targets})
    )
    metadata_file = tmp_path / "build.json"
    baked = server.cli(
        *("bake", "--save", "--retention", "36h", f"--metadata-file={metadata_file}"),
        *("--save-tag", "nightly", "-f", "bake.json"),
        cwd=context,
    )
    assert "It is saved for 36h." in baked.stderr
    saved = server.saved(metadata_file)
    assert lifetime(listed(server)[saved.id]) == timedelta(hours=36)
    tags = [f"{name}-{target}" for name in (saved.id, "nightly") for target in targets]
    until = {server.manifest(tag).headers["Sunset"] for tag in tags}
    assert len(until) == 1
    server.cli("builds", "keep", saved.id, "--for", "7d")
    kept = {server.manifest(tag).headers["Sunset"] for tag in tags}
    assert len(kept) == 1
    assert kept != until
    server.cli("builds", "rm", "--yes", saved.id)
    asked = [("GET", f"/v2/{server.project_id}/manifests/{tag}") for tag in tags]
    assert statuses(server, asked) == {404}


@pytest.mark.pairs(EMBEDDED, REPLICATED)
def test_gc_takes_what_its_dry_run_names_and_nothing_else(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    server = start_server(settings={"REAPER_INTERVAL": "1h", "GC_GRACE": "2s"})

    def gc(*flags: str) -> "subprocess.CompletedProcess[str]":
        data_dir = f"--data-dir={server.data_folder}"
        # With the server's own settings.
        return server.cli("admin", "gc", data_dir, *flags, env=server.env)

    assert "take nothing away" in gc("--dry-run").stderr
    empty = stored(server)
    context = busybox_context(tmp_path / "context", "collected by hand")
    kept = server.save(context)
    with_one = stored(server)
    random_file(context / "random", MIB)
    (context / "Dockerfile").open("a").write("COPY random /\n")
    removed = server.save(context)
    server.cli("builds", "rm", "--yes", removed.id)
    # The leases of its push.
    time.sleep(3)

    def planned() -> list[dict[str, Any]]:
        rows = json.loads(gc("--dry-run", "--output", "json").stdout)
        # What follows from what is over is due now, whenever now is.
        return [{name: row[name] for name in row if name != "dueAt"} for row in rows]

    rows = planned()
    kinds = {row["kind"] for row in rows}
    assert {"build", "tag", "manifest", "link", "blob"} == kinds
    assert removed.id in {row["id"] for row in rows}
    assert kept.id not in json.dumps(rows)
    with_both = stored(server)
    assert with_both > with_one + MIB
    assert planned() == rows
    assert sum(row["sizeBytes"] for row in rows) == with_both - with_one
    assert "come free" in gc("--dry-run").stderr

    assert "BLOBS REMOVED" in gc().stdout
    assert stored(server) == with_one > empty
    assert server.manifest(kept.id).status == 200
    assert planned() == []
    assert server.cli("builds", "receipt", removed.id).returncode == 0


@pytest.mark.embedded_only
def test_gc_of_what_is_no_data_folder_makes_none(tmp_path: Path, server: LayoverServer) -> None:
    for folder in (tmp_path / "missing", tmp_path):
        refused = server.cli("admin", "gc", "--data-dir", str(folder), check=False)
        assert refused.returncode == 2
        assert "is no server's data folder" in refused.stderr
    assert list(tmp_path.iterdir()) == []
