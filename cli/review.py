"""`vwl review`: the images of a run whose masks are most likely wrong, for people to correct."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vwl.cli.options import Json, RunFolder

if TYPE_CHECKING:
    from vwl.workflow.review import ReviewedImage
    from vwl.workflow.run_folder import Run


def review(
    run: RunFolder,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="Number of images to show.")] = 50,
    by: Annotated[
        Literal["disagreement", "entropy"],
        typer.Option(help="Rank by how much the stages disagree, or by the entropy of the walk's scores."),
    ] = "disagreement",
    split: Annotated[Literal["train", "aug", "train_aug", "val", "test", "all"], typer.Option(help="Images to rank.")] = "all",
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write the queue with pictures as one HTML file.")] = None,
    out: Annotated[str | None, typer.Option(metavar="FOLDER", help="Write the masks into a new folder, to be corrected.")] = None,
    stage: Annotated[Literal["walk", "segment", "crf"], typer.Option(help="Stage whose masks --out writes.")] = "walk",
    as_json: Json = False,
) -> None:
    """Rank the images of a run by how likely their masks are wrong, without ground truth.

    Compares the masks of CAM + CRF, the walk and the segmentation model. Corrected masks come back with vwl data add-masks.

    \b
    Examples:
      vwl review --run runs/voc --top 50 --html review.html
      vwl review --run runs/voc --top 20 --split train_aug --out to-correct --json
    """
    from vwl.cli.console import print_json, print_table, progress_bar, say
    from vwl.report.review_page import review_page
    from vwl.storage.folder import Folder, split_path
    from vwl.workflow.pre_annotations import write_pre_annotations
    from vwl.workflow.review import of_split, ranking_quality
    from vwl.workflow.review import review as ranked
    from vwl.workflow.run_folder import Run

    opened = Run.open(run)
    with progress_bar("comparing masks") as progress:
        queue = of_split(ranked(opened, by, progress), opened.index, split)
    shown, quality = queue.images[:top], ranking_quality(queue.images)
    if out is not None:
        write_pre_annotations(opened, shown, Folder(out), stage)
    if html is not None:
        folder, name = split_path(html)
        with progress_bar("drawing") as progress:
            folder.write(name, review_page(opened, queue, shown, progress))
    lines = [_line(opened, image) for image in shown]
    if as_json:
        print_json(
            {"images": lines, "ranking": [asdict(line) for line in quality], "ranked": len(queue.images), "not_ranked": queue.not_ranked}
        )
    else:
        title = f"{opened.folder} · the first {len(shown)} of {len(queue.images):,} images, by {by} of {', '.join(queue.stages)}"
        print_table(title, list(lines[0]), [list(line.values()) for line in lines])
        if quality:
            columns = ["stage", "images", "top", "iou_of_top", "iou_of_all", "worst_tenth_found"]
            print_table(
                "the first tenth of the queue against ground truth, percent", columns, [list(asdict(line).values()) for line in quality]
            )
    if queue.not_ranked:
        say(f"{queue.not_ranked:,} images have masks of fewer than two stages and are not ranked (vwl infer segment --split makes masks)")
    if html is not None:
        say(f"page: {html}")
    if out is not None:
        say(f"{len(shown)} masks written to {out}; correct them, then: vwl data add-masks {run} {out} --out corrected.parquet")


def _line(run: "Run", image: "ReviewedImage") -> dict[str, Any]:
    truth = {f"iou_{stage}": round(100 * miou, 2) for stage, miou in image.mious.items() if stage in {"walk", "segment"}}
    return {
        "rank": image.rank,
        "image": image.row.image_id,
        "split": image.row.split,
        "labels": ", ".join(run.index.classes[label] for label in image.row.labels),
        "disagreement": round(image.disagreement, 4),
        "entropy": None if image.entropy is None else round(image.entropy, 4),
        "iou_walk": truth.get("iou_walk"),
        "iou_segment": truth.get("iou_segment"),
        "reason": image.reason,
    }
