"""`layover serve`: run the server.

`app` is loaded when called, and by this command alone: the others start without the server's
parts.
"""

from pathlib import Path

import click

from layover.cli.errors import WrongUsage


@click.command(
    "serve", epilog="Example: layover serve --data-dir layover-data --listen 127.0.0.1:5000"
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of the database, the blobs and the embedded builder.",
)
@click.option("--listen", metavar="HOST:PORT", help="The address to listen on.")
@click.option("--public-url", metavar="URL", help="How clients and builders reach the server.")
@click.option(
    "--tls-cert",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The certificate chain to serve HTTPS with (PEM).",
)
@click.option(
    "--tls-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The certificate's key (PEM).",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The settings' file [default: layover.toml, if there].",
)
def command(config: Path | None, **flags: object) -> int:
    """Run the server: the registry, the build API and, unless others are given, a builder.

    On an empty folder it makes an organization, a project and an admin, and prints what to do
    next. Settings come from layover.toml, then LAYOVER_*, then these flags.
    """
    from layover.app import serve
    from layover.settings import SettingsError, load

    try:
        settings = load(config, {name: value for name, value in flags.items() if value is not None})
        return serve(settings)
    except SettingsError as error:
        # Malformed, or not to be had: an address that is taken, a folder in use.
        raise WrongUsage(str(error)) from error
