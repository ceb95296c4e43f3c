"""The command `vwl`: the table of its commands, and the handling of errors and interrupts.

A command's module is imported when the command is called, so that `vwl --help` and `vwl recipe list` are fast although training needs
torch and Ray. A new command is one line in `COMMANDS`.
"""

import signal
import sys
import warnings
from importlib import import_module, metadata
from inspect import signature
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from vwl.cli.options import WithRun, command_line
from vwl.cli.output import guarded_output, printable, shown_log
from vwl.errors import Interrupted, VwlError, interrupts_in_c


class Command(NamedTuple):
    """A command: the module and attribute of its function or `typer.Typer`, and its line in `vwl --help`."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "try": Command("vwl.cli.try_image", "try_image", "Show maps and mask of any image at once, without training."),
    "run": Command("vwl.cli.run", "run", "Run all stages in order, skipping those that are done."),
    "demo": Command("vwl.cli.run", "demo", "Run the whole method on generated scenes, in minutes."),
    "reproduce": Command("vwl.cli.reproduce", "reproduce", "Reproduce the paper's results on VOC or COCO, compared stage by stage."),
    "data": Command("vwl.cli.data", "app", "Make, show and check index tables of data sets."),
    "recipe": Command("vwl.cli.recipe", "app", "List and show recipes and their keys."),
    "train": Command("vwl.cli.train", "app", "Train one network: classifier, irnet, psa, segmenter."),
    "infer": Command("vwl.cli.infer", "app", "Run one inference stage: cam, crf, irnet-labels, psa-labels, walk, masks, segment."),
    "seeds": Command("vwl.cli.seeds", "app", "Import score maps of other methods, or export the maps of a run."),
    "tune": Command("vwl.cli.tune", "app", "Compare recipes over seeds: the paper's tables and your own, on Ray Tune."),
    "evaluate": Command("vwl.cli.evaluate", "evaluate", "Score the stages of a run against ground truth."),
    "review": Command("vwl.cli.review", "review", "Rank the images of a run whose masks are most likely wrong, to correct them."),
    "report": Command("vwl.cli.report", "report", "Write a run or search as one HTML file, to be looked at in a browser."),
    "figures": Command("vwl.cli.figures", "figures", "Draw the paper's figures from runs: maps, segmentations, words, similarity."),
    "predict": Command("vwl.cli.predict", "predict", "Segment images with the model of a run."),
    "export": Command("vwl.cli.export", "app", "Write the result of a run in other forms: its model as one file."),
    "voc-submission": Command("vwl.cli.voc_submission", "voc_submission", "Pack masks for the PASCAL VOC server."),
    "status": Command("vwl.cli.status", "status", "Show how far the stages of a run are."),
    "submit": Command("vwl.cli.submit", "submit", "Run any command on a Ray cluster, as a job."),
    "jobs": Command("vwl.cli.jobs", "app", "List, show, follow, stop and resume submitted commands."),
    "plan": Command("vwl.cli.plan", "plan", "Estimate hours and disk of each stage of a run, and whether it fits."),
    "deploy": Command("vwl.cli.deploy", "app", "Write cluster files: KubeRay manifests, ray up files, a Slurm script."),
    "doctor": Command("vwl.cli.doctor", "doctor", "Check whether this machine and a cluster can run vwl."),
}


class Commands(TyperGroup):
    """The commands of the table, imported when called.

    A `VwlError` ends in one line and exit code 1, a wrong option in one line and 2, an interrupt in 130.
    """

    def __init__(self, **settings: Any) -> None:
        placeholders = {name: TyperCommand(name, help=command.summary) for name, command in COMMANDS.items()}
        super().__init__(**{**settings, "commands": placeholders})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the imported command and its arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and _imported(COMMANDS[str(name)]), rest

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Raises:
            typer.Exit: with 1 after a `VwlError`, with 2 after a wrong option, with 130 after an interrupt.
            VwlError: with --debug.
        """
        try:
            with interrupts_in_c(), shown_log():
                return super().invoke(ctx)
        except VwlError as error:
            if ctx.params["debug"]:
                raise
            print(f"error: {printable(str(error))}", file=sys.stderr)
            raise typer.Exit(1) from None
        except TyperException as error:
            if error.exit_code != 2 or type(error).__name__ == "NoArgsIsHelpError" or ctx.params["debug"]:
                raise
            command = command_line(getattr(error, "ctx", None) or ctx)
            print(f"error: {printable(_usage(error))}; see {command} --help", file=sys.stderr)
            raise typer.Exit(2) from None
        except Interrupted as stop:
            print(f"{stop}; finished work is saved; run the same command to resume", file=sys.stderr)
            raise typer.Exit(130) from None
        except KeyboardInterrupt as stop:
            print(str(stop) or "stopped", file=sys.stderr)
            raise typer.Exit(130) from None


def _usage(error: TyperException) -> str:
    """Return what is wrong with a command line, as other errors begin and end."""
    text = error.format_message().removeprefix("Invalid value: ").rstrip(".")
    for found, written in (("Value error, ", ""), (": Input should", ": it should")):  # pydantic's words
        text = text.replace(found, written)
    return text[:1].lower() + text[1:]


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # bugs keep their plain traceback
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vwl {metadata.version('vwl')}")
        raise typer.Exit


@app.callback()
def vwl(
    version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Show the traceback of an error.")] = False,
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
    warnings.filterwarnings("ignore", module="PIL")  # on odd metadata of images that it reads nevertheless
    with guarded_output():
        app(prog_name="vwl")


def _imported(command: Command) -> Any:
    target = getattr(import_module(command.module), command.attribute)
    if isinstance(target, typer.Typer):
        return typer.main.get_group(target)
    single = typer.Typer(add_completion=False)
    single.command(cls=WithRun if "run" in signature(target).parameters else TyperCommand)(target)
    return typer.main.get_command(single)


if __name__ == "__main__":
    main()
