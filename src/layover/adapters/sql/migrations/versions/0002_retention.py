"""Retention: what is kept, why and until when; keys of blobs; quotas"""

import time
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_DAY_SECONDS = 24 * 60 * 60
_RETENTION_SECONDS = 7 * _DAY_SECONDS
_MAX_RETENTION_SECONDS = 90 * _DAY_SECONDS
_LEASE_SECONDS = 60 * 60
_SECOND = 1_000_000

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _extend_projects()
    _extend_content()
    _create_tables()
    _retain_builds()
    _retain_pushes()
    _extend_tags()
    _retain_manifests()


def _extend_projects() -> None:
    _add_filled(
        "projects",
        {
            "retention_seconds": (sa.BigInteger(), str(_RETENTION_SECONDS)),
            "max_retention_seconds": (sa.BigInteger(), str(_MAX_RETENTION_SECONDS)),
            "extends_on_pull": (sa.Boolean(), sa.false()),
        },
    )
    with op.batch_alter_table("projects") as batch:
        batch.add_column(sa.Column("quota_bytes", sa.BigInteger(), nullable=True))
    _add_filled("builds", {"retention_seconds": (sa.BigInteger(), str(_RETENTION_SECONDS))})


def _extend_content() -> None:
    # A blob's file was found by its digest alone.
    _add_filled("blobs", {"key": (_TEXT, "")})
    with op.batch_alter_table("blobs") as batch:
        batch.add_column(sa.Column("quarantined_at", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE blobs SET key = replace(substr(digest, 1, 9), ':', '/') || '/' || substr(digest, 8)"
    )
    # A push that the upgrade interrupts goes on: whatever a client was told is there stays for as
    # long as it would have been told for now.
    leased_until = time.time_ns() // 1_000 + _LEASE_SECONDS * _SECOND
    _add_filled("repository_blobs", {"leased_until": (sa.BigInteger(), str(leased_until))})
    with op.batch_alter_table("repository_blobs") as batch:
        batch.add_column(sa.Column("shown_until", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("check_at", sa.BigInteger(), nullable=True))
    op.create_index("ix_repository_blobs_check_at", "repository_blobs", ["check_at"])
    op.execute(
        f"UPDATE repository_blobs SET shown_until = {leased_until}, check_at = {leased_until}"
        " WHERE NOT EXISTS (SELECT 1 FROM manifest_references"
        " WHERE manifest_references.repository_id = repository_blobs.repository_id"
        " AND manifest_references.digest = repository_blobs.digest"
        " AND manifest_references.kind = 'blob')"
    )
    with op.batch_alter_table("manifests") as batch:
        batch.add_column(sa.Column("leased_until", sa.BigInteger(), nullable=True))
        batch.add_column(sa.Column("check_at", sa.BigInteger(), nullable=True))
    op.create_index("ix_manifests_check_at", "manifests", ["check_at"])
    # Referrers are listed by digest: without it in the index a list reads the whole repository.
    op.drop_index("ix_manifests_repository_id_subject", "manifests")
    op.create_index(
        "ix_manifests_repository_id_subject_digest",
        "manifests",
        ["repository_id", "subject", "digest"],
    )
    op.execute(f"UPDATE manifests SET leased_until = {leased_until}")
    # An upload session of the old kind cannot be gone on with: its client begins again.
    op.execute("DELETE FROM uploads")
    _add_filled("uploads", {"parts": (_TEXT, "[]"), "reserved_bytes": (sa.BigInteger(), "0")})
    with op.batch_alter_table("uploads") as batch:
        batch.add_column(sa.Column("digest", _TEXT, nullable=True))


def _create_tables() -> None:
    op.create_table(
        "server_leases",
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("holder", _TEXT, nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_server_leases"),
    )
    op.create_table(
        "doomed_objects",
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("digest", _TEXT, nullable=False),
        sa.Column("doomed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_doomed_objects"),
    )
    op.create_index("ix_doomed_objects_digest", "doomed_objects", ["digest"])
    op.create_table(
        "retentions",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("project_id", _TEXT, nullable=False),
        sa.Column("build_id", _TEXT, nullable=True),
        sa.Column("repository_id", _BIG_ID, nullable=True),
        sa.Column("digest", _TEXT, nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("end_reason", _TEXT, nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_retentions_project_id"),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name="fk_retentions_repository_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_retentions"),
        sa.UniqueConstraint("build_id", name="uq_retentions_build_id"),
    )
    op.create_index("ix_retentions_expires_at", "retentions", ["expires_at"])
    op.create_index("ix_retentions_ended_at", "retentions", ["ended_at"])
    op.create_index("ix_retentions_repository_id_digest", "retentions", ["repository_id", "digest"])
    op.create_table(
        "retained_manifests",
        sa.Column("retention_id", _BIG_ID, nullable=False),
        sa.Column("repository_id", _BIG_ID, nullable=False),
        sa.Column("digest", _TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["retention_id"], ["retentions.id"], name="fk_retained_manifests_retention_id"
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name="fk_retained_manifests_repository_id"
        ),
        sa.PrimaryKeyConstraint(
            "retention_id", "repository_id", "digest", name="pk_retained_manifests"
        ),
    )
    op.create_index(
        "ix_retained_manifests_repository_id_digest",
        "retained_manifests",
        ["repository_id", "digest"],
    )
    op.create_table(
        "tombstones",
        sa.Column("project_id", _TEXT, nullable=False),
        sa.Column("repository", _TEXT, nullable=False),
        sa.Column("reference", _TEXT, nullable=False),
        sa.Column("reason", _TEXT, nullable=False),
        sa.Column("gone_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_tombstones_project_id"),
        sa.PrimaryKeyConstraint("project_id", "repository", "reference", name="pk_tombstones"),
    )
    op.create_index("ix_tombstones_gone_at", "tombstones", ["gone_at"])
    op.create_table(
        "receipts",
        sa.Column("build_id", _TEXT, nullable=False),
        sa.Column("project_id", _TEXT, nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.Column("held", _TEXT, nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=True),
        sa.Column("signature", sa.LargeBinary(), nullable=True),
        sa.Column("signed_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_receipts_project_id"),
        sa.PrimaryKeyConstraint("build_id", name="pk_receipts"),
    )
    op.create_index("ix_receipts_project_id", "receipts", ["project_id"])
    op.create_index("ix_receipts_signed_at", "receipts", ["signed_at"])


def _retain_builds() -> None:
    """A build lives from its end on; one that runs has no end yet."""
    op.execute(
        "INSERT INTO retentions (project_id, build_id, created_at, expires_at)"
        f" SELECT project_id, id, created_at, {_expiry('finished_at')} FROM builds"
    )


def _retain_pushes() -> None:
    """What was pushed outside of a build lives from its last push on."""
    # Whatever has a tag that is no build's; and what neither has a tag nor belongs to something
    # else, as an index's manifest does, or a referrer of what is there.
    op.execute(
        "INSERT INTO retentions (project_id, repository_id, digest, created_at, expires_at)"
        " SELECT project_id, repository_id, digest, pushed_at,"
        # A push of what was there already moved its tag alone.
        f" {_expiry('CASE WHEN tagged_at > pushed_at THEN tagged_at ELSE pushed_at END')} FROM ("
        "SELECT repositories.project_id, manifests.repository_id, manifests.digest,"
        " manifests.subject, manifests.pushed_at, (SELECT max(tags.updated_at) FROM tags"
        " WHERE tags.repository_id = manifests.repository_id AND tags.digest = manifests.digest"
        " AND (tags.build_id IS NULL OR tags.build_id NOT IN (SELECT id FROM builds)))"
        " AS tagged_at"
        " FROM manifests JOIN repositories ON repositories.id = manifests.repository_id"
        ") AS pushed"
        " WHERE tagged_at IS NOT NULL"
        " OR NOT EXISTS (SELECT 1 FROM tags"
        " WHERE tags.repository_id = pushed.repository_id AND tags.digest = pushed.digest)"
        " AND NOT EXISTS (SELECT 1 FROM manifest_references"
        " WHERE manifest_references.repository_id = pushed.repository_id"
        " AND manifest_references.digest = pushed.digest"
        " AND manifest_references.kind = 'manifest')"
        " AND (subject IS NULL OR NOT EXISTS (SELECT 1 FROM manifests AS subjects"
        " WHERE subjects.repository_id = pushed.repository_id"
        " AND subjects.digest = pushed.subject))"
    )


def _extend_tags() -> None:
    """Every tag belongs to a retention: its build's, or that of its manifest's push."""
    with op.batch_alter_table("tags") as batch:
        batch.add_column(sa.Column("retention_id", _BIG_ID, nullable=True))
    op.execute(
        "UPDATE tags SET retention_id = coalesce("
        "(SELECT id FROM retentions WHERE retentions.build_id = tags.build_id),"
        " (SELECT id FROM retentions WHERE retentions.repository_id = tags.repository_id"
        " AND retentions.digest = tags.digest))"
    )
    # A tag of a manifest that is not there answered 404 before; no release left one.
    op.execute("DELETE FROM tags WHERE retention_id IS NULL")
    with op.batch_alter_table("tags") as batch:
        batch.alter_column("retention_id", existing_type=_BIG_ID, nullable=False)
        batch.create_foreign_key("fk_tags_retention_id", "retentions", ["retention_id"], ["id"])
    op.create_index("ix_tags_retention_id", "tags", ["retention_id"])


def _retain_manifests() -> None:
    """Each retention retains what it names and all that this reaches."""
    # Every manifest is reached: one without a tag, an index or a subject that is there has a
    # retention of its own, and digests make no rings. So nothing needs the collector's look.
    op.execute(
        "INSERT INTO retained_manifests (retention_id, repository_id, digest)"
        " WITH RECURSIVE reach (retention_id, repository_id, digest) AS ("
        " SELECT retention_id, repository_id, digest FROM ("
        " SELECT retention_id, repository_id, digest FROM tags"
        " UNION SELECT id, repository_id, digest FROM retentions WHERE digest IS NOT NULL) AS roots"
        " UNION SELECT reach.retention_id, edges.repository_id, edges.target FROM reach JOIN ("
        " SELECT repository_id, manifest_digest AS source, digest AS target"
        " FROM manifest_references WHERE kind = 'manifest'"
        " UNION ALL SELECT repository_id, subject, digest FROM manifests WHERE subject IS NOT NULL"
        " ) AS edges ON edges.repository_id = reach.repository_id AND edges.source = reach.digest)"
        " SELECT retention_id, repository_id, digest FROM reach"
    )


def _expiry(start: str) -> str:
    """SQL for the end of a time that starts then: on a whole second, rounded up."""
    last = _RETENTION_SECONDS * _SECOND + _SECOND - 1
    return f"({start} + {last}) / {_SECOND} * {_SECOND}"


def _add_filled(table: str, columns: dict[str, tuple[sa.types.TypeEngine[Any], Any]]) -> None:
    """Add columns that are never NULL to a table that may have rows."""
    with op.batch_alter_table(table) as batch:
        for name, (type_, fill) in columns.items():
            batch.add_column(sa.Column(name, type_, nullable=False, server_default=fill))
    with op.batch_alter_table(table) as batch:
        for name, (type_, _) in columns.items():
            batch.alter_column(name, existing_type=type_, server_default=None)
