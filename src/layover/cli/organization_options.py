"""What the commands about organizations share: which one is meant, and roles."""

import click

from layover.rpc.layover.v1.organizations_pb import Role

ORGANIZATION = click.option(
    "--org", "organization", metavar="ID", help="The organization; else the only one of yours."
)

ROLES = {"owner": Role.OWNER, "member": Role.MEMBER, "viewer": Role.VIEWER}
_TOLD_ROLES = {role: name for name, role in ROLES.items()}


def role_name(role: Role) -> str:
    """`owner`, `member` or `viewer`; empty for none."""
    return _TOLD_ROLES.get(role, "")
