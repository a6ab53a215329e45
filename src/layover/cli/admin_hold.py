"""`layover admin hold`."""

import asyncio
from pathlib import Path

import click

from layover.cli.errors import FAILED, WrongUsage, say


@click.command(
    "hold",
    context_settings={"allow_interspersed_args": False},
    epilog="Example: layover admin hold -- sh -c 'pg_dump -Fc layover > db && rclone sync s3:b /b'",
)
@click.argument("arguments", metavar="COMMAND...", nargs=-1, required=True)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The server's data folder [default: what `layover serve` would take here].",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The server's settings' file [default: layover.toml, if there].",
)
def hold(arguments: tuple[str, ...], data_dir: Path | None, config: Path | None) -> int:
    """Run a command while nothing is collected, as one that copies the database and the bucket.

    What the database names when the command begins has its bytes when it ends; pushes and pulls
    go on, and what is over is invisible all the same. The status is the command's own, or 1 when
    something may have been collected meanwhile: run it again then.
    """
    from layover import logs
    from layover.maintenance.hold import NoServerData
    from layover.maintenance.hold import hold as run
    from layover.settings import SettingsError, load

    logs.configure(as_json=False)
    try:
        settings = load(config, {} if data_dir is None else {"data_dir": data_dir})
        held = asyncio.run(run(settings, arguments))
    except (NoServerData, SettingsError) as error:
        raise WrongUsage(str(error)) from error
    except (FileNotFoundError, PermissionError) as error:
        raise WrongUsage(f"cannot run {arguments[0]}: {error.strerror}") from error
    if held.was_interrupted:
        say("error: something may have been collected while the command worked: run it again")
        return held.status if held.status > 0 else FAILED
    # As a shell tells it of a signal.
    return held.status if held.status >= 0 else 128 - held.status
