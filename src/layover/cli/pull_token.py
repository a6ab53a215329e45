"""`layover pull-token`: a token that pulls and does nothing else."""

from datetime import timedelta

import click
from protobuf.wkt import Duration

from layover.cli.errors import WrongUsage
from layover.cli.options import DURATION, PROJECT, find_server, server_options
from layover.cli.tokens import create_and_print
from layover.client.references import is_id
from layover.rpc.layover.v1.tokens_pb import CreateTokenRequest, TokenKind


@click.command(
    "pull-token",
    epilog=("Example: layover pull-token BUILD_ID | docker login HOST -u x-token --password-stdin"),
)
@click.argument("build_id", metavar="[BUILD_ID]", required=False)
@PROJECT
@click.option(
    "--expires",
    type=DURATION,
    default="1h",
    show_default=True,
    help="How long it pulls: 90s, 36h, 30d. With a build, no longer than the build lives.",
)
@click.option("--description", metavar="TEXT", help="What it is for.")
@server_options
def command(
    build_id: str | None,
    project: str | None,
    expires: timedelta,
    description: str | None,
    url: str | None,
    token: str | None,
) -> None:
    """Print a token that pulls one build, or all of a project, and does nothing else.

    It is printed alone, and this once. The user name that goes with it is x-token.
    """
    if build_id is not None and not is_id(build_id):
        raise WrongUsage(f"{build_id[:300]!r} is not a build's ID")
    if build_id is not None and project is not None:
        raise WrongUsage("a build has its project: leave --project or the build's ID out")
    request = CreateTokenRequest(
        kind=TokenKind.PULL,
        build_id=build_id or "",
        description=description or "",
        lifetime=Duration.from_timedelta(expires),
    )
    create_and_print(find_server(url, token, project), request, project)
