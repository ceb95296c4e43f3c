"""The command `vwl`: its table of commands, and what happens to errors and interrupts.

A command's module is imported when the command is called, so that `vwl --help` and `vwl recipe list` answer at once though
training needs torch and Ray. A new command is one line in `COMMANDS`.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from vwl.errors import Interrupted, VwlError


class Place(NamedTuple):
    """Where a command is found: a `typer.Typer` or a function in a module, and its line in `vwl --help`."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "run": Place("vwl.cli.run", "run", "Do all stages in order, skipping what is done."),
    "demo": Place("vwl.cli.run", "demo", "The whole method on generated scenes, in minutes."),
    "data": Place("vwl.cli.data", "app", "Make index tables of data sets, look at them and check them."),
    "recipe": Place("vwl.cli.recipe", "app", "List and show recipes and their keys."),
    "train": Place("vwl.cli.train", "app", "Train one network: classifier, irnet, segmenter."),
    "infer": Place("vwl.cli.infer", "app", "Do one inference stage: cam, crf, irnet-labels, walk, masks, segment."),
    "tune": Place("vwl.cli.tune", "app", "Compare recipes over seeds: the paper's tables and your own, on Ray Tune."),
    "evaluate": Place("vwl.cli.evaluate", "evaluate", "Score the stages of a run against ground truth."),
    "predict": Place("vwl.cli.predict", "predict", "Segment photographs with a run's model, on the CPU."),
    "export": Place("vwl.cli.export", "export", "Pack masks for the PASCAL VOC server."),
    "status": Place("vwl.cli.status", "status", "Show how far a run is."),
    "submit": Place("vwl.cli.submit", "submit", "Run any command on a Ray cluster, as a job."),
    "jobs": Place("vwl.cli.jobs", "app", "List, show, follow, stop and resume submitted commands."),
    "plan": Place("vwl.cli.plan", "plan", "Show what a run will take: hours and disk of each stage, and whether it fits."),
    "deploy": Place("vwl.cli.deploy", "app", "Write what starts a cluster: KubeRay manifests, ray up files, a Slurm script."),
    "doctor": Place("vwl.cli.doctor", "doctor", "Look whether this machine and a cluster can do the work."),
}


class Commands(TyperGroup):
    """The commands of the table, imported when called; users' mistakes end in one line and exit code 1, interrupts in 130."""

    def __init__(self, **settings: Any) -> None:
        placeholders = {name: TyperCommand(name, help=place.summary) for name, place in COMMANDS.items()}
        super().__init__(**{**settings, "commands": placeholders})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the imported command and the arguments that are left for it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and _imported(COMMANDS[str(name)]), rest

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Raises:
            typer.Exit: with 1 after a `VwlError`, with 130 after an interrupt.
            VwlError: with --debug.
        """
        try:
            with _interrupts_in_c():
                return super().invoke(ctx)
        except VwlError as error:
            if ctx.params["debug"]:
                raise
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from None
        except (Interrupted, KeyboardInterrupt) as stop:
            typer.echo(f"{str(stop) or 'stopped'}; what was done is saved, and the same command goes on from there", err=True)
            raise typer.Exit(130) from None


@contextmanager
def _interrupts_in_c() -> Iterator[None]:
    """Turn the SystemError of C code during which Ctrl-C was pressed (numba's, for one) back into the interrupt."""
    try:
        yield
    except SystemError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, KeyboardInterrupt):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a bug keeps its plain traceback
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vwl {metadata.version('vwl')}")
        raise typer.Exit


@app.callback()
def vwl(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Semantic segmentation from image labels: visual words, hybrid pooling, IRNet, DeepLabV2.

    \b
    Examples:
      vwl recipe list
      vwl data prepare scenes --folder demo/scenes --out demo/index.parquet
    """


def main() -> None:
    """Run the command line; a request to terminate is treated as Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app(prog_name="vwl")


def _imported(place: Place) -> Any:
    found = getattr(import_module(place.module), place.attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_group(found)
    single = typer.Typer(add_completion=False)
    single.command()(found)
    return typer.main.get_command(single)


if __name__ == "__main__":
    main()
