"""`layover bake`: buildx's bake, on builders of the server's, each target saved when asked to."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import click

from layover.cli.buildx import dockerfiles, session
from layover.cli.buildx.arguments import SWITCHES, CommandLine, scan
from layover.cli.buildx.bakefile import Definition, Target, is_remote
from layover.cli.buildx.builders import needed
from layover.cli.buildx.command import (
    OWN_SWITCHES,
    BuildxCommand,
    OwnFlags,
    show_help,
    without_save,
)
from layover.cli.buildx.locate import find_buildx
from layover.cli.buildx.process import capture, replace_process, spool_stdin
from layover.cli.buildx.workspace import Workspace, without_own_secrets
from layover.cli.errors import WrongUsage
from layover.cli.options import environment, run
from layover.rpc.depot.cli.v1 import build_pb as wire

_ALIASES = {"-f": "--file"}

# What `buildx bake --print` has put into the definition: given again it would be applied twice.
_RESOLVED = (
    *("--file", "--set", "--var", "--push", "--load", "--no-cache", "--pull"),
    *("--provenance", "--sbom", "--call", "--check", "--policy"),
)
_FILE_VARIABLES = ("BUILDX_BAKE_FILE", "BUILDX_BAKE_FILE_RELATIVE_PATHS")


@dataclass(frozen=True)
class BakeLine:
    """A `bake` command line, taken apart."""

    own: OwnFlags
    push: bool
    load: bool
    files: list[str]
    positions: list[str]
    # Whether buildx only tells something, and builds nothing.
    only_tells: bool
    # What buildx is given: everything of the user's, and what the definition doesn't have.
    whole: list[str] = field(repr=False)
    stripped: list[str] = field(repr=False)

    @classmethod
    def parse(cls, arguments: list[str]) -> "BakeLine":
        """Raises WrongUsage."""
        line = CommandLine(scan(arguments, SWITCHES, OWN_SWITCHES), _ALIASES)
        own = OwnFlags.take(line)
        whole, positions = line.rest, line.positions
        if own.save and any(is_remote(position) for position in positions):
            raise WrongUsage(
                "a bake file that lies elsewhere cannot be saved: get it first, as with"
                " `git clone`, and bake there"
            )
        push, load, files = line.switch("--push"), line.switch("--load"), line.values("--file")
        only_tells = line.switch("--print") or bool(
            line.values("--list", "--list-targets", "--list-variables")
        )
        line.take(*_RESOLVED)
        return cls(
            own=own,
            push=push,
            load=load,
            files=files,
            positions=positions,
            only_tells=only_tells,
            whole=whole,
            stripped=line.rest_without_positions,
        )

    @property
    def is_remote(self) -> bool:
        return any(is_remote(position) for position in self.positions)

    @property
    def reads_stdin(self) -> bool:
        return "-" in self.files

    def options(self, target: Target | None) -> wire.BuildOptions:
        """A target as the server records it."""
        is_built = target is None or target.is_built
        return wire.BuildOptions(
            command=wire.Command.BAKE,
            tags=target.tags if target else [],
            outputs=[
                wire.BuildOutput(kind=o.kind, attributes=dict(o.attributes))
                for o in (target.outputs if target else [])
            ],
            push=self.push,
            load=self.load,
            target_name=target.name if target else None,
            save=self.own.save and is_built,
            save_tags=self.own.save_tags if is_built else [],
        )


@click.command(
    "bake",
    cls=BuildxCommand,
    epilog="Example: layover bake --save -f docker-bake.hcl app worker",
)
@click.argument("arguments", nargs=-1, metavar="[TARGET]...")
@click.pass_context
def command(ctx: click.Context, arguments: tuple[str, ...]) -> int:
    """Build the targets of a bake file on a remote builder.

    Takes every flag of `docker buildx bake`. With --save every target is kept in the registry,
    as BUILD_ID-TARGET, and `layover pull BUILD_ID` pulls all of them.
    """
    show_help(ctx, arguments, SWITCHES)
    line = BakeLine.parse(list(arguments))
    env = environment()
    buildx = find_buildx(env)
    if line.only_tells:
        replace_process(buildx, ["bake", *line.whole], without_own_secrets(env, line.whole))
    server, project_id = line.own.find(Path())
    stdin = spool_stdin() if line.reads_stdin else None
    definition = None if line.is_remote else run(_resolve(buildx, line, env, stdin))
    targets = definition.requested if definition else []
    if targets and not any(target.is_built for target in targets):
        line = replace(line, own=without_save(line.own, targets[0].call))
    if definition and line.own.save:
        _saved(definition, session.TRIAL)

    def buildx_arguments(workspace: Workspace, saved: session.Saved | None) -> list[str]:
        if saved is None or definition is None:
            return line.whole
        path = workspace.path("bake.json")
        content = _saved(definition, saved)
        path.write_text(json.dumps(content), encoding="utf-8")
        return ["--file", str(path), *line.stripped]

    plan = session.Plan(
        command="bake",
        options=[line.options(target) for target in targets] or [line.options(None)],
        platforms=needed(
            line.own.build_platform, [platform for t in targets for platform in t.platforms]
        ),
        project_id=project_id,
        arguments=buildx_arguments,
        dockerfiles=[entry for target in targets for entry in dockerfiles.of_target(target)],
        stdin=stdin,
        metadata_file=line.own.metadata_file,
        retention=line.own.retention,
        targets=[target.name for target in targets if target.is_built],
        settled_variables=_FILE_VARIABLES,
    )
    return run(session.build(server, env, buildx, plan))


def _saved(definition: Definition, saved: session.Saved) -> dict[str, Any]:
    return definition.saved(
        saved.tags,
        insecure_registry=saved.insecure_registry,
        several_builders=saved.several_builders,
    )


async def _resolve(
    buildx: Path, line: BakeLine, env: dict[str, str], stdin: BinaryIO | None
) -> Definition:
    printed = await capture(
        buildx,
        ["bake", "--print", "--progress=quiet", *line.whole],
        without_own_secrets(env, line.whole),
        what="read the bake file",
        stdin=stdin,
    )
    return Definition.parse(printed)
