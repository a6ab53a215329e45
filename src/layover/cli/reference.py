"""The command line's reference page, made from the commands themselves.

python -m layover.cli.reference > docs/cli.md
"""

from collections.abc import Iterator

import click

from layover.cli.buildx.command import OWN_OPTIONS, BuildxCommand
from layover.cli.main import cli

_HEADER = """# The command line

<!-- Made by `python -m layover.cli.reference > docs/cli.md`; a test sees that it is current. -->

The same program is installed as `layover` and as `depot`. Results go to standard output,
everything else to standard error.

## Which server, which token, which project

The first that is given counts:

| | flag | variable | for existing scripts | file |
|---|---|---|---|---|
| server | `--url` | `LAYOVER_URL` | `DEPOT_API_URL` | the login |
| token | `--token` | `LAYOVER_TOKEN` | `DEPOT_TOKEN` | the login |
| project | `--project` | `LAYOVER_PROJECT_ID` | `DEPOT_PROJECT_ID` | `depot.json` |

In a CI job whose ID token the server trusts, the job needs no token ([CI without secrets](ci.md)):
it goes before the login.

`layover login` keeps its file in `$LAYOVER_CONFIG_DIR`, else `$XDG_CONFIG_HOME/layover`, else
`~/.config/layover`, readable by its owner alone. `depot.json` holds `{"id": "PROJECT_ID"}` and is
looked for in the build's context and upward from there. Where a token sees one project only,
that one is meant. `SSL_CERT_FILE` names the certificate authorities to trust in place of the
system's.

## Which login, for a push to another registry

The user's own login for that registry, the first that there is:

| | |
|---|---|
| `DOCKER_AUTH_CONFIG` | the text of a `config.json`, of which `auths` counts, as with Docker |
| Docker's `config.json` | the registry's `credHelpers`, else `credsStore`; then `auths` |
| containers' `auth.json` | the same, at `REGISTRY_AUTH_FILE`, else where podman keeps it |
| `LAYOVER_PUSH_REGISTRY_USERNAME`, `LAYOVER_PUSH_REGISTRY_PASSWORD` | where there is none yet |
| `DEPOT_PUSH_REGISTRY_USERNAME`, `DEPOT_PUSH_REGISTRY_PASSWORD` | for existing scripts |

The variables name no registry: a push to two that both need them is refused, as one would be shown
the other's password. The login stays on this machine, which trades it at the registry for a token
of that repository; only where a registry knows Basic authentication alone does the server get it.
Registries are dialled directly, whatever `HTTPS_PROXY` says, over HTTPS. Those on loopback may do
without, as with Docker, and so may those in `LAYOVER_INSECURE_REGISTRIES` (`HOST:PORT`, with commas
in between); the server has a list of its own, `outbound_insecure_hosts`.

## How a command ends

| status | |
|---|---|
| 0 | done |
| 1 | the work failed; a build ends with buildx's own status, or 1 where it was not saved |
| 2 | wrong usage, or something needed was not given |
| 130 | interrupted |

`LAYOVER_DEBUG=1` adds the whole of an error to its message. `NO_COLOR` is respected.
"""


def page() -> str:
    """The whole page, in Markdown."""
    return _HEADER + "".join(_section(path, command) for path, command in _commands(cli))


def _commands(
    group: click.Group, path: tuple[str, ...] = ("layover",)
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        elif command is not None:
            yield (*path, name), command


def _section(path: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(path))
    usage = " ".join((*path, *command.collect_usage_pieces(context)))
    parts = [f"\n## {' '.join(path)}\n", f"    {usage}\n", _paragraphs(command.help or "")]
    if options := list(_options(command, context)):
        parts.append("\n".join(["| option | |", "|---|---|", *options]) + "\n")
    if command.epilog:
        parts.append(f"{command.epilog.replace('Example: ', 'Example: `', 1)}`\n")
    return "\n".join(parts)


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(p.split()) for p in text.split("\n\n")) + "\n"


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, BuildxCommand):
        rows = list(OWN_OPTIONS)
    else:
        records = (p.get_help_record(context) for p in command.get_params(context))
        rows = [record for record in records if record is not None]
    for names, text in rows:
        if "--help" not in names:
            yield f"| `{names.replace('|', chr(92) + '|')}` | {text.replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    click.echo(page(), nl=False)
