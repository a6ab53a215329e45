"""`layover admin`: what is done on the server's machine, to its data, by who runs it.

Like `serve`, these commands load the server's parts when called. Each is a module of its own.
"""

import click

from layover.cli.admin_backup import backup, restore
from layover.cli.admin_gc import gc
from layover.cli.admin_hold import hold
from layover.cli.admin_verify import verify


@click.group("admin", epilog="Example: layover admin backup /mnt/backup/layover")
def command() -> None:
    """Look after a server's data, on the machine where it lies."""


command.add_command(backup)
command.add_command(restore)
command.add_command(gc)
command.add_command(hold)
command.add_command(verify)
