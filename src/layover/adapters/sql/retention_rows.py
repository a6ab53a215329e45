"""What keeps content alive, on a transaction's connection (docs/decisions/0006)."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Exists,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from layover.adapters.sql.database import insert_or_ignore_all, upsert_all
from layover.adapters.sql.registry_rows import TO_BLOB, TO_MANIFEST, parts
from layover.adapters.sql.schema import (
    Timestamp,
    blobs,
    builds,
    manifest_references,
    manifests,
    projects,
    repository_blobs,
    retained_manifests,
    retentions,
    tags,
    tombstones,
)
from layover.builds.models import LIVE
from layover.oci.digest import Digest
from layover.oci.manifests import InvalidManifest, Manifest
from layover.oci.names import RepositoryName, Tag
from layover.registry.models import BuildOver, ManifestBlobUnknown, TagProtected, named_build

# For statements that are made once.
NOW: BindParameter[datetime] = bindparam("now", type_=Timestamp)

# What one push may make the database write of it, however little it names itself.
MAX_REACHED = 20_000

EXPIRED, DELETED, SUPERSEDED = "expired", "deleted", "superseded"

# What is gone: a project's ID, a repository's name or "", a reference, why and when.
Grave = tuple[str, str, str, str, datetime]


def is_live(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """Whether a retention's time is not over; that of a running build has no end yet."""
    return and_(
        retentions.c.ended_at.is_(None),
        or_(retentions.c.expires_at.is_(None), retentions.c.expires_at > now),
    )


def is_visible(
    repository_id: ColumnElement[int],
    digest: ColumnElement[str],
    now: datetime | BindParameter[datetime],
) -> Exists:
    """Whether a live retention retains the manifest."""
    return exists().where(
        retained_manifests.c.repository_id == repository_id,
        retained_manifests.c.digest == digest,
        retentions.c.id == retained_manifests.c.retention_id,
        is_live(now),
    )


