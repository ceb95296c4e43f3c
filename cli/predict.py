"""`vwl predict`: masks of any images, by the model of a finished run or of a model file, without a cluster."""

import signal
import threading
from typing import Annotated

import typer

from vwl.cli.options import Json
from vwl.errors import VwlError


def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Image files.")],
    run: Annotated[str | None, typer.Option("--run", metavar="FOLDER", help="Run folder: path or URI (s3://...).")] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="FILE", help="Model file (vwl export model) or OWNER/NAME on Hugging Face.")
    ] = None,
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Folder for NAME_mask.png and NAME_overlay.png.")] = "predictions",
    crf: Annotated[
        bool | None, typer.Option("--crf/--no-crf", metavar="", help="Refine with the dense CRF (default: as the run did).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Segment images: writes an indexed mask and an overlay for each. Images that cannot be read are listed; exit code 1 tells.

    \b
    Examples:
      vwl predict dog.jpg cat.jpg --run runs/voc
      vwl predict images/*.jpg --model dogs.safetensors --out masks --no-crf
    """
    from vwl.cli.console import print_json, print_table, say

    if (run is None) == (model is None):
        raise typer.BadParameter("name the run with --run FOLDER, or a model file with --model FILE, and not both")

    from vwl.model_file.models import SegmentationModel
    from vwl.workflow.model_export import load_model, model_of_run
    from vwl.workflow.predict import predict_files
    from vwl.workflow.run_folder import Run

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing has to be saved, and C code would let a handler wait
    loaded = load_model(model) if model is not None else model_of_run(Run.open(str(run)))
    if not isinstance(loaded, SegmentationModel):
        raise VwlError(f"{model} is a classifier, which gives no masks; export the segmentation model with: vwl export model --run RUN")
    predictions = predict_files(loaded, images, out, crf)
    if as_json:
        print_json([vars(prediction) for prediction in predictions])
    else:
        rows = [[p.image, ", ".join(p.classes) or ("failed" if p.problem else "only background"), p.mask, p.overlay] for p in predictions]
        print_table(f"masks in {out}", ["image", "classes", "mask", "overlay"], rows)
    problems = [prediction.problem for prediction in predictions if prediction.problem is not None]
    if problems:
        for problem in problems if len(problems) > 1 else []:
            say(problem)
        more = "; all are listed above" if len(problems) > 1 else ""
        raise VwlError(f"{len(problems)} of {len(predictions)} images could not be segmented: {problems[0]}{more}")
