"""What a project's quota leaves, asked in the transaction that takes some of it.

Two transactions that take at once each read what the other one writes: SQLite lets one of them
wait, PostgreSQL does one of them again. So what is let in together fits together.
"""

from sqlalchemy import Connection, func, literal, select

from layover.adapters.sql.schema import blobs, projects, repositories, repository_blobs, uploads
from layover.oci.digest import Digest
from layover.registry.models import QuotaExceeded


def check_quota(connection: Connection, project_id: str, more_bytes: int) -> int | None:
    """Raise QuotaExceeded when `more_bytes` do not fit; return how many would fit beside them.

    None is no limit: nothing is counted then, nor where nothing is to be added.
    """
    query = select(projects.c.quota_bytes).where(projects.c.id == project_id)
    limit: int | None = connection.execute(query).scalar()
    if limit is None or more_bytes <= 0:
        return None
    used = used_bytes(connection, project_id)
    if used + more_bytes > limit:
        raise QuotaExceeded(project_id, used, limit)
    return limit - used - more_bytes


def check_quota_of_blob(
    connection: Connection, project_id: str, digest: Digest, size_bytes: int
) -> None:
    """As `check_quota`, for a blob that is linked: it counts once a project."""
    linked = (
        select(literal(1))
        .select_from(repository_blobs)
        .join(repositories, repositories.c.id == repository_blobs.c.repository_id)
        .where(
            repository_blobs.c.digest == str(digest),
            repositories.c.project_id == project_id,
        )
        .limit(1)
    )
    if connection.execute(linked).first() is None:
        check_quota(connection, project_id, size_bytes)


def used_bytes(connection: Connection, project_id: str) -> int:
    """What a project's blobs take, each once, with what uploads under way hold or announced."""
    mine = (
        select(repository_blobs.c.digest)
        .join(repositories, repositories.c.id == repository_blobs.c.repository_id)
        .where(repositories.c.project_id == project_id)
    )
    kept = select(func.coalesce(func.sum(blobs.c.size_bytes), 0)).where(blobs.c.digest.in_(mine))
    under_way = (
        select(func.coalesce(func.sum(uploads.c.size_bytes + uploads.c.reserved_bytes), 0))
        .select_from(uploads)
        .join(repositories, repositories.c.id == uploads.c.repository_id)
        .where(repositories.c.project_id == project_id)
    )
    return sum(int(connection.execute(query).scalar_one()) for query in (kept, under_way))
