"""`vwl export coco|yolo-seg|label-studio|cvat|labelme|voc|fiftyone`: masks in the formats of annotation tools."""

from collections.abc import Callable
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vwl.cli.options import Json

if TYPE_CHECKING:
    from vwl.exporters.source import MaskSource

_SUMMARIES = {
    "coco": "Write masks as COCO's instances JSON: annotations.json.",
    "yolo-seg": "Write masks as YOLO segmentation labels of Ultralytics: labels/, data.yaml.",
    "label-studio": "Write masks as predictions for Label Studio: tasks.json, labeling_config.xml.",
    "cvat": "Write masks as CVAT for images 1.1: annotations.xml.",
    "labelme": "Write masks as labelme's JSON files, one for each image.",
    "voc": "Write masks in PASCAL VOC's folders: SegmentationClass/, ImageSets/, labelmap.txt.",
    "fiftyone": "Write masks as FiftyOne's ImageSegmentationDirectory: labels/, mask_targets.json.",
}
_OUTLINES = ("geometry", "tolerance")
_WITHOUT = {"yolo-seg": ("geometry", "image_prefix"), "voc": (*_OUTLINES, "image_prefix"), "fiftyone": (*_OUTLINES, "image_prefix")}
"""Options that a format does not have; of the others only Label Studio has a prefix."""


def _export(
    format_name: str,
    run: Annotated[str | None, typer.Option("--run", metavar="FOLDER", help="Run folder: path or URI (s3://...).")] = None,
    stage: Annotated[
        str | None, typer.Option("--stage", metavar="STAGE", help="Stage of the run: segment (default), masks, crf or irnet-labels.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Only this split of the run's data set (default: all that have masks).")
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option("--masks", metavar="FOLDER", help="Instead of --run: folder of masks, of vwl predict or other indexed PNG."),
    ] = None,
    images: Annotated[
        str | None, typer.Option("--images", metavar="FOLDER", help="Folder of the images of --masks (default: NAME.jpg is assumed).")
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="FILE", help="Class names of --masks, one a line (default: its classes.json).")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="FILE", help="Model file with the class names of --masks.")] = None,
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Folder to write to.")] = "annotations",
    geometry: Annotated[
        Literal["polygon", "rle"], typer.Option(help="Outlines that people can drag, or exact pixels. Regions with holes are pixels.")
    ] = "polygon",
    min_area: Annotated[int, typer.Option(metavar="PIXELS", help="Leave out regions, and fill holes, of fewer pixels.", min=0)] = 0,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="PIXELS",
            help="Simplify outlines; 0 is exact (default: 1, or less where it would change 1 % of a region).",
            min=0,
            max=100,
        ),
    ] = None,
    copy_images: Annotated[bool, typer.Option("--copy-images", metavar="", help="Copy the images beside the annotations.")] = False,
    image_prefix: Annotated[
        str, typer.Option(metavar="TEXT", help="What stands before an image's path in Label Studio.")
    ] = "/data/local-files/?d=",
    as_json: Json = False,
) -> None:
    from dataclasses import asdict

    from vwl.cli.console import print_json, progress_view, say
    from vwl.engine.base import Progress
    from vwl.exporters.export import export_masks
    from vwl.exporters.target import Options
    from vwl.storage.folder import Folder

    source = _source(run, stage, split, masks, images, classes, model)
    options = Options(geometry, min_area, tolerance, copy_images, image_prefix)
    with progress_view() as view:
        summary = export_masks(
            source, format_name, Folder(out), options, lambda done, total: view.update(Progress(f"export {format_name}", done, total))
        )
    if as_json:
        print_json(asdict(summary))
    notes = [f"{summary.regions} regions of {summary.images} images written to {out}"]
    notes += [f"{summary.empty} images have none"] if summary.empty else []
    notes += [f"{summary.left_out} regions smaller than {min_area} pixels left out"] if summary.left_out else []
    notes += [f"{summary.filled} holes smaller than that filled"] if summary.filled else []
    if summary.with_holes and format_name != "yolo-seg":
        notes.append(
            f"{summary.with_holes} regions with holes, {summary.share_with_holes:.0%} of the area, are pixels instead of polygons "
            "(--min-area fills small holes)"
        )
    kept = "kept as 255" if format_name in ("voc", "fiftyone") else "left without annotation"
    notes += [f"{summary.ignored:.1%} of the pixels are ignored (255) and {kept}"] if summary.ignored else []
    say("; ".join(notes))


def _source(
    run: str | None,
    stage: str | None,
    split: str | None,
    masks: str | None,
    images: str | None,
    classes: str | None,
    model: str | None,
) -> "MaskSource":
    if (run is None) == (masks is None):
        raise typer.BadParameter("name the run with --run FOLDER, or a folder of masks with --masks FOLDER, and not both")
    of_other = {"--images": images, "--classes": classes, "--model": model} if run is not None else {"--stage": stage, "--split": split}
    if wrong := [name for name, value in of_other.items() if value is not None]:
        raise typer.BadParameter(f"{wrong[0]} goes with {'--masks' if run is not None else '--run'} only")
    if classes is not None and model is not None:
        raise typer.BadParameter("name the classes with --classes FILE or with --model FILE, and not both")

    from vwl.exporters.source import masks_of_folder, masks_of_run, read_class_names
    from vwl.model_file.content import read_model
    from vwl.storage.class_table import ClassTable
    from vwl.storage.folder import Folder
    from vwl.workflow.run_folder import Run

    if run is not None:
        return masks_of_run(Run.open(run), stage or "segment", split)
    table = None if classes is None else read_class_names(classes)
    if model is not None:
        description = read_model(model)[0]
        table = ClassTable(description.classes, description.palette)
    return masks_of_folder(Folder(str(masks)), table, None if images is None else Folder(images))


def _command(format_name: str) -> Callable[..., None]:
    """Return the command of a format: `_export` with the options that the format has, and its help."""
    without = _WITHOUT.get(format_name, () if format_name == "label-studio" else ("image_prefix",))

    def command(**given: object) -> None:
        _export(format_name, **given)  # type: ignore[arg-type]

    parameters = [p for name, p in signature(_export).parameters.items() if name not in ("format_name", *without)]
    command.__signature__ = signature(_export).replace(  # type: ignore[attr-defined]
        parameters=[p.replace(kind=Parameter.KEYWORD_ONLY) for p in parameters]
    )
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__name__ = format_name.replace("-", "_")
    command.__doc__ = f"""{_SUMMARIES[format_name]}

    The images are those of a stage of a run, or of a folder of masks. Each connected region of a class becomes one annotation.

    \b
    Examples:
      vwl export {format_name} --run runs/voc --stage masks --out tool
      vwl export {format_name} --masks predictions --images images
    """
    return command


def add_commands(app: typer.Typer) -> None:
    """Add a command for each format."""
    for format_name in _SUMMARIES:
        app.command(format_name)(_command(format_name))
