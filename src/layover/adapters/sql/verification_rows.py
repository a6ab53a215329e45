"""Which rows contradict each other, and what mends them where nothing is lost by it.

Every transaction of the server leaves rows that agree, so rows that disagree in one transaction
of ours are wrong, however much goes on meanwhile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)

from layover.adapters.sql.database import insert_or_ignore
from layover.adapters.sql.registry_rows import TO_BLOB, TO_MANIFEST
from layover.adapters.sql.retention_rows import is_live
from layover.adapters.sql.schema import (
    blobs,
    builds,
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    retained_manifests,
    retentions,
    staged_tags,
    tags,
)
from layover.builds.models import LIVE
from layover.retention.findings import Finding, FindingKind

NOTHING = "nothing: "
_PUSH_AGAIN = NOTHING + "push the image again"

Mend = Callable[[Connection, Row[Any], datetime], None]


@dataclass(frozen=True, slots=True)
class Check:
    """Rows that are wrong: each has `reference`, and what places it (see `_placed`)."""

    kind: FindingKind
    query: Callable[[datetime], Select[Any]]
    problem: str
    """With the row's columns in braces."""
    repair: str
    mend: Mend | None = None


def _placed(*columns: ColumnElement[Any], repository_id: ColumnElement[int]) -> Select[Any]:
    """Rows of a repository, with what tells where they are."""
    return (
        select(
            *columns,
            repositories.c.id.label("repository_id"),
            repositories.c.name.label("repository"),
            repositories.c.project_id.label("project_id"),
        )
        .select_from(repositories)
        .where(repositories.c.id == repository_id)
    )


def _is_there(repository_id: ColumnElement[int], digest: ColumnElement[str]) -> Any:
    there = manifests.alias("there")
    return exists(
        select(literal(1))
        .select_from(there)
        .where(there.c.repository_id == repository_id, there.c.digest == digest)
        .correlate_except(there)
    )


def _is_retained(
    retention_id: ColumnElement[int], repository_id: ColumnElement[int], digest: ColumnElement[str]
) -> Any:
    held = retained_manifests.alias("held")
    return exists(
        select(literal(1))
        .select_from(held)
        .where(
            held.c.retention_id == retention_id,
            held.c.repository_id == repository_id,
            held.c.digest == digest,
        )
        .correlate_except(held)
    )


def _is_shown(repository_id: ColumnElement[int], digest: ColumnElement[str], now: datetime) -> Any:
    held, live = retained_manifests.alias("held"), retentions.alias("live")
    return exists(
        select(literal(1))
        .select_from(held.join(live, live.c.id == held.c.retention_id))
        .where(
            held.c.repository_id == repository_id,
            held.c.digest == digest,
            live.c.ended_at.is_(None),
            or_(live.c.expires_at.is_(None), live.c.expires_at > now),
        )
        .correlate_except(held, live)
    )


def _stray_references(now: datetime) -> Select[Any]:
    refers = manifest_references
    return _placed(
        refers.c.manifest_digest.label("reference"),
        refers.c.digest,
        refers.c.kind,
        repository_id=refers.c.repository_id,
    ).where(~_is_there(refers.c.repository_id, refers.c.manifest_digest))


def _needed_blobs(now: datetime) -> Select[Any]:
    refers = manifest_references
    return _placed(
        refers.c.digest.label("reference"),
        refers.c.manifest_digest,
        repository_id=refers.c.repository_id,
    ).where(
        refers.c.kind == TO_BLOB,
        _is_there(refers.c.repository_id, refers.c.manifest_digest),
    )


def _is_linked() -> Any:
    return exists().where(
        repository_blobs.c.repository_id == manifest_references.c.repository_id,
        repository_blobs.c.digest == manifest_references.c.digest,
    )


def _has_row() -> Any:
    return exists().where(blobs.c.digest == manifest_references.c.digest)


def _lost_blobs(now: datetime) -> Select[Any]:
    return _needed_blobs(now).where(~_has_row())


