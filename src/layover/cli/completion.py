"""`layover completion`: scripts with which a shell completes our commands."""

import click
from click.shell_completion import get_completion_class


@click.command("completion", epilog="Example: source <(layover completion bash)")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print SHELL's completion script, to be sourced or kept where the shell looks for it."""
    root = ctx.find_root()
    name = root.info_name or "layover"
    complete = get_completion_class(shell)
    if complete is None:
        raise click.BadParameter(f"no completion for {shell}")
    variable = f"_{name}_complete".replace("-", "_").upper()
    click.echo(complete(root.command, {}, name, variable).source())
