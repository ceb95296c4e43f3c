"""`vwl figures`: the figures of the paper, made from runs."""

from typing import Annotated, Literal

import typer

from vwl.cli.options import Json
from vwl.errors import VwlError

Kind = Literal["maps", "segmentations", "words", "similarity"]


def figures(
    kind: Annotated[
        Kind, typer.Argument(help="maps (Figs. 6, 9, 12), segmentations (Figs. 7, 8), words (Fig. 10) or similarity (Fig. 11).")
    ],
    run_folders: Annotated[
        list[str], typer.Option("--run", metavar="FOLDER", help="Run folder: path or URI. Repeatable: a column for each.")
    ],
    label: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="Title of each run (default: its folder's name).")] = None,
    stage: Annotated[
        Literal["cam", "crf", "walk", "segment"] | None, typer.Option(help="Stage that is shown (default: cam for maps, else segment).")
    ] = None,
    image: Annotated[list[str] | None, typer.Option(metavar="ID", help="Image id. Repeatable (default: some, spread over val).")] = None,
    word: Annotated[list[int] | None, typer.Option(metavar="N", help="Word. Repeatable (default: those that tell most).")] = None,
    number: Annotated[int, typer.Option(metavar="N", help="Images or words, where none is named.", min=1, max=100)] = 8,
    out: Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder to write to (default: figures/ in the first run).")] = None,
    as_json: Json = False,
) -> None:
    """Draw a figure of the paper from runs on the same data set, as PNG and SVG.

    \b
    Examples:
      vwl figures maps --run runs/gap --run runs/hp --stage walk
      vwl figures similarity --run runs/vwe --run runs/vwl-l --out figures
    """
    from vwl.cli.console import print_table
    from vwl.report.figures.codebook import codebook_similarity, draw_similarity, word_regions
    from vwl.report.figures.comparison import comparison
    from vwl.report.figures.grid import KINDS, draw_grid, render
    from vwl.storage.folder import Folder
    from vwl.workflow.run_folder import Run

    labels = label or [Folder(one).path.rstrip("/").rpartition("/")[2] for one in run_folders]
    if len(labels) != len(run_folders):
        raise VwlError(f"there are {len(run_folders)} --run and {len(labels)} --label; give one label for each run, or none")
    if kind == "words" and len(run_folders) > 1:
        raise VwlError(f"words shows one run, and there are {len(run_folders)}; call it for each --run with its own --out")
    runs = [Run.open(one) for one in run_folders]
    if kind == "similarity":
        figure = draw_similarity([codebook_similarity(one) for one in runs], labels)
    elif kind == "words":
        figure = draw_grid(word_regions(runs[0], word or (), number))
    else:
        shown = stage or ("cam" if kind == "maps" else "segment")
        figure = draw_grid(comparison(runs, labels, shown, image or (), number))
    target = runs[0].folder / "figures" if out is None else Folder(out)
    for form in KINDS:
        target.write(f"{kind}.{form}", render(figure, form))
    print_table("figures", ["figure"], [[target.uri_of(f"{kind}.{form}")] for form in KINDS], as_json)