def _missing_links(now: datetime) -> Select[Any]:
    return _needed_blobs(now).where(_has_row(), ~_is_linked())


def _rowless_links(now: datetime) -> Select[Any]:
    named = exists().where(
        manifest_references.c.repository_id == repository_blobs.c.repository_id,
        manifest_references.c.digest == repository_blobs.c.digest,
        manifest_references.c.kind == TO_BLOB,
    )
    return _placed(
        repository_blobs.c.digest.label("reference"),
        repository_id=repository_blobs.c.repository_id,
    ).where(~exists().where(blobs.c.digest == repository_blobs.c.digest), ~named)


def _forgotten_links(now: datetime) -> Select[Any]:
    named = exists().where(
        manifest_references.c.repository_id == repository_blobs.c.repository_id,
        manifest_references.c.digest == repository_blobs.c.digest,
        manifest_references.c.kind == TO_BLOB,
    )
    return _placed(
        repository_blobs.c.digest.label("reference"),
        repository_id=repository_blobs.c.repository_id,
    ).where(repository_blobs.c.check_at.is_(None), ~named)


def _forgotten_manifests(now: datetime) -> Select[Any]:
    retained = exists().where(
        retained_manifests.c.repository_id == manifests.c.repository_id,
        retained_manifests.c.digest == manifests.c.digest,
    )
    # An index that nothing retains keeps what it names, and its own end marks that.
    parent, held = manifests.alias("parent"), retained_manifests.alias("held")
    keeping = retentions.alias("keeping")
    kept = (
        select(literal(1))
        .select_from(manifest_references)
        .where(
            manifest_references.c.repository_id == manifests.c.repository_id,
            manifest_references.c.digest == manifests.c.digest,
            manifest_references.c.kind == TO_MANIFEST,
            exists(
                select(literal(1))
                .select_from(parent)
                .where(
                    parent.c.repository_id == manifest_references.c.repository_id,
                    parent.c.digest == manifest_references.c.manifest_digest,
                )
            ),
            ~exists(
                select(literal(1))
                .select_from(held.join(keeping, keeping.c.id == held.c.retention_id))
                .where(
                    held.c.repository_id == manifest_references.c.repository_id,
                    held.c.digest == manifest_references.c.manifest_digest,
                    keeping.c.ended_at.is_(None),
                )
            ),
        )
        .correlate(manifests)
        .exists()
    )
    return _placed(
        manifests.c.digest.label("reference"), repository_id=manifests.c.repository_id
    ).where(manifests.c.check_at.is_(None), ~retained, ~kept)


def _live_tags(now: datetime) -> Select[Any]:
    return _placed(
        tags.c.name.label("reference"),
        tags.c.digest,
        tags.c.retention_id,
        repository_id=tags.c.repository_id,
    ).where(tags.c.retention_id == retentions.c.id, is_live(now))


def _lost_tags(now: datetime) -> Select[Any]:
    return _live_tags(now).where(~_is_there(tags.c.repository_id, tags.c.digest))


def _unretained_tags(now: datetime) -> Select[Any]:
    return _live_tags(now).where(
        _is_there(tags.c.repository_id, tags.c.digest),
        ~_is_retained(tags.c.retention_id, tags.c.repository_id, tags.c.digest),
    )


def _is_running(build_id: ColumnElement[str]) -> Any:
    return exists().where(
        builds.c.id == build_id, builds.c.status.in_([status.value for status in LIVE])
    )


def _staged_tags() -> Select[Any]:
    return _placed(
        staged_tags.c.name.label("reference"),
        staged_tags.c.digest,
        staged_tags.c.build_id,
        repository_id=staged_tags.c.repository_id,
    )


def _stray_tags(now: datetime) -> Select[Any]:
    return _staged_tags().where(~_is_running(staged_tags.c.build_id))


def _unretained_staged_tags(now: datetime) -> Select[Any]:
    return _staged_tags().where(
        _is_running(staged_tags.c.build_id),
        retentions.c.build_id == staged_tags.c.build_id,
        ~_is_retained(retentions.c.id, staged_tags.c.repository_id, staged_tags.c.digest),
    )


