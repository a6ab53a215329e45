"""Pushes to other registries, and what is kept for them; tags that wait for their build's end"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    for table in ("repository_blobs", "manifests"):
        # Without a batch: neither database rewrites a table for a column that is NULL.
        op.add_column(table, sa.Column("kept_until", sa.BigInteger(), nullable=True))
    _create_pushes()
    for table, column in (
        ("manifests", "check_at"),
        ("repository_blobs", "check_at"),
        ("retentions", "ended_at"),
        ("tokens", "revoked_at"),
    ):
        # Anew, of the rows alone that have one.
        op.drop_index(f"ix_{table}_{column}", table)
        _create_partial_index(table, column, f"{column} IS NOT NULL")
    _create_partial_index("tombstones", "reference", "repository = ''")
    _stage_tags()
    op.create_table(
        "push_transfers",
        *(_column(name, _TEXT) for name in ("push_id", "registry", "repository", "digest")),
        _column("position", sa.Integer()),
        _column("size_bytes", sa.BigInteger()),
        _column("sent_bytes", sa.BigInteger()),
        _column("state", _TEXT),
        sa.PrimaryKeyConstraint(
            "push_id", "registry", "repository", "digest", name="pk_push_transfers"
        ),
        _of_push("push_transfers"),
    )
    op.create_table(
        "push_authorizations",
        *(_column(name, _TEXT) for name in ("push_id", "registry", "repository")),
        _column("sealed", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("push_id", "registry", "repository", name="pk_push_authorizations"),
        _of_push("push_authorizations"),
    )


def _stage_tags() -> None:
    op.create_table(
        "staged_tags",
        _column("build_id", _TEXT),
        _column("repository_id", _BIG_ID),
        _column("name", _TEXT),
        _column("digest", _TEXT),
        sa.PrimaryKeyConstraint("build_id", "repository_id", "name", name="pk_staged_tags"),
        sa.ForeignKeyConstraint(
            ["build_id"], ["builds.id"], name="fk_staged_tags_build_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name="fk_staged_tags_repository_id"
        ),
    )
    op.create_index(
        "ix_staged_tags_repository_id_digest", "staged_tags", ["repository_id", "digest"]
    )
    # Those of builds that run meanwhile: their end is to find them.
    running = "build_id IN (SELECT id FROM builds WHERE status IN ('created', 'running'))"
    op.execute(
        "INSERT INTO staged_tags (build_id, repository_id, name, digest)"
        f" SELECT build_id, repository_id, name, digest FROM tags WHERE {running}"
    )
    op.execute(f"DELETE FROM tags WHERE {running}")


def _create_partial_index(table: str, column: str, condition: str) -> None:
    where = sa.text(condition)
    name = f"ix_{table}_{column}"
    op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)


def _create_pushes() -> None:
    op.create_table(
        "pushes",
        *(
            _column(name, _TEXT)
            for name in ("id", "project_id", "build_id", "target", "source", "destinations")
        ),
        _column("platforms", _TEXT),
        _column("with_referrers", sa.Boolean()),
        _column("status", _TEXT),
        _column("created_at", sa.BigInteger()),
        _column("created_by", _TEXT),
        _column("started_at", sa.BigInteger(), nullable=True),
        _column("finished_at", sa.BigInteger(), nullable=True),
        _column("error", _TEXT, nullable=True),
        _column("digest", _TEXT, nullable=True),
        _column("waits_for", _TEXT),
        _column("canceled_at", sa.BigInteger(), nullable=True),
        _column("holder", _TEXT, nullable=True),
        _column("leased_until", sa.BigInteger(), nullable=True),
        _column("takeovers", sa.Integer()),
        sa.PrimaryKeyConstraint("id", name="pk_pushes"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_pushes_project_id"),
    )
    for columns in (
        ["finished_at"],
        ["project_id", "created_at", "id"],
        ["project_id", "status"],
        ["status", "created_at", "id"],
    ):
        op.create_index(f"ix_pushes_{'_'.join(columns)}", "pushes", columns)


def _column(
    name: str, type_: sa.types.TypeEngine[Any], *, nullable: bool = False
) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=nullable)


def _of_push(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["push_id"], ["pushes.id"], name=f"fk_{table}_push_id", ondelete="CASCADE"
    )
