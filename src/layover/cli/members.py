"""`layover members`: who is in an organization, and who is asked to be."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import click
from protobuf.wkt import Duration

from layover.cli.build_rows import moment
from layover.cli.errors import DONE, FAILED, explain, say
from layover.cli.options import (
    DURATION,
    OUTPUT,
    YES,
    confirm,
    find_server,
    run,
    server_options,
)
from layover.cli.organization_options import ORGANIZATION, ROLES, role_name
from layover.cli.output import Column, Row, age, left, print_rows, rfc3339
from layover.client.address import Server
from layover.client.errors import NotFound
from layover.client.organizations import OrganizationsClient
from layover.rpc.layover.v1.organizations_pb import Invitation, InviteMemberRequest, Member

_MEMBERS = (
    Column("ID", "id"),
    Column("NAME", "name"),
    Column("ROLE", "role"),
    Column("JOINED", "joinedAt"),
)
_INVITATIONS = (
    Column("ID", "id"),
    Column("FOR", "name"),
    Column("ROLE", "role"),
    Column("BY", "createdBy"),
    Column("AGE", "age", is_number=True),
    Column("EXPIRES", "expires"),
)

_ROLE = click.option(
    "--role",
    type=click.Choice(sorted(ROLES)),
    required=True,
    help="owner: everything; member: builds, pulls, pushes, deletes; viewer: sees and pulls.",
)
_USER = click.argument("user", metavar="USER")


@click.group("members", epilog="Example: layover members invite --role member")
def command() -> None:
    """Show, invite, change and remove an organization's members."""


@command.command("list", epilog="Example: layover members list --output json")
@ORGANIZATION
@OUTPUT
@server_options
def list_members(organization: str | None, form: str, url: str | None, token: str | None) -> None:
    """List an organization's members and their roles."""
    _print_members(run(_list(find_server(url, token), organization)), form)


@command.command("invite", epilog='Example: layover members invite --role member --note "Ann"')
@_ROLE
@click.option("--note", metavar="TEXT", help="For whom it is, so that you know later.")
@click.option(
    "--expires", type=DURATION, default="7d", show_default=True, help="Until when it works."
)
@ORGANIZATION
@server_options
def invite(
    role: str,
    note: str | None,
    expires: timedelta,
    organization: str | None,
    url: str | None,
    token: str | None,
) -> None:
    """Print a link with which somebody joins, once.

    Whoever has the link can use it, so send it to the one whom it is for. It is printed alone, and
    this once.
    """
    request = InviteMemberRequest(
        organization_id=organization or "",
        role=ROLES[role],
        note=note or "",
        lifetime=Duration.from_timedelta(expires),
    )
    invitation, link = run(_invite(find_server(url, token), request))
    click.echo(link)
    end = moment(invitation.expires_at)
    say(
        f"Whoever opens it first joins as {role}; it works until {rfc3339(end)}."
        f" `layover members uninvite {invitation.id}` takes it back."
    )


@command.command("invitations", epilog="Example: layover members invitations --output json")
@ORGANIZATION
@OUTPUT
@server_options
def list_invitations(
    organization: str | None, form: str, url: str | None, token: str | None
) -> None:
    """List the invitations that nobody used yet. Their links are not told again."""
    invitations = run(_invitations(find_server(url, token), organization))
    now = datetime.now(UTC)
    print_rows(
        [_invitation_row(each) for each in invitations],
        [_shown_invitation(each, now) for each in invitations],
        _INVITATIONS,
        form,
    )


@command.command("uninvite", epilog="Example: layover members uninvite INVITATION_ID")
@click.argument("invitation_ids", metavar="INVITATION_ID...", nargs=-1, required=True)
@ORGANIZATION
@server_options
def uninvite(
    invitation_ids: Sequence[str], organization: str | None, url: str | None, token: str | None
) -> int:
    """Take invitations back; their links lead nowhere then."""
    return run(_uninvite(find_server(url, token), organization, invitation_ids))