def _live_pushes(now: datetime) -> Select[Any]:
    return _placed(
        retentions.c.digest.label("reference"),
        retentions.c.digest.label("digest"),
        retentions.c.id.label("retention_id"),
        repository_id=retentions.c.repository_id,
    ).where(is_live(now))


def _lost_pushes(now: datetime) -> Select[Any]:
    return _live_pushes(now).where(~_is_there(retentions.c.repository_id, retentions.c.digest))


def _unretained_pushes(now: datetime) -> Select[Any]:
    return _live_pushes(now).where(
        _is_there(retentions.c.repository_id, retentions.c.digest),
        ~_is_retained(retentions.c.id, retentions.c.repository_id, retentions.c.digest),
    )


def _lost_manifests(now: datetime) -> Select[Any]:
    return _placed(
        retained_manifests.c.digest.label("reference"),
        retained_manifests.c.retention_id,
        retentions.c.build_id,
        repository_id=retained_manifests.c.repository_id,
    ).where(
        retentions.c.id == retained_manifests.c.retention_id,
        is_live(now),
        ~_is_there(retained_manifests.c.repository_id, retained_manifests.c.digest),
    )


def _live_retained(digest: ColumnElement[str], through: ColumnElement[str]) -> Select[Any]:
    return _placed(
        digest.label("reference"),
        digest.label("digest"),
        through.label("through"),
        retained_manifests.c.retention_id,
        repository_id=retained_manifests.c.repository_id,
    )


def _unretained_children(now: datetime) -> Select[Any]:
    refers, held = manifest_references, retained_manifests
    return _live_retained(refers.c.digest, refers.c.manifest_digest).where(
        retentions.c.id == held.c.retention_id,
        is_live(now),
        refers.c.repository_id == held.c.repository_id,
        refers.c.manifest_digest == held.c.digest,
        refers.c.kind == TO_MANIFEST,
        # One that is over is not brought back by an index that names it.
        _is_shown(refers.c.repository_id, refers.c.digest, now),
        _is_there(refers.c.repository_id, refers.c.digest),
        ~_is_retained(held.c.retention_id, refers.c.repository_id, refers.c.digest),
    )


def _unretained_referrers(now: datetime) -> Select[Any]:
    held = retained_manifests
    return _live_retained(manifests.c.digest, manifests.c.subject).where(
        retentions.c.id == held.c.retention_id,
        is_live(now),
        manifests.c.repository_id == held.c.repository_id,
        manifests.c.subject == held.c.digest,
        _is_shown(manifests.c.repository_id, manifests.c.digest, now),
        ~_is_retained(held.c.retention_id, manifests.c.repository_id, manifests.c.digest),
    )


def _unfounded_retentions(now: datetime) -> Select[Any]:
    is_push = and_(retentions.c.repository_id.is_not(None), retentions.c.digest.is_not(None))
    there = exists().where(builds.c.id == retentions.c.build_id)
    return select(
        retentions.c.id.label("reference"), retentions.c.build_id, retentions.c.project_id
    ).where(
        retentions.c.ended_at.is_(None),
        or_(
            and_(retentions.c.build_id.is_(None), ~is_push),
            and_(retentions.c.build_id.is_not(None), ~there),
        ),
    )


def _endless_retentions(now: datetime) -> Select[Any]:
    there = exists().where(builds.c.id == retentions.c.build_id)
    return select(
        func.coalesce(retentions.c.build_id, retentions.c.digest).label("reference"),
        retentions.c.id,
        retentions.c.project_id,
        retentions.c.build_id,
    ).where(
        retentions.c.expires_at.is_(None),
        retentions.c.ended_at.is_(None),
        ~_is_running(retentions.c.build_id),
        # One without its build is another finding.
        or_(there, retentions.c.digest.is_not(None)),
    )