def is_shown(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """Whether a link of `repository_blobs` lets its repository's readers see the blob."""
    # One inside the other: so that the database begins with what names the blob, not with all
    # that its repository retains.
    named = exists().where(
        manifest_references.c.repository_id == repository_blobs.c.repository_id,
        manifest_references.c.digest == repository_blobs.c.digest,
        manifest_references.c.kind == TO_BLOB,
        is_visible(manifest_references.c.repository_id, manifest_references.c.manifest_digest, now),
    )
    return or_(repository_blobs.c.shown_until > now, named)


def live_retention(
    build_id: str | BindParameter[str], now: datetime | BindParameter[datetime]
) -> Select[int]:
    """The build's retention while it lives; there is one at the most."""
    return select(retentions.c.id).where(retentions.c.build_id == build_id, is_live(now))


def is_retained_by(
    build_id: str | BindParameter[str],
    repository_id: ColumnElement[int],
    digest: ColumnElement[str],
    now: datetime | BindParameter[datetime],
) -> Exists:
    """Whether the build's live retention retains the manifest."""
    return exists().where(
        retained_manifests.c.retention_id == live_retention(build_id, now).scalar_subquery(),
        retained_manifests.c.repository_id == repository_id,
        retained_manifests.c.digest == digest,
    )


def is_needed_by(
    build_id: str | BindParameter[str], now: datetime | BindParameter[datetime]
) -> Exists:
    """Whether something that the build retains needs a link of `repository_blobs`."""
    # One inside the other, as in `is_shown`, and the other way round: a build retains few
    # manifests, and a base image's layer is named by those of all builds.
    names_it = exists().where(
        manifest_references.c.repository_id == retained_manifests.c.repository_id,
        manifest_references.c.manifest_digest == retained_manifests.c.digest,
        manifest_references.c.digest == repository_blobs.c.digest,
        manifest_references.c.kind == TO_BLOB,
    )
    return exists().where(
        retained_manifests.c.retention_id == live_retention(build_id, now).scalar_subquery(),
        retained_manifests.c.repository_id == repository_blobs.c.repository_id,
        # Said, because SQLAlchemy would look for the outermost table in the innermost query anew.
        names_it.correlate(retained_manifests, repository_blobs),
    )


def retention_of_build(connection: Connection, build_id: str, now: datetime) -> int | None:
    """The build's retention while it lives."""
    return connection.execute(live_retention(build_id, now)).scalar()


def retain_push(
    connection: Connection,
    project_id: str,
    repository_id: int,
    digest: Digest,
    now: datetime,
) -> int:
    """The retention of a manifest's push: the one that lives, from now on, or a new one.

    One that is over stays what it is, with its tags: what it retained is not to come back.
    """
    retention = connection.execute(
        select(projects.c.retention_seconds).where(projects.c.id == project_id)
    ).scalar_one()
    expires_at = expiry(now, timedelta(seconds=retention))
    found = connection.execute(
        select(retentions.c.id, retentions.c.expires_at)
        .where(
            retentions.c.repository_id == repository_id,
            retentions.c.digest == str(digest),
            is_live(now),
        )
        .limit(1)
    ).first()
    if found is None:
        new: int = connection.execute(
            insert(retentions)
            .values(
                project_id=project_id,
                repository_id=repository_id,
                digest=str(digest),
                created_at=now,
                expires_at=expires_at,
            )
            .returning(retentions.c.id)
        ).scalar_one()
        return new
    if found.expires_at < expires_at:
        connection.execute(
            update(retentions).where(retentions.c.id == found.id).values(expires_at=expires_at)
        )
    retention_id: int = found.id
    return retention_id


def expiry(start: datetime, retention: timedelta) -> datetime:
    """When what is kept from `start` on is over: on a whole second, as a Sunset header tells."""
    over = start + retention
    return over if over.microsecond == 0 else over.replace(microsecond=0) + timedelta(seconds=1)


def retaining(
    connection: Connection, repository_id: int, digests: Collection[str], now: datetime
) -> set[int]:
    """The live retentions that retain one of the manifests."""
    return {
        retention_id
        for part in parts(digests)
        for retention_id in connection.execute(
            select(retained_manifests.c.retention_id)
            .join(retentions, retentions.c.id == retained_manifests.c.retention_id)
            .where(
                retained_manifests.c.repository_id == repository_id,
                retained_manifests.c.digest.in_(part),
                is_live(now),
            )
            .distinct()
        ).scalars()
    }


def retain(
    connection: Connection,
    repository_id: int,
    digest: Digest,
    retention_ids: Iterable[int],
    now: datetime,
) -> None:
    """Let the retentions retain the manifest and all that it reaches."""
    ids = set(retention_ids)
    reached = _reached(connection, repository_id, str(digest), now)
    _retain(connection, repository_id, reached.all, ids)
    # What is there and is not to come back waits for nobody but the collector.
    for part in parts(reached.over):
        connection.execute(
            update(manifests)
            .where(
                manifests.c.repository_id == repository_id,
                manifests.c.digest.in_(part),
                manifests.c.check_at.is_(None),
            )
            .values(check_at=now)
        )
    # What comes back belongs to everything that lives and needs it.
    if (
        retaining(connection, repository_id, above(connection, repository_id, reached.back), now)
        - ids
    ):
        for back in sorted(reached.back):
            needed_by = above(connection, repository_id, {back})
            below = _reached(connection, repository_id, back, now)
            _retain(
                connection,
                repository_id,
                below.all,
                retaining(connection, repository_id, needed_by, now) - ids,
            )


def _retain(
    connection: Connection, repository_id: int, digests: set[str], retention_ids: set[int]
) -> None:
    for retention_id in sorted(retention_ids):
        for part in parts(digests):
            insert_or_ignore_all(
                connection,
                retained_manifests,
                [
                    {
                        "retention_id": retention_id,
                        "repository_id": repository_id,
                        "digest": digest,
                    }
                    for digest in part
                ],
            )
    for part in parts(digests):
        connection.execute(
            update(manifests)
            .where(
                manifests.c.repository_id == repository_id,
                manifests.c.digest.in_(part),
                manifests.c.check_at.is_not(None),
            )
            .values(check_at=None)
        )


@dataclass(frozen=True, slots=True)
class _Reached:
    """What belongs to a manifest, itself included."""

    all: set[str]
    back: set[str]
    """What of it was invisible, and is there for a pusher who was told so."""
    over: set[str]
    """What it names and what does not come back by that."""


def _reached(connection: Connection, repository_id: int, root: str, now: datetime) -> _Reached:
    """The manifest, the manifests below it and the referrers of each, as far as they are there.

    What is neither visible nor leased is over, and does not come back by being named; but a lease
    on an index is one on all that it needs. Raises InvalidManifest when that is too much.
    """
    reached, over = set[str](), set[str]()
    new = {root}
    # Also one that is pushed itself, because of what was told of it.
    leased = usable_manifests(connection, repository_id, new, now)
    leased -= visible_manifests(connection, repository_id, new, now)
    while new:
        reached |= new
        if len(reached) > MAX_REACHED:
            raise InvalidManifest(f"more than {MAX_REACHED} manifests belong to {root}")
        below_leased = _children(connection, repository_id, new & leased) - reached
        children = _children(connection, repository_id, new - leased) - reached - below_leased
        visible = visible_manifests(connection, repository_id, children | below_leased, now)
        usable = usable_manifests(connection, repository_id, children - visible, now)
        over |= children - visible - usable
        leased |= (below_leased | usable) - visible
        referrers = _referrers(connection, repository_id, new) - reached
        new = visible | usable | below_leased
        new |= visible_manifests(connection, repository_id, referrers, now)
    return _Reached(reached, leased - {root}, over - reached)


def above(connection: Connection, repository_id: int, digests: set[str]) -> set[str]:
    """The indexes that name these manifests, and what these are referrers of."""
    found = set[str]()
    for part in parts(digests):
        found |= set(
            connection.execute(
                select(manifest_references.c.manifest_digest).where(
                    manifest_references.c.repository_id == repository_id,
                    manifest_references.c.digest.in_(part),
                    manifest_references.c.kind == TO_MANIFEST,
                )
            ).scalars()
        )
        found |= set(
            connection.execute(
                select(manifests.c.subject).where(
                    manifests.c.repository_id == repository_id,
                    manifests.c.digest.in_(part),
                    manifests.c.subject.is_not(None),
                )
            ).scalars()
        )
    return found


def _children(connection: Connection, repository_id: int, digests: set[str]) -> set[str]:
    """The manifests of the repository that these indexes name."""
    return {
        digest
        for part in parts(digests)
        for digest in connection.execute(
            select(manifests.c.digest)
            .join(
                manifest_references,
                and_(
                    manifest_references.c.repository_id == manifests.c.repository_id,
                    manifest_references.c.digest == manifests.c.digest,
                ),
            )
            .where(
                manifests.c.repository_id == repository_id,
                manifest_references.c.manifest_digest.in_(part),
                manifest_references.c.kind == TO_MANIFEST,
            )
        ).scalars()
    }


def _referrers(connection: Connection, repository_id: int, digests: set[str]) -> set[str]:
    return {
        digest
        for part in parts(digests)
        for digest in connection.execute(
            select(manifests.c.digest).where(
                manifests.c.repository_id == repository_id, manifests.c.subject.in_(part)
            )
        ).scalars()
    }


def visible_manifests(
    connection: Connection, repository_id: int, digests: set[str], now: datetime
) -> set[str]:
    """Those of `digests` that are manifests which the repository shows."""
    return _manifests_where(
        connection,
        repository_id,
        digests,
        is_visible(manifests.c.repository_id, manifests.c.digest, now),
    )


def usable_manifests(
    connection: Connection, repository_id: int, digests: set[str], now: datetime
) -> set[str]:
    """Those of `digests` that an index may name: what is visible, and what is leased."""
    return _manifests_where(
        connection,
        repository_id,
        digests,
        or_(
            is_visible(manifests.c.repository_id, manifests.c.digest, now),
            manifests.c.leased_until > now,
        ),
    )


def _manifests_where(
    connection: Connection, repository_id: int, digests: set[str], condition: ColumnElement[bool]
) -> set[str]:
    return {
        digest
        for part in parts(digests)
        for digest in connection.execute(
            select(manifests.c.digest).where(
                manifests.c.repository_id == repository_id,
                manifests.c.digest.in_(part),
                condition,
            )
        ).scalars()
    }


def end_lonely_pushes(
    connection: Connection, repository_id: int, subjects: Collection[str]
) -> None:
    """The subjects of manifests that were pushed before them are there: those live as they do.

    One that has a tag was pushed for its own sake.
    """
    for part in parts(subjects):
        referrers = select(manifests.c.digest).where(
            manifests.c.repository_id == repository_id, manifests.c.subject.in_(part)
        )
        connection.execute(
            update(retentions)
            .where(
                retentions.c.repository_id == repository_id,
                retentions.c.digest.in_(referrers),
                retentions.c.ended_at.is_(None),
                ~exists().where(tags.c.retention_id == retentions.c.id),
            )
            .values(ended_at=func.coalesce(retentions.c.expires_at, 0), end_reason=SUPERSEDED)
        )


def check_blobs(
    connection: Connection,
    repository: RepositoryName,
    repository_id: int,
    manifest: Manifest,
    now: datetime,
    *,
    may_miss: bool,
) -> None:
    """Raise ManifestBlobUnknown unless the repository shows the manifest's blobs, or has told a
    client that may push that they are there; they are the manifest's from now on.

    With `may_miss`, those may be missing that the repository does not know. What it has and shows
    no more is not to come back by being named.
    """
    needed = {str(blob.digest): blob.digest for blob in manifest.needed_blobs}
    of_repository = repository_blobs.c.repository_id == repository_id
    # A manifest that a pusher was told of is there with all that it needs.
    named = exists().where(
        manifest_references.c.repository_id == repository_blobs.c.repository_id,
        manifest_references.c.digest == repository_blobs.c.digest,
        manifest_references.c.kind == TO_BLOB,
        manifests.c.repository_id == manifest_references.c.repository_id,
        manifests.c.digest == manifest_references.c.manifest_digest,
        manifests.c.leased_until > now,
    )
    usable = or_(repository_blobs.c.leased_until > now, is_shown(now), named)
    missing = dict(needed)
    for part in parts(needed):
        query = (
            select(repository_blobs.c.digest)
            .join(blobs, blobs.c.digest == repository_blobs.c.digest)
            .where(
                of_repository,
                repository_blobs.c.digest.in_(part),
                blobs.c.quarantined_at.is_(None),
                usable,
            )
        )
        for digest in connection.execute(query).scalars():
            del missing[digest]
    if may_miss:
        hidden = {
            digest
            for part in parts(missing)
            for digest in connection.execute(
                select(repository_blobs.c.digest).where(
                    of_repository, repository_blobs.c.digest.in_(part)
                )
            ).scalars()
        }
        missing = {digest: missing[digest] for digest in hidden}
    if missing:
        raise ManifestBlobUnknown(repository, tuple(missing.values()))
    for part in parts(needed):
        connection.execute(
            update(repository_blobs)
            .where(of_repository, repository_blobs.c.digest.in_(part))
            .values(shown_until=None, check_at=None)
        )


def check_soon(
    connection: Connection, repository_id: int, manifest_digests: Collection[str], now: datetime
) -> None:
    """Let the collector look whether anything still needs what these manifests refer to.

    To be called before they are deleted.
    """
    for part in parts(manifest_digests):
        named = select(manifest_references.c.digest).where(
            manifest_references.c.repository_id == repository_id,
            manifest_references.c.manifest_digest.in_(part),
        )
        connection.execute(
            update(repository_blobs)
            .where(
                repository_blobs.c.repository_id == repository_id,
                repository_blobs.c.digest.in_(named.where(manifest_references.c.kind == TO_BLOB)),
            )
            .values(check_at=now)
        )
        connection.execute(
            update(manifests)
            .where(
                manifests.c.repository_id == repository_id,
                manifests.c.digest.in_(named.where(manifest_references.c.kind == TO_MANIFEST)),
            )
            .values(check_at=now)
        )


def forget_retained(
    connection: Connection, repository_id: int, digests: Collection[str], now: datetime
) -> None:
    """Nothing retains the manifests any more: they are invisible, and the collector's."""
    for part in parts(digests):
        connection.execute(
            delete(retained_manifests).where(
                retained_manifests.c.repository_id == repository_id,
                retained_manifests.c.digest.in_(part),
            )
        )
    mark_manifests(connection, repository_id, digests, now)


def mark_manifests(
    connection: Connection, repository_id: int, digests: Collection[str], now: datetime
) -> None:
    """Let the collector look whether anything still retains the manifests."""
    for part in parts(digests):
        connection.execute(
            update(manifests)
            .where(manifests.c.repository_id == repository_id, manifests.c.digest.in_(part))
            .values(check_at=now)
        )


def renew_pushes(
    connection: Connection, project_id: str, repository_id: int, digest: str, now: datetime
) -> datetime | None:
    """A client that pushes what is there already leaves it at asking: its push counts.

    Returns until when the manifest is kept, None when it was never pushed outside of a build.
    """
    pushed = connection.execute(
        select(retentions.c.id).where(
            retentions.c.repository_id == repository_id,
            retentions.c.digest == digest,
            is_live(now),
        )
    ).first()
    if pushed is None:
        return None
    retain_push(connection, project_id, repository_id, Digest.parse(digest), now)
    until: datetime | None = connection.execute(
        select(retentions.c.expires_at).where(retentions.c.id == pushed.id)
    ).scalar_one()
    return until


def visible_user(
    connection: Connection, repository_id: int, digest: Digest, kind: str, now: datetime
) -> str | None:
    """The digest of a visible manifest that refers to `digest`, if there is one."""
    query = (
        select(manifest_references.c.manifest_digest)
        .where(
            manifest_references.c.repository_id == repository_id,
            manifest_references.c.digest == str(digest),
            manifest_references.c.kind == kind,
            is_visible(
                manifest_references.c.repository_id, manifest_references.c.manifest_digest, now
            ),
        )
        .limit(1)
    )
    return connection.execute(query).scalar()


def check_tag(
    connection: Connection,
    repository: RepositoryName,
    tag: Tag,
    build_id: str | None,
    now: datetime,
) -> None:
    """Raise TagProtected when the tag is a live build's own name, whether or not there is an image
    under it (docs/decisions/0003); save tags move."""
    owner = named_build(tag.value)
    if owner == build_id or repository.value != repository.project_id:
        return
    build = live_retention(owner, now).where(retentions.c.project_id == repository.project_id)
    if connection.execute(build).first() is not None:
        raise TagProtected(tag, owner)


def check_build(connection: Connection, build_id: str) -> None:
    """Raise BuildOver unless the build lives, and keep it alive until the transaction ends.

    Its token was asked for before the manifest came. An image that appeared after its build
    was deleted could be deleted by nobody any more.
    """
    live = (
        select(builds.c.id)
        .where(builds.c.id == build_id, builds.c.status.in_([status.value for status in LIVE]))
        .with_for_update(read=True)
    )
    if connection.execute(live).first() is None:
        raise BuildOver(build_id)


def bury(
    connection: Connection, repository: RepositoryName, reference: str, reason: str, at: datetime
) -> None:
    """Remember what is gone; of what went twice the last time."""
    bury_all(connection, [(repository.project_id, repository.value, reference, reason, at)])


def bury_all(connection: Connection, graves: Sequence[Grave]) -> None:
    """Remember what is gone."""
    # Of what is in the list twice the last time counts: a statement may touch a row but once.
    by_reference = {grave[:3]: grave for grave in sorted(graves, key=lambda grave: grave[4])}
    upsert_all(
        connection,
        tombstones,
        [
            {
                "project_id": project_id,
                "repository": repository,
                "reference": reference,
                "reason": reason,
                "gone_at": at,
            }
            for project_id, repository, reference, reason, at in by_reference.values()
        ],
    )
