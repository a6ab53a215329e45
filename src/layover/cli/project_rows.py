"""What is shown of a project, wherever projects are listed."""

from protobuf.wkt import Duration

from layover.cli.build_rows import moment
from layover.cli.output import Column, Row, rfc3339, size
from layover.rpc.layover.v1.projects_pb import Project
from layover.units import told_duration, told_size

COLUMNS = (
    Column("ID", "id"),
    Column("NAME", "name"),
    Column("ORGANIZATION", "organization"),
    Column("RETENTION", "retention", is_number=True),
    Column("MAXIMUM", "maximum", is_number=True),
    Column("PULL EXTENDS", "extends"),
    Column("QUOTA", "quota", is_number=True),
)
# Of one project: adding up what it takes is not for a list.
DETAILED_COLUMNS = (*COLUMNS, Column("USED", "used", is_number=True))


def quota(project: Project) -> int | None:
    """The project's quota in bytes; None where it has none."""
    return project.quota_bytes if project.has_field("quota_bytes") else None


def project_row(project: Project) -> Row:
    """A project as JSON and CSV have it; `id` and `name` come first for scripts."""
    return {
        "id": project.id,
        "name": project.name,
        "organizationId": project.organization_id,
        "organizationName": project.organization_name,
        "createdAt": rfc3339(moment(project.created_at)),
        "retentionSeconds": _seconds(project.retention),
        "maxRetentionSeconds": _seconds(project.max_retention),
        # A server of the public build API alone has no policies.
        "extendsOnPull": None if project.retention is None else project.extends_on_pull,
        "quotaBytes": quota(project),
    }


def detailed_row(project: Project) -> Row:
    """As `project_row`, with what the project's blobs take."""
    used = project.used_bytes if project.has_field("used_bytes") else None
    return {**project_row(project), "usedBytes": used}


def shown_project(project: Project) -> dict[str, str]:
    """A project as a table has it."""
    policy = {"retention": "", "maximum": "", "extends": "", "quota": ""}
    if project.retention is not None:
        limit = quota(project)
        policy = {
            "retention": _told(project.retention),
            "maximum": _told(project.max_retention),
            "extends": "yes" if project.extends_on_pull else "no",
            "quota": "none" if limit is None else told_size(limit),
        }
    return {
        "id": project.id,
        "name": project.name,
        "organization": project.organization_name,
        **policy,
        "used": size(project.used_bytes) if project.has_field("used_bytes") else "",
    }


def _seconds(duration: Duration | None) -> int | None:
    return None if duration is None else duration.seconds


def _told(duration: Duration | None) -> str:
    return "" if duration is None else told_duration(duration.to_timedelta())