def _unretained_builds(now: datetime) -> Select[Any]:
    return select(
        builds.c.id.label("reference"), builds.c.id.label("build_id"), builds.c.project_id
    ).where(~exists().where(retentions.c.build_id == builds.c.id))


# --- how they are mended ------------------------------------------------------------------------


def _drop_references(connection: Connection, row: Row[Any], now: datetime) -> None:
    connection.execute(
        delete(manifest_references).where(
            manifest_references.c.repository_id == row.repository_id,
            manifest_references.c.manifest_digest == row.reference,
            manifest_references.c.digest == row.digest,
        )
    )
    look_again(connection, row.repository_id, row.digest, row.kind, now)


def look_again(
    connection: Connection, repository_id: int, digest: str, kind: str, now: datetime
) -> None:
    """Let the collector look whether anything needs it, which keeps what is leased."""
    table = repository_blobs if kind == TO_BLOB else manifests
    connection.execute(
        update(table)
        .where(table.c.repository_id == repository_id, table.c.digest == digest)
        .values(check_at=now)
    )


def _drop_staged_tag(connection: Connection, row: Row[Any], now: datetime) -> None:
    connection.execute(
        delete(staged_tags).where(
            staged_tags.c.build_id == row.build_id,
            staged_tags.c.repository_id == row.repository_id,
            staged_tags.c.name == row.reference,
        )
    )


def _check_link(connection: Connection, row: Row[Any], now: datetime) -> None:
    look_again(connection, row.repository_id, row.reference, TO_BLOB, now)


def _check_manifest(connection: Connection, row: Row[Any], now: datetime) -> None:
    look_again(connection, row.repository_id, row.reference, TO_MANIFEST, now)


def _retain(connection: Connection, row: Row[Any], now: datetime) -> None:
    insert_or_ignore(
        connection,
        retained_manifests,
        retention_id=row.retention_id,
        repository_id=row.repository_id,
        digest=row.digest,
    )


# What has to be there only where images without all of their blobs are refused.
OF_WHOLE_IMAGES = (_missing_links, _lost_blobs)

# In this order: what is mended first keeps the next one from being one.
CHECKS = (
    Check(
        FindingKind.REFERENCE_STRAY,
        _stray_references,
        "a manifest that is not there still keeps {digest}",
        "forget the reference",
        _drop_references,
    ),
    Check(
        FindingKind.LINK_MISSING,
        _missing_links,
        "manifest {manifest_digest} needs this blob, and the repository does not show it",
        # It may be another project's by now, and its bytes nobody's to give.
        _PUSH_AGAIN,
    ),
    Check(
        FindingKind.BLOB_LOST,
        _lost_blobs,
        "manifest {manifest_digest} needs this blob, and it is not stored at all",
        _PUSH_AGAIN,
    ),
    Check(
        FindingKind.BLOB_LOST,
        _rowless_links,
        "the repository shows a blob that is not stored",
        NOTHING + "nothing needs it, and a push of it is as good as ever",
    ),
    Check(
        FindingKind.TAG_LOST,
        _lost_tags,
        "the tag names {digest}, which is not there",
        _PUSH_AGAIN,
    ),
    Check(
        FindingKind.TAG_LOST,
        _unretained_staged_tags,
        "a running build named {digest} so, which is not kept for it",
        _PUSH_AGAIN,
    ),
    Check(
        FindingKind.TAG_STRAY,
        _stray_tags,
        "the tag waits for the end of build {build_id}, which has ended",
        "forget it",
        _drop_staged_tag,
    ),
    Check(
        FindingKind.MANIFEST_LOST,
        _lost_pushes,
        "the manifest was pushed, has not expired, and is not there",
        _PUSH_AGAIN,
    ),
    Check(
        FindingKind.MANIFEST_LOST,
        _lost_manifests,
        "the manifest has not expired, and is not there",
        _PUSH_AGAIN,
    ),
    Check(
        FindingKind.RETAINED_INCOMPLETELY,
        _unretained_tags,
        "the tag names {digest}, which is not kept as long as the tag",
        "keep it as long",
        _retain,
    ),
    Check(
        FindingKind.RETAINED_INCOMPLETELY,
        _unretained_pushes,
        "the manifest was pushed, and is not kept as long as it should be",
        "keep it as long",
        _retain,
    ),
    Check(
        FindingKind.RETAINED_INCOMPLETELY,
        _unretained_children,
        "index {through} names the manifest, which is not kept as long as the index",
        "keep it as long",
        _retain,
    ),
    Check(
        FindingKind.RETAINED_INCOMPLETELY,
        _unretained_referrers,
        "the manifest refers to {through}, and is not kept as long as that is",
        "keep it as long",
        _retain,
    ),
    Check(
        FindingKind.RETENTION_UNFOUNDED,
        _unfounded_retentions,
        "a retention is neither a push's nor that of a build that is there",
        NOTHING + "what it keeps is kept until it expires",
    ),
    Check(
        FindingKind.RETENTION_ENDLESS,
        _endless_retentions,
        "what no running build saves would be kept for ever",
        NOTHING + "delete the build or the image",
    ),
    Check(
        FindingKind.BUILD_UNRETAINED,
        _unretained_builds,
        "nothing says until when the build is kept, and nobody sees it",
        NOTHING + "build it again",
    ),
    Check(
        FindingKind.MANIFEST_FORGOTTEN,
        _forgotten_manifests,
        "nothing keeps the manifest, and nothing would ever remove it",
        "let the collector look at it",
        _check_manifest,
    ),
    Check(
        FindingKind.LINK_FORGOTTEN,
        _forgotten_links,
        "no manifest needs the blob, and nothing would ever remove it",
        "let the collector look at it",
        _check_link,
    ),
)


