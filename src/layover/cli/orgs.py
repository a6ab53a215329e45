"""`layover orgs`: organizations, which projects and members belong to."""

from collections.abc import Sequence

import click

from layover.cli.build_rows import moment
from layover.cli.options import OUTPUT, YES, confirm, find_server, run, server_options
from layover.cli.organization_options import role_name
from layover.cli.output import Column, Row, print_rows, rfc3339
from layover.client.address import Server
from layover.client.organizations import OrganizationsClient
from layover.rpc.layover.v1.organizations_pb import Organization

_COLUMNS = (
    Column("ID", "id"),
    Column("NAME", "name"),
    Column("YOUR ROLE", "role"),
    Column("CREATED", "createdAt"),
)


@click.group("orgs", epilog="Example: layover orgs list")
def command() -> None:
    """Show, create, rename and delete organizations."""


@command.command("list", epilog="Example: layover orgs list --output json")
@OUTPUT
@server_options
def list_organizations(form: str, url: str | None, token: str | None) -> None:
    """List the organizations that the token sees."""
    _print(run(_list(find_server(url, token))), form)


@command.command("create", epilog='Example: layover orgs create "Acme web team"')
@click.argument("name")
@OUTPUT
@server_options
def create(name: str, form: str, url: str | None, token: str | None) -> None:
    """Create an organization, of which you are the owner.

    Administrators of the server may; the user of its first start is one.
    """
    _print([run(_create(find_server(url, token), name))], form)


@command.command("rename", epilog='Example: layover orgs rename ORG_ID "Acme"')
@click.argument("organization_id", metavar="ORG_ID")
@click.argument("name")
@OUTPUT
@server_options
def rename(organization_id: str, name: str, form: str, url: str | None, token: str | None) -> None:
    """Give an organization another name; its ID stays."""
    _print([run(_rename(find_server(url, token), organization_id, name))], form)


@command.command("delete", epilog="Example: layover orgs delete ORG_ID")
@click.argument("organization_id", metavar="ORG_ID")
@YES
@server_options
def delete(organization_id: str, yes: bool, url: str | None, token: str | None) -> None:
    """Delete an organization that has no projects any more.

    Its tokens and invitations end with it. On a terminal it asks; a script says what it means by
    naming the organization.
    """
    server = find_server(url, token)
    confirm(f"Delete organization {organization_id}, with its tokens?", yes)
    run(_delete(server, organization_id))
    click.echo(organization_id)


def _print(organizations: Sequence[Organization], form: str) -> None:
    rows = [_row(organization) for organization in organizations]
    shown = [{name: str(value or "") for name, value in row.items()} for row in rows]
    print_rows(rows, shown, _COLUMNS, form)


def _row(organization: Organization) -> Row:
    return {
        "id": organization.id,
        "name": organization.name,
        # Null for a token that is no user's.
        "role": role_name(organization.role) or None,
        "createdAt": rfc3339(moment(organization.created_at)),
    }


async def _list(server: Server) -> list[Organization]:
    async with OrganizationsClient(server) as client:
        return await client.list_organizations()


async def _create(server: Server, name: str) -> Organization:
    async with OrganizationsClient(server) as client:
        return await client.create_organization(name)


async def _rename(server: Server, organization_id: str, name: str) -> Organization:
    async with OrganizationsClient(server) as client:
        return await client.rename_organization(organization_id, name)


async def _delete(server: Server, organization_id: str) -> None:
    async with OrganizationsClient(server) as client:
        await client.delete_organization(organization_id)
