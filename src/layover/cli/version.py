"""`layover version`."""

from importlib.metadata import version

import click


@click.command("version", epilog="Example: layover version")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Print the version."""
    click.echo(f"{ctx.find_root().info_name} {version('layover')}")