@command.command("update", epilog="Example: layover members update ann --role owner")
@_USER
@_ROLE
@ORGANIZATION
@OUTPUT
@server_options
def update(
    user: str,
    role: str,
    organization: str | None,
    form: str,
    url: str | None,
    token: str | None,
) -> None:
    """Give a member, by name or ID, another role; it holds from the next request on.

    Tokens that the member made and could not make any more are revoked: whoever made a token may
    still know it. The last owner stays one.
    """
    member, revoked = run(_update(find_server(url, token), organization, user, role))
    _print_members([member], form)
    _tell_revoked(revoked)


@command.command("remove", epilog="Example: layover members remove ann")
@_USER
@YES
@ORGANIZATION
@server_options
def remove(
    user: str, yes: bool, organization: str | None, url: str | None, token: str | None
) -> None:
    """Remove a member, by name or ID, from an organization, from the next request on.

    Every token that the member made for the organization or its projects is revoked, in CI or
    wherever else it is used. On a terminal it asks.
    """
    server = find_server(url, token)
    confirm(f"Remove {user}, and revoke all that {user} made here?", yes)
    user_id, revoked = run(_remove(server, organization, user))
    click.echo(user_id)
    _tell_revoked(revoked)


def _tell_revoked(count: int) -> None:
    if count:
        say(f"{count} token{' was' if count == 1 else 's were'} revoked with that.")


def _print_members(members: Sequence[Member], form: str) -> None:
    rows: list[Row] = [
        {
            "id": member.user_id,
            "name": member.name,
            "role": role_name(member.role),
            "joinedAt": rfc3339(moment(member.joined_at)),
        }
        for member in members
    ]
    shown = [{name: str(value or "") for name, value in row.items()} for row in rows]
    print_rows(rows, shown, _MEMBERS, form)


def _invitation_row(invitation: Invitation) -> Row:
    return {
        "id": invitation.id,
        "name": invitation.note,
        "role": role_name(invitation.role),
        "createdBy": invitation.created_by,
        "createdAt": rfc3339(moment(invitation.created_at)),
        "expiresAt": rfc3339(moment(invitation.expires_at)),
    }


def _shown_invitation(invitation: Invitation, now: datetime) -> dict[str, str]:
    return {
        "id": invitation.id,
        "name": invitation.note,
        "role": role_name(invitation.role),
        "createdBy": invitation.created_by,
        "age": age(moment(invitation.created_at), now),
        "expires": left(moment(invitation.expires_at), now),
    }


async def _list(server: Server, organization: str | None) -> list[Member]:
    async with OrganizationsClient(server) as client:
        return await client.list_members(organization or "")


async def _invite(server: Server, request: InviteMemberRequest) -> tuple[Invitation, str]:
    async with OrganizationsClient(server) as client:
        return await client.invite_member(request)


async def _invitations(server: Server, organization: str | None) -> list[Invitation]:
    async with OrganizationsClient(server) as client:
        return await client.list_invitations(organization or "")


async def _uninvite(server: Server, organization: str | None, invitation_ids: Sequence[str]) -> int:
    status = DONE
    async with OrganizationsClient(server) as client:
        for invitation_id in dict.fromkeys(invitation_ids):
            try:
                await client.delete_invitation(organization or "", invitation_id)
            except NotFound as error:
                # The others go all the same.
                say(explain(error))
                status = FAILED
            else:
                click.echo(invitation_id)
    return status


async def _update(
    server: Server, organization: str | None, user: str, role: str
) -> tuple[Member, int]:
    async with OrganizationsClient(server) as client:
        user_id = await _user_id(client, organization, user)
        return await client.update_member(organization or "", user_id, ROLES[role])


async def _remove(server: Server, organization: str | None, user: str) -> tuple[str, int]:
    async with OrganizationsClient(server) as client:
        user_id = await _user_id(client, organization, user)
        return user_id, await client.remove_member(organization or "", user_id)


async def _user_id(client: OrganizationsClient, organization: str | None, user: str) -> str:
    """The ID of a member who is named by it, or by name: no two users have the same."""
    members = await client.list_members(organization or "")
    # Somebody may be called as another one's ID is.
    for named in ({each.user_id: each for each in members}, {each.name: each for each in members}):
        if user in named:
            return named[user].user_id
    raise NotFound(f"no member {user!r}: `layover members list` shows them")
