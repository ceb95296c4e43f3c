"""`vwl predict`: masks of any images, by the model of a finished run or of a model file, without a cluster."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vwl.cli.options import Json
from vwl.errors import Interrupted, VwlError

if TYPE_CHECKING:
    from vwl.workflow.predict import PredictedFile

_LISTED = 30
"""Images that the table lists; of more it shows the classes."""
_PROBLEMS = 20
"""Problems that are listed; the record has all."""


def predict(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Images, folders, patterns, videos; - reads a list of files from stdin.")
    ],
    run: Annotated[str | None, typer.Option("--run", metavar="FOLDER", help="Run folder: path or URI (s3://...).")] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="FILE", help="Model file (vwl export model) or OWNER/NAME on Hugging Face.")
    ] = None,
    out: Annotated[
        str, typer.Option(metavar="FOLDER", help="Folder for NAME_mask.png, NAME_overlay.png and predictions.jsonl.")
    ] = "predictions",
    crf: Annotated[
        bool | None, typer.Option("--crf/--no-crf", metavar="", help="Refine with the dense CRF (default: as the run did).")
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay/--no-overlay", metavar="", help="Write the images with their masks on them.")] = True,
    scores: Annotated[
        bool, typer.Option("--scores", metavar="", help="Write soft scores too: NAME_scores.parquet, float16 at stride 4.")
    ] = False,
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="CSV file with the columns image and labels; masks are kept to these classes.")
    ] = None,
    separator: Annotated[
        Literal["semicolon", "bar", "comma", "blank"] | None,
        typer.Option(metavar="NAME", help="What separates labels: semicolon, bar, comma or blank (default: detected)."),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive/--no-recursive", metavar="", help="Search the folders below a folder, too.")
    ] = True,
    every: Annotated[int, typer.Option(metavar="N", help="Of a video, segment each N-th frame.", min=1)] = 1,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto (a GPU where there is one), cpu or cuda.")] = "auto",
    processes: Annotated[int | None, typer.Option(metavar="N", help="Processes on CPUs (default: the physical CPUs).", min=1)] = None,
    batch: Annotated[
        int, typer.Option(metavar="N", help="Images of one size in the network at once; 1 gives the bits of the run.", min=1)
    ] = 1,
    as_json: Json = False,
) -> None:
    """Segment images: writes an indexed mask and an overlay for each. Images that cannot be read are listed; exit code 1 tells.

    The same command goes on where it was stopped: what is written and intact is kept.

    \b
    Examples:
      vwl predict dog.jpg cat.jpg --run runs/voc
      vwl predict images --model dogs.safetensors --out masks --no-crf --scores
    """
    from vwl.cli.console import print_json, progress_view, say

    if (run is None) == (model is None):
        raise typer.BadParameter("name the run with --run FOLDER, or a model file with --model FILE, and not both")

    from vwl.model_file.models import SegmentationModel
    from vwl.workflow.model_export import load_model, model_of_run
    from vwl.workflow.predict import predict_files
    from vwl.workflow.run_folder import Run

    where = None if device == "auto" else device
    loaded = load_model(model, where) if model is not None else model_of_run(Run.open(str(run)), device=where)
    if not isinstance(loaded, SegmentationModel):
        raise VwlError(f"{model} is a classifier, which gives no masks; export the segmentation model with: vwl export model --run RUN")
    named = _with_list(images)
    try:
        with progress_view() as view:
            predictions = predict_files(
                loaded,
                named,
                out,
                crf,
                overlay=overlay,
                scores=scores,
                labels=labels,
                separator=separator,
                recursive=recursive,
                every=every,
                batch=batch,
                processes=processes,
                on_progress=view.update,
                on_message=say,
            )
    except KeyboardInterrupt:
        raise Interrupted("predict stopped") from None
    if as_json:
        print_json([_as_json(prediction) for prediction in predictions])
    else:
        _print(predictions, out)
    _end_with_problems(predictions, out)


def _with_list(images: Sequence[str]) -> list[str | Path]:
    """Return what is named, with the files listed on stdin in place of `-`."""
    from vwl.model_file.sources import paths_in_list

    named: list[str | Path] = []
    for image in images:
        listed = paths_in_list(sys.stdin.buffer.read()) if image == "-" else [image]
        if not listed:
            raise VwlError("the list on stdin names no files; write one a line, e.g. find images -name '*.jpg' | vwl predict - ...")
        named.extend(listed)
    return named


def _as_json(prediction: "PredictedFile") -> dict[str, Any]:
    return {**asdict(prediction), "areas": [area.model_dump() for area in prediction.areas]}


def _print(predictions: Sequence["PredictedFile"], out: str) -> None:
    from vwl.cli.console import print_table

    if len(predictions) <= _LISTED:
        rows = [[p.image, ", ".join(p.classes) or ("failed" if p.problem else "only background"), p.mask, p.overlay] for p in predictions]
        print_table(f"masks in {out}", ["image", "classes", "mask", "overlay"], rows)
        return
    areas = [area for prediction in predictions for area in prediction.areas]
    shares: dict[str, float] = {}
    for area in areas:
        shares[area.name] = shares.get(area.name, 0.0) + area.share
    done = sum(prediction.problem is None for prediction in predictions)
    images = Counter(area.name for area in areas)
    table: list[list[Any]] = [[name, count, shares[name] / done] for name, count in images.most_common()]
    print_table(f"{done:,} masks in {out}; each image in {out}/predictions.jsonl", ["class", "images", "mean_share"], table)


def _end_with_problems(predictions: Sequence["PredictedFile"], out: str) -> None:
    """If images could not be segmented, list them and end with an error."""
    from vwl.cli.console import say

    problems = [prediction.problem for prediction in predictions if prediction.problem is not None]
    if not problems:
        return
    for problem in problems[:_PROBLEMS] if len(problems) > 1 else []:
        say(problem)
    listed = "; all are listed above" if len(problems) <= _PROBLEMS else f"; all are in {out}/predictions.jsonl"
    more = listed if len(problems) > 1 else ""
    raise VwlError(f"{len(problems)} of {len(predictions)} images could not be segmented: {problems[0]}{more}")
