"""`vwl predict`: masks of any images, by a finished run's model, on the CPU and without a cluster."""

import signal
import threading
from typing import Annotated

import typer

from vwl.cli.options import Json, RunFolder
from vwl.errors import VwlError


def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Image files.")],
    run: RunFolder,
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Folder for NAME_mask.png and NAME_overlay.png.")] = "predictions",
    crf: Annotated[bool, typer.Option("--crf/--no-crf", metavar="", help="Refine with the dense CRF.")] = True,
    as_json: Json = False,
) -> None:
    """Segment images: writes an indexed mask and an overlay for each. Images that cannot be read are listed; exit code 1 tells.

    \b
    Examples:
      vwl predict dog.jpg cat.jpg --run runs/voc
      vwl predict images/*.jpg --run demo/run --out masks --no-crf
    """
    from vwl.cli.console import print_json, print_table, say
    from vwl.workflow.predict import predict_files
    from vwl.workflow.run_folder import Run

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing has to be saved, and C code would let a handler wait
    predictions = predict_files(Run.open(run), images, out, crf)
    if as_json:
        print_json([vars(prediction) for prediction in predictions])
    else:
        rows = [[p.image, ", ".join(p.classes) or ("" if p.problem else "only background"), p.mask, p.overlay] for p in predictions]
        print_table(f"masks in {out}", ["image", "classes", "mask", "overlay"], rows)
    problems = [prediction.problem for prediction in predictions if prediction.problem is not None]
    if problems:
        for problem in problems if len(problems) > 1 else []:
            say(problem)
        more = "; the others are listed above" if len(problems) > 1 else ""
        raise VwlError(f"{len(problems)} of {len(predictions)} images could not be segmented: {problems[0]}{more}")
