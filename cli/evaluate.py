"""`vwl evaluate`: the scores of a run's stages, with every class."""

from typing import Annotated, Literal

import typer

from vwl.cli.options import Json, RunFolder, print_stage_table


def evaluate(
    run: RunFolder,
    stage: Annotated[Literal["cam", "crf", "walk", "segment"] | None, typer.Option(help="Show one stage in full.")] = None,
    split: Annotated[Literal["train", "val"], typer.Option(help="Split of --stage.")] = "val",
    curve: Annotated[bool, typer.Option("--curve", metavar="", help="Show mIoU at every threshold instead of the classes.")] = False,
    confusion: Annotated[
        bool, typer.Option("--confusion", metavar="", help="Show the confusion matrix (pixels) instead of the classes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show mIoU of each finished stage, or one stage with IoU, precision and recall of each class.

    \b
    Examples:
      vwl evaluate --run runs/voc
      vwl evaluate --run runs/voc --stage walk --split train --curve
    """
    from vwl.api.evaluation import evaluate as scores_of
    from vwl.api.run import open_run
    from vwl.cli.console import print_json, print_table

    result = open_run(run)
    if stage is None:
        print_stage_table(result, as_json)
        return
    score = scores_of(result, stage, split).as_json()
    title = f"{stage} on {split}, {score['images']} images: mIoU {score['miou']}, pixel accuracy {score['pixel_accuracy']}"
    if as_json:
        print_json(score)
    elif curve:
        print_table(title, ["threshold", "miou"], score["curve"] or [])
    elif confusion:
        names = result.index.classes
        rows = [[name, *counts] for name, counts in zip(names, score["confusion"], strict=True) if sum(counts)]
        print_table(f"{title}; rows truth, columns prediction", ["truth", *names], rows)
    else:
        shares = ("iou", "precision", "recall", "over_activation", "under_activation")
        rows = [[name, *(score[share].get(name) for share in shares)] for name in score["iou"]]
        print_table(title, ["class", *shares], rows)
