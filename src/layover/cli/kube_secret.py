"""`layover kube-secret`: a Kubernetes Secret with a pull token of its own."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from protobuf.wkt import Duration

from layover.cli.errors import WrongUsage, say
from layover.cli.options import (
    DURATION,
    PROJECT,
    find_project,
    find_server,
    run,
    server_options,
)
from layover.cli.output import left, rfc3339
from layover.client.address import Server
from layover.client.api import Client
from layover.client.errors import ClientError
from layover.client.kubernetes import (
    NameInvalid,
    as_yaml,
    check_namespace,
    check_secret_name,
    pull_secret,
)
from layover.client.references import is_id
from layover.client.registries import parse_registry
from layover.rpc.layover.v1.tokens_pb import (
    CreateTokenRequest,
    CreateTokenResponse,
    Token,
    TokenKind,
)


@click.command(
    "kube-secret",
    epilog="Example: layover kube-secret layover --namespace web | kubectl apply -f -",
)
@click.argument("name")
@click.argument("build_id", metavar="[BUILD_ID]", required=False)
@click.option("--namespace", "-n", metavar="NAME", help="The namespace; kubectl's own without it.")
@click.option(
    "--expires",
    type=DURATION,
    default="30d",
    show_default=True,
    help="How long it pulls: 90s, 36h, 30d. With a build, no longer than the build lives.",
)
@PROJECT
@click.option(
    "--output",
    "-o",
    "form",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="The form of what is printed.",
)
@server_options
def command(
    name: str,
    build_id: str | None,
    namespace: str | None,
    expires: timedelta,
    project: str | None,
    form: str,
    url: str | None,
    token: str | None,
) -> None:
    """Print a Kubernetes secret that pulls a project's images, or one build's.

    Each call makes a new pull token, which the secret holds and an annotation names; when it ends
    is another annotation. Nothing else is printed, so it can be piped to kubectl.
    """
    try:
        check_secret_name(name)
        if namespace is not None:
            check_namespace(namespace)
    except NameInvalid as error:
        raise WrongUsage(str(error)) from None
    if build_id is not None and not is_id(build_id):
        raise WrongUsage(f"{build_id[:300]!r} is not a build's ID")
    if build_id is not None and project is not None:
        raise WrongUsage("a build has its project: leave --project or the build's ID out")
    server = find_server(url, token, project)
    description = f"kube-secret {namespace}/{name}" if namespace else f"kube-secret {name}"
    made = run(_create(server, project, build_id, expires, description))
    if made.token is None or not made.secret:
        raise ClientError("the server answered without the token")
    secret = _secret(server.registry_host, name, namespace, made.token, made.secret)
    text = as_yaml(secret) if form == "yaml" else json.dumps(secret, indent=2) + "\n"
    click.echo(text, nl=False)
    _explain(server, made.token)


async def _create(
    server: Server,
    project: str | None,
    build_id: str | None,
    lifetime: timedelta,
    description: str,
) -> CreateTokenResponse:
    async with Client(server) as client:
        project_id = ""
        if build_id is None:
            project_id = await find_project(client, project, Path.cwd())
        return await client.create_token(
            CreateTokenRequest(
                kind=TokenKind.PULL,
                project_id=project_id,
                build_id=build_id or "",
                description=description,
                lifetime=Duration.from_timedelta(lifetime),
            )
        )


def _secret(
    host: str, name: str, namespace: str | None, token: Token, secret: str
) -> dict[str, Any]:
    annotations = {"layover/project-id": token.project_id, "layover/build-id": token.build_id}
    annotations |= {"layover/token-id": token.id, "layover/expires-at": rfc3339(_end(token)) or ""}
    given = {key: value for key, value in annotations.items() if value}
    return pull_secret(name, namespace, host, secret, given)


def _explain(server: Server, token: Token) -> None:
    what = f"build {token.build_id}" if token.build_id else f"project {token.project_id}"
    end = _end(token)
    until = f" until {rfc3339(end)} ({left(end, datetime.now(UTC))})" if end else ""
    say(
        f"The secret pulls {what} from {server.registry_host}{until}."
        f" `layover tokens revoke {token.id}` ends it at once."
    )
    if parse_registry(server.registry_host).is_loopback:
        say(
            f"warning: {server.registry_host} is this machine alone. Set LAYOVER_URL to the address"
            " by which the cluster reaches the server, which is in its images' names as well."
        )


def _end(token: Token) -> datetime | None:
    return None if token.expires_at is None else token.expires_at.to_datetime().astimezone(UTC)
