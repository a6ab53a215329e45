"""What a manifest's bytes say, held against what is recorded of it."""

import json
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    and_,
    delete,
    select,
    tuple_,
    update,
)

from layover.adapters.sql.database import insert_or_ignore_all
from layover.adapters.sql.registry_rows import TO_BLOB, TO_MANIFEST
from layover.adapters.sql.schema import (
    manifest_references,
    manifests,
    repositories,
)
from layover.adapters.sql.verification_rows import (
    NOTHING,
    builds_with_manifest,
    look_again,
    take_time,
)
from layover.oci.digest import Digest, InvalidDigest
from layover.oci.manifests import InvalidManifest, Manifest, parse_manifest
from layover.retention.findings import Finding, FindingKind

# Manifests whose references are held at once; of their bodies, one is.
_MANIFESTS = 200


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is said of a manifest beside its bytes."""

    media_type: str
    artifact_type: str | None
    subject: str | None
    annotations: str
    references: frozenset[tuple[str, str]]
    """Digests, each with its kind."""


@dataclass(frozen=True, slots=True)
class Problem:
    finding: Finding
    manifest: tuple[int, str] | None
    """The repository and the digest, where it can be mended."""


@dataclass(frozen=True, slots=True)
class Page:
    problems: list[Problem]
    last: tuple[int, str] | None
    """Where to go on; None at the end."""


_PLACE = (manifests.c.repository_id, manifests.c.digest)
_FACTS = (
    manifests.c.media_type,
    manifests.c.artifact_type,
    manifests.c.subject,
    manifests.c.annotations,
)


def check_page(connection: Connection, after: tuple[int, str], now: datetime) -> Page:
    """Check the next manifests behind `after`, by repository and digest."""
    take_time(connection)
    query: Select[Any] = (
        select(*_PLACE, *_FACTS, repositories.c.project_id, repositories.c.name)
        .join(repositories, repositories.c.id == manifests.c.repository_id)
        .where(tuple_(*_PLACE) > after)
        .order_by(*_PLACE)
        .limit(_MANIFESTS)
    )
    rows = {(row.repository_id, row.digest): row for row in connection.execute(query)}
    if not rows:
        return Page([], None)
    verdicts: dict[tuple[int, str], _Verdict] = {}
    # By the keys themselves: SQLite reads a range of pairs from its beginning to the table's end.
    for repository_id, of_repository in groupby(rows, key=itemgetter(0)):
        digests = [digest for _, digest in of_repository]
        references = _references(connection, repository_id, digests)
        bodies: Select[Any] = select(manifests.c.digest, manifests.c.body).where(
            manifests.c.repository_id == repository_id, manifests.c.digest.in_(digests)
        )
        # One at a time: each is as large as a manifest may be.
        for stored in connection.execution_options(yield_per=1).execute(bodies):
            place = (repository_id, stored.digest)
            kept = frozenset(references.get(stored.digest, ()))
            verdict = _verdict(rows[place], stored.body, kept)
            if verdict is not None:
                verdicts[place] = verdict
    problems = []
    for place, verdict in verdicts.items():
        finding = Finding(
            verdict.kind,
            place[1],
            verdict.problem,
            verdict.repair,
            rows[place].project_id,
            rows[place].name,
            builds_with_manifest(connection, *place, now),
        )
        problems.append(Problem(finding, place if verdict.told else None))
    return Page(problems, list(rows)[-1])


def _references(
    connection: Connection, repository_id: int, digests: list[str]
) -> dict[str, set[tuple[str, str]]]:
    """What is recorded of what these manifests refer to."""
    query = select(
        manifest_references.c.manifest_digest,
        manifest_references.c.digest,
        manifest_references.c.kind,
    ).where(
        manifest_references.c.repository_id == repository_id,
        manifest_references.c.manifest_digest.in_(digests),
    )
    found: dict[str, set[tuple[str, str]]] = {}
    for row in connection.execute(query):
        found.setdefault(row.manifest_digest, set()).add((row.digest, row.kind))
    return found


@dataclass(frozen=True, slots=True)
class _Verdict:
    kind: FindingKind
    problem: str
    repair: str
    told: _Facts | None = None
    """What is to be recorded, where that is known."""


def _verdict(row: Any, body: bytes, references: frozenset[tuple[str, str]]) -> _Verdict | None:
    """What is wrong with a manifest."""
    actual = _digest_of(row.digest, body)
    if actual != row.digest:
        return _Verdict(
            FindingKind.MANIFEST_DAMAGED,
            f"its bytes have digest {actual}",
            NOTHING + "push the image again",
        )
    try:
        told = _facts_of(parse_manifest(body, row.media_type))
    except InvalidManifest as error:
        return _Verdict(FindingKind.MANIFEST_MISREAD, str(error), NOTHING + "push the image anew")
    kept = _Facts(row.media_type, row.artifact_type, row.subject, row.annotations, references)
    wrong = [name for name in _Facts.__slots__ if not _is_same(name, told, kept)]
    if not wrong:
        return None
    return _Verdict(
        FindingKind.MANIFEST_MISREAD,
        f"what is recorded of it is not what it says: {', '.join(wrong)}",
        "record what it says",
        told,
    )


def _is_same(name: str, told: _Facts, kept: _Facts) -> bool:
    if name == "annotations":
        try:
            same: bool = json.loads(told.annotations) == json.loads(kept.annotations)
        except ValueError:
            return False
        return same
    return bool(getattr(told, name) == getattr(kept, name))


def _digest_of(digest: str, body: bytes) -> str:
    try:
        algorithm = Digest.parse(digest).algorithm
    except InvalidDigest:
        algorithm = "sha256"
    return str(Digest.of(body, algorithm))


def _facts_of(manifest: Manifest) -> _Facts:
    kinds = {str(blob.digest): TO_BLOB for blob in manifest.needed_blobs}
    kinds |= {str(child.digest): TO_MANIFEST for child in manifest.manifests}
    return _Facts(
        manifest.media_type,
        manifest.artifact_type,
        str(manifest.subject.digest) if manifest.subject else None,
        json.dumps(dict(manifest.annotations)),
        frozenset(kinds.items()),
    )


def mend_manifest(connection: Connection, problem: Problem, now: datetime) -> bool:
    """Record what a manifest's bytes say, if that is not recorded still."""
    assert problem.manifest is not None
    repository_id, digest = problem.manifest
    this = and_(manifests.c.repository_id == repository_id, manifests.c.digest == digest)
    query: Select[Any] = select(*_PLACE, *_FACTS, manifests.c.body).where(this)
    row = connection.execute(query).first()
    if row is None:
        return False
    of_this = and_(
        manifest_references.c.repository_id == repository_id,
        manifest_references.c.manifest_digest == digest,
    )
    kept = frozenset(
        (found.digest, found.kind)
        for found in connection.execute(
            select(manifest_references.c.digest, manifest_references.c.kind).where(of_this)
        )
    )
    verdict = _verdict(row, row.body, kept)
    if verdict is None or verdict.told is None:
        return False
    told = verdict.told
    connection.execute(
        update(manifests)
        .where(this)
        .values(
            media_type=told.media_type,
            artifact_type=told.artifact_type,
            subject=told.subject,
            annotations=told.annotations,
        )
    )
    for other, kind in kept - told.references:
        connection.execute(
            delete(manifest_references).where(of_this, manifest_references.c.digest == other)
        )
        look_again(connection, repository_id, other, kind, now)
    insert_or_ignore_all(
        connection,
        manifest_references,
        [
            {
                "repository_id": repository_id,
                "manifest_digest": digest,
                "digest": other,
                "kind": kind,
            }
            for other, kind in told.references - kept
        ],
    )
    return True
