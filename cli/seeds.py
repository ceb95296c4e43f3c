"""`vwl seeds`: score maps of other methods as the maps of a run, and the other way round."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vwl.cli.options import Data, Json, Override, RecipeName, RunFolder, WithRun, end_with_failures, plan_start
from vwl.errors import VwlError, did_you_mean

if TYPE_CHECKING:
    from vwl.workflow.seeds import ImportSummary

app = typer.Typer(no_args_is_help=True, help="Import score maps of other methods into a run, and export a run's maps for their code.")
_FORMATS = "auto, irn, puzzle, psa, psa-crf, clip-es, toco, weaktr, excel, logits, array or png"


@app.command("import", cls=WithRun)
def import_(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of the files, named after the images: path or URI.")],
    run: RunFolder,
    seed_format: Annotated[str, typer.Option("--format", metavar="NAME", help=f"Format of the files: {_FORMATS}.")] = "auto",
    background: Annotated[
        Literal["fixed", "one-minus-max", "own"] | None,
        typer.Option(
            metavar="NAME",
            help="fixed: a constant, chosen as for own maps. one-minus-max: 1 minus the largest score. own: the files' map of it. "
            "Default: own if the first file has one, else fixed.",
        ),
    ] = None,
    data: Data = None,
    recipe: RecipeName = None,
    override: Override = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", metavar="", help="Replace maps that the run has.")] = False,
    as_json: Json = False,
) -> None:
    """Make score maps of another method the result of a run's cam stage; its classifier is then not needed.

    Formats are told apart by the keys of the first file. Files are read without running code that they hold.

    \b
    Examples:
      vwl seeds import irn/result/cam --run runs/voc
      vwl seeds import cams --run runs/clip --data voc.parquet --recipe small
    """
    from vwl.cli.console import print_json, progress_view, say
    from vwl.maps.seed_formats import FORMATS
    from vwl.storage.folder import Folder
    from vwl.storage.lock import exclusive_lock
    from vwl.workflow.seeds import import_seeds

    if seed_format not in {"auto", *FORMATS}:
        raise VwlError(f"--format {seed_format} is none of {_FORMATS}{did_you_mean(seed_format, FORMATS)}")
    opened = plan_start(run, data, recipe, override).bind()
    with exclusive_lock(opened.folder, "cam"), progress_view() as view:
        wanted = None if seed_format == "auto" else seed_format
        summary = import_seeds(opened, Folder(folder), wanted, background, view.update, say, overwrite)
    if as_json:
        print_json(asdict(summary))
    else:
        _print(summary)
    end_with_failures(opened, ["cam"])


@app.command("export", cls=WithRun)
def export(
    run: RunFolder,
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Folder for the files: path or URI.")],
    stage: Annotated[Literal["cam", "walk"], typer.Option(help="Stage whose maps are written.")] = "cam",
) -> None:
    """Write a run's score maps as IRN's files, one .npy per image with keys, cam and high_res.

    \b
    Examples:
      vwl seeds export --run runs/voc --out irn/result/cam
      vwl seeds export --run runs/voc --stage walk --out walked
    """
    from vwl.cli.console import progress_view, say
    from vwl.storage.folder import Folder
    from vwl.workflow.run_folder import Run
    from vwl.workflow.seeds import export_seeds

    with progress_view() as view:
        number = export_seeds(Run.open(run), stage, Folder(out), view.update)
    say(f"wrote the maps of {number:,} images to {out}")


def _print(summary: "ImportSummary") -> None:
    """Print what was imported, and list what is missing, surplus or failed."""
    typer.echo(f"imported: {summary.imported:,} images (format {summary.format}, background {summary.background})")
    _listed("without a file, left out by later stages", summary.missing)
    _listed("files of no image of this run, not read", summary.surplus)
    _listed("failed", [f"{image_id}: {reason}" for image_id, reason in summary.failed.items()], separator="\n  ")
    if summary.left_out:
        typer.echo(f"maps of classes that are not labels of their image, left out: {summary.left_out:,}, e.g. {summary.example}")


def _listed(what: str, names: list[str], separator: str = ", ", most: int = 10) -> None:
    if names:
        more = f"{separator}and {len(names) - most:,} more" if len(names) > most else ""
        start = separator if separator.startswith("\n") else " "
        typer.echo(f"{what}: {len(names):,}:{start}{separator.join(names[:most])}{more}")
