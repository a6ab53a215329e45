"""`layover tokens`: tokens that log in to the server and its registry."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from protobuf.wkt import Duration

from layover.cli.build_rows import moment
from layover.cli.errors import DONE, FAILED, WrongUsage, explain, say
from layover.cli.options import (
    DURATION,
    OUTPUT,
    PROJECT,
    find_project,
    find_server,
    run,
    server_options,
)
from layover.cli.organization_options import ORGANIZATION
from layover.cli.output import Column, Row, age, left, print_rows, rfc3339
from layover.client.address import Server
from layover.client.errors import ClientError, NotFound
from layover.client.tokens import TokensClient
from layover.rpc.layover.v1.tokens_pb import CreateTokenRequest, Token, TokenKind

_COLUMNS = (
    Column("ID", "id"),
    Column("KIND", "kind"),
    Column("DESCRIPTION", "name"),
    Column("FOR", "for"),
    Column("BY", "createdBy"),
    Column("AGE", "age", is_number=True),
    Column("LAST USED", "lastUsed", is_number=True),
    Column("EXPIRES", "expires"),
)

KINDS = {
    "user": TokenKind.USER,
    "organization": TokenKind.ORGANIZATION,
    "project": TokenKind.PROJECT,
    "pull": TokenKind.PULL,
}


@click.group("tokens", epilog="Example: layover tokens create --kind project --expires 90d")
def command() -> None:
    """Show, create and revoke tokens."""


@command.command("list", epilog="Example: layover tokens list --org ORG_ID --output json")
@click.option("--org", "organization", metavar="ID", help="Those of an organization.")
@click.option("--project", metavar="ID", help="Those of a project.")
@OUTPUT
@server_options
def list_tokens(
    organization: str | None, project: str | None, form: str, url: str | None, token: str | None
) -> None:
    """List the tokens that you made; with --org or --project those for it.

    Owners see all of these, everybody else those that they made. No secret is shown.
    """
    if organization and project:
        raise WrongUsage("--org and --project exclude each other")
    tokens = run(_list(find_server(url, token, project), organization, project))
    now = datetime.now(UTC)
    print_rows(
        [_row(each) for each in tokens], [_shown(each, now) for each in tokens], _COLUMNS, form
    )


@command.command("create", epilog="Example: layover tokens create --kind project --expires 90d")
@click.option(
    "--kind",
    type=click.Choice(list(KINDS)),
    default="user",
    show_default=True,
    help="user: what you may do; organization, project: works in it; pull: pulls alone.",
)
@click.option(
    "--expires",
    type=DURATION,
    metavar="TIME",
    help="How long it lives; for ever without, but for pull tokens: 1h.",
)
@click.option("--description", metavar="TEXT", help="What it is for.")
@click.option("--build", metavar="BUILD_ID", help="Of a pull token: this one build alone.")
@PROJECT
@ORGANIZATION
@server_options
def create(
    kind: str,
    expires: timedelta | None,
    description: str | None,
    build: str | None,
    project: str | None,
    organization: str | None,
    url: str | None,
    token: str | None,
) -> None:
    """Create a token and print its secret, alone and this once.

    Owners make tokens of organizations and projects, which work in CI and end when their maker
    is removed. What a token makes itself ends with it.
    """
    for name, value, goes_with in (
        ("--build", build, ("pull",)),
        ("--project", project, ("project", "pull")),
        ("--org", organization, ("organization",)),
    ):
        if value and kind not in goes_with:
            raise WrongUsage(f"{name} does not go with --kind {kind}")
    if build and project:
        raise WrongUsage("a build has its project: leave --project or --build out")
    request = CreateTokenRequest(
        kind=KINDS[kind],
        organization_id=organization or "",
        build_id=build or "",
        description=description or "",
        lifetime=None if expires is None else Duration.from_timedelta(expires),
    )
    create_and_print(find_server(url, token, project), request, project)


@command.command("revoke", epilog="Example: layover tokens revoke TOKEN_ID")
@click.argument("token_ids", metavar="TOKEN_ID...", nargs=-1, required=True)
@server_options
def revoke(token_ids: Sequence[str], url: str | None, token: str | None) -> int:
    """Revoke tokens, and what they made, at once and on every replica."""
    return run(_revoke(find_server(url, token), token_ids))


def create_and_print(server: Server, request: CreateTokenRequest, project: str | None) -> None:
    """Make a token; print its secret alone, and what else there is to know beside."""
    made, secret = run(_create(server, request, project))
    click.echo(secret)
    end = moment(made.expires_at)
    until = f"until {rfc3339(end)} ({left(end, datetime.now(UTC))})" if end else "until revoked"
    about = _for(made)
    say(
        f"{_kind(made).capitalize()} token {made.id}{f' for {about}' if about else ''}, {until}."
        f" `layover tokens revoke {made.id}` ends it at once."
    )


def _kind(token: Token) -> str:
    return token.kind.name.lower()


def _for(token: Token) -> str:
    if token.build_id:
        return f"build {token.build_id}"
    if token.project_id:
        return f"project {token.project_id}"
    return f"organization {token.organization_id}" if token.organization_id else ""


def _row(token: Token) -> Row:
    return {
        "id": token.id,
        "name": token.description,
        "kind": _kind(token),
        "organizationId": token.organization_id or None,
        "projectId": token.project_id or None,
        "buildId": token.build_id or None,
        "createdBy": token.created_by,
        "createdAt": rfc3339(moment(token.created_at)),
        "expiresAt": rfc3339(moment(token.expires_at)),
        "lastUsedAt": rfc3339(moment(token.last_used_at)),
    }


def _shown(token: Token, now: datetime) -> dict[str, str]:
    return {
        "id": token.id,
        "kind": _kind(token),
        "name": token.description,
        "for": _for(token),
        "createdBy": token.created_by,
        "age": age(moment(token.created_at), now),
        "lastUsed": age(moment(token.last_used_at), now) or "never",
        "expires": left(moment(token.expires_at), now) or "never",
    }


async def _list(server: Server, organization: str | None, project: str | None) -> list[Token]:
    async with TokensClient(server) as client:
        return await client.list_tokens(
            organization_id=organization or "", project_id=project or ""
        )


async def _create(
    server: Server, request: CreateTokenRequest, project: str | None
) -> tuple[Token, str]:
    async with TokensClient(server) as client:
        is_for_project = request.kind in (TokenKind.PROJECT, TokenKind.PULL)
        if is_for_project and not request.build_id:
            request.project_id = await find_project(client, project, Path())
        answer = await client.create_token(request)
    if answer.token is None or not answer.secret:
        raise ClientError("the server answered without the token")
    return answer.token, answer.secret


async def _revoke(server: Server, token_ids: Sequence[str]) -> int:
    """Revoke each; one that fails does not keep the others."""
    status, made = DONE, 0
    async with TokensClient(server) as client:
        for token_id in dict.fromkeys(token_ids):
            try:
                made += await client.revoke_token(token_id) - 1
            except NotFound as error:
                say(explain(error))
                status = FAILED
            else:
                click.echo(token_id)
    if made:
        say(f"{made} that {'it' if len(token_ids) == 1 else 'they'} had made ended too.")
    return status
