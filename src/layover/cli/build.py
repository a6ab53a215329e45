"""`layover build`: buildx's build, on a builder of the server's, saved when asked to."""

from dataclasses import dataclass, field

import click

from layover.cli.buildx import dockerfiles, session
from layover.cli.buildx.arguments import BUILD_SWITCHES, CommandLine, asked_call, scan
from layover.cli.buildx.builders import needed
from layover.cli.buildx.command import (
    OWN_SWITCHES,
    BuildxCommand,
    OwnFlags,
    existing_folder,
    show_help,
    without_save,
)
from layover.cli.buildx.locate import find_buildx
from layover.cli.buildx.outputs import Output, asked_outputs, with_saved
from layover.cli.buildx.process import spool_stdin
from layover.cli.buildx.workspace import Workspace
from layover.cli.errors import WrongUsage
from layover.cli.options import environment, run
from layover.rpc.depot.cli.v1 import build_pb as wire

_ALIASES = {"-t": "--tag", "-o": "--output", "-f": "--file", "-q": "--quiet"}


@dataclass(frozen=True)
class BuildLine:
    """A `build` command line, taken apart."""

    own: OwnFlags
    tags: list[str]
    outputs: list[Output]
    push: bool
    load: bool
    platforms: list[str]
    context: str
    file: str
    # What buildx is given: everything of the user's, and that without tags and outputs.
    whole: list[str] = field(repr=False)
    stripped: list[str] = field(repr=False)

    @classmethod
    def parse(cls, arguments: list[str]) -> "BuildLine":
        """Raises WrongUsage."""
        line = CommandLine(scan(arguments, BUILD_SWITCHES, OWN_SWITCHES), _ALIASES)
        own = OwnFlags.take(line)
        if call := asked_call(line, "--call", "--print"):
            own = without_save(own, call)
        whole = line.rest
        push, load = line.take_switch("--push"), line.take_switch("--load")
        specifications = line.take("--output")
        tags = line.take("--tag")
        positions = line.positions
        if len(positions) != 1:
            raise WrongUsage(
                "build takes one context: a folder, a URL, or - for standard input"
                if not positions
                else f"build takes one context, not {len(positions)}: {' '.join(positions)}"
            )
        return cls(
            own=own,
            tags=tags,
            outputs=asked_outputs(specifications, push=push, load=load),
            push=push,
            load=load,
            platforms=line.values("--platform"),
            context=positions[0],
            file=line.last("--file"),
            whole=whole,
            stripped=line.rest,
        )

    @property
    def reads_stdin(self) -> bool:
        return self.context == "-" or self.file == "-"

    def options(self) -> wire.BuildOptions:
        """The build as the server records it."""
        return wire.BuildOptions(
            command=wire.Command.BUILD,
            tags=self.tags,
            outputs=[
                wire.BuildOutput(kind=o.kind, attributes=dict(o.attributes)) for o in self.outputs
            ],
            push=self.push,
            load=self.load,
            save=self.own.save,
            save_tags=self.own.save_tags,
        )

    def buildx_arguments(self, _: Workspace | None, saved: session.Saved | None) -> list[str]:
        """What buildx is to do. Raises WrongUsage where saving and the outputs are at odds."""
        if saved is None:
            return self.whole
        outputs = with_saved(
            self.outputs,
            user_names=self.tags,
            saved_names=saved.tags,
            insecure_registry=saved.insecure_registry,
            several_builders=saved.several_builders,
        )
        return [*(f"--output={output}" for output in outputs), *self.stripped]


@click.command(
    "build",
    cls=BuildxCommand,
    epilog="Example: layover build --save --metadata-file=build.json -t app:latest .",
)
@click.argument("arguments", nargs=-1, metavar="PATH | URL | -")
@click.pass_context
def command(ctx: click.Context, arguments: tuple[str, ...]) -> int:
    """Build an image on a remote builder, and save it.

    Takes every flag of `docker buildx build`. With --save the image is kept in the registry
    under the build's ID, to be pulled from anywhere; --load, --push and --output work beside
    it. No Docker daemon is needed, but for --load.
    """
    show_help(ctx, arguments, BUILD_SWITCHES)
    line = BuildLine.parse(list(arguments))
    line.buildx_arguments(None, session.TRIAL if line.own.save else None)
    env = environment()
    buildx = find_buildx(env)
    server, project_id = line.own.find(existing_folder(line.context))
    stdin = spool_stdin() if line.reads_stdin else None
    plan = session.Plan(
        command="build",
        options=[line.options()],
        platforms=needed(line.own.build_platform, line.platforms),
        project_id=project_id,
        arguments=line.buildx_arguments,
        dockerfiles=dockerfiles.of_build(line.context, line.file, stdin),
        stdin=stdin,
        metadata_file=line.own.metadata_file,
        retention=line.own.retention,
    )
    return run(session.build(server, env, buildx, plan))