def told(connection: Connection, check: Check, row: Row[Any], now: datetime) -> Finding:
    """The finding that a row is."""
    columns = row._asdict()
    return Finding(
        check.kind,
        str(row.reference),
        check.problem.format(**columns),
        check.repair,
        columns.get("project_id", ""),
        columns.get("repository", ""),
        _affected(connection, columns, now),
    )


def _affected(connection: Connection, columns: dict[str, Any], now: datetime) -> tuple[str, ...]:
    """The builds that a wrong row is about."""
    build_id = columns.get("build_id")
    if "retention_id" in columns:
        query = select(retentions.c.build_id).where(retentions.c.id == columns["retention_id"])
        build_id = connection.execute(query).scalar()
    elif "manifest_digest" in columns:
        place = columns["repository_id"], columns["manifest_digest"]
        return builds_with_manifest(connection, *place, now)
    return (build_id,) if build_id else ()


def _builds_where(connection: Connection, *conditions: ColumnElement[bool]) -> tuple[str, ...]:
    query = (
        select(retentions.c.build_id)
        .distinct()
        .join(retained_manifests, retained_manifests.c.retention_id == retentions.c.id)
        .where(retentions.c.build_id.is_not(None), *conditions)
        .order_by(retentions.c.build_id)
    )
    return tuple(connection.execute(query).scalars())


def builds_with_manifest(
    connection: Connection, repository_id: int, digest: str, now: datetime
) -> tuple[str, ...]:
    return _builds_where(
        connection,
        is_live(now),
        retained_manifests.c.repository_id == repository_id,
        retained_manifests.c.digest == digest,
    )


def builds_with_blob(
    connection: Connection, repository_id: int, digest: str, now: datetime
) -> tuple[str, ...]:
    users = select(manifest_references.c.manifest_digest).where(
        manifest_references.c.repository_id == repository_id,
        manifest_references.c.digest == digest,
        manifest_references.c.kind == TO_BLOB,
    )
    return _builds_where(
        connection,
        is_live(now),
        retained_manifests.c.repository_id == repository_id,
        retained_manifests.c.digest.in_(users),
    )


def take_time(connection: Connection) -> None:
    """Let this transaction's queries read whole tables."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
