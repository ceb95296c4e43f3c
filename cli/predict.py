"""`vwl predict`: masks of any images, by a finished run's model, on the CPU and without a cluster."""

from pathlib import Path
from typing import Annotated

import typer

from vwl.cli.options import Json, RunFolder


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="Folder for NAME_mask.png and NAME_overlay.png.")] = Path("predictions"),
    crf: Annotated[bool, typer.Option("--crf/--no-crf", help="Refine with the dense CRF.")] = True,
    as_json: Json = False,
) -> None:
    """Segment images: writes an indexed mask and an overlay for each.

    \b
    Examples:
      vwl predict dog.jpg cat.jpg --run runs/voc
      vwl predict images/*.jpg --run demo/run --out masks --no-crf
    """
    from vwl.cli.console import print_table
    from vwl.workflow.predict import predict_files
    from vwl.workflow.run_folder import Run

    lines = [vars(prediction) for prediction in predict_files(Run.open(run), images, out, crf)]
    print_table(f"masks in {out}", ["image", "classes", "mask", "overlay"], [list(line.values()) for line in lines], as_json)
