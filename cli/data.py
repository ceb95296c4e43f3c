"""`vwl data`: makes, shows and checks index tables of data sets."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from vwl.data.index import Index

app = typer.Typer(no_args_is_help=True, help="Make, show and check index tables of data sets.")
prepare = typer.Typer(no_args_is_help=True, help="Turn a data set into one index table (Parquet).")
app.add_typer(prepare, name="prepare")

Out = Annotated[str, typer.Option(metavar="FILE", help="The index table to write.")]
IndexFile = Annotated[str, typer.Argument(metavar="INDEX", help="An index table made by: vwl data prepare.")]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON.")]


@prepare.command()
def voc(
    root: Annotated[str, typer.Option(metavar="FOLDER", help="The folder VOCdevkit/VOC2012, or one laid out like it.")],
    out: Out = "index.parquet",
    sbd: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Folder of SBD. Its masks are converted, its images extend the training set.")
    ] = None,
    labels: Annotated[str | None, typer.Option(metavar="FILE", help="Text file of image labels with lines 'id name name ...'.")] = None,
) -> None:
    """Index PASCAL VOC 2012, with or without SBD.

    \b
    Examples:
      vwl data prepare voc --root VOCdevkit/VOC2012 --sbd benchmark_RELEASE/dataset --out voc.parquet
      vwl data prepare voc --root VOCdevkit/VOC2012 --labels image_labels.txt --out voc.parquet
    """
    from vwl.api.data import prepare_voc

    notes: list[str] = []
    _show_prepared(prepare_voc(root, sbd, labels, out=out, on_note=notes.append), notes, out)


@prepare.command()
def coco(
    root: Annotated[str, typer.Option(metavar="FOLDER", help="Folder with annotations/, train2014/ and val2014/ (or 2017).")],
    out: Out = "index.parquet",
    masks: Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder for the masks. Default: SegmentationClass in ROOT.")] = None,
) -> None:
    """Paint the masks of MS COCO and index it.

    \b
    Examples:
      vwl data prepare coco --root coco2014 --out coco.parquet
      vwl data prepare coco --root coco2014 --masks coco-masks --out coco.parquet
    """
    from vwl.api.data import prepare_coco

    notes: list[str] = []
    with _bar("painting masks") as progress:
        index = prepare_coco(root, masks, out=out, on_note=notes.append, on_progress=progress)
    _show_prepared(index, notes, out)


@prepare.command()
def folder(
    images: Annotated[str, typer.Option(metavar="FOLDER", help="Folder of the images.")],
    labels: Annotated[str, typer.Option(metavar="FILE", help="CSV file with the columns image,labels and optionally split.")],
    out: Out = "index.parquet",
    masks: Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder of PNG masks named like the images.")] = None,
    val_share: Annotated[float, typer.Option(metavar="SHARE", help="Share of the images for split val, 0 to below 1.")] = 0.0,
    classes: Annotated[
        str | None, typer.Option(metavar="FILE", help="Text file with one class name per line, in the order of the mask ids.")
    ] = None,
    separator: Annotated[
        Literal["semicolon", "bar", "comma", "blank"] | None,
        typer.Option(
            metavar="NAME",
            help="What separates labels: semicolon, bar, comma or blank. Default: the one of ; | , that the file uses, else blanks.",
        ),
    ] = None,
) -> None:
    """Index a folder of images with a CSV file of labels.

    The column labels holds class names such as dog;traffic light. They are separated by ; | or , in the whole file, or by blanks
    if none of these occurs. A name in quotes is kept as it is. Names that differ only in case or blanks are refused.

    \b
    Examples:
      vwl data prepare folder --images images --labels labels.csv --val-share 0.1 --out images.parquet
      vwl data prepare folder --images images --labels labels.csv --masks masks --classes classes.txt --out images.parquet
    """
    from vwl.api.data import prepare_folder

    notes: list[str] = []
    index = prepare_folder(images, labels, masks, val_share=val_share, classes=classes, separator=separator, out=out, on_note=notes.append)
    _show_prepared(index, notes, out)


@prepare.command()
def scenes(
    folder: Annotated[str, typer.Option(metavar="FOLDER", help="Folder for the generated scenes.")] = "scenes",
    out: Out = "index.parquet",
    num_train: Annotated[int, typer.Option(metavar="N", help="Number of scenes in split train.")] = 240,
    num_val: Annotated[int, typer.Option(metavar="N", help="Number of scenes in split val.")] = 80,
    num_classes: Annotated[int, typer.Option(metavar="N", help="Number of object classes, 1 to 6.")] = 4,
    heights: Annotated[tuple[int, int], typer.Option(metavar="MIN MAX", help="Smallest and largest height in pixels.")] = (180, 220),
    widths: Annotated[tuple[int, int], typer.Option(metavar="MIN MAX", help="Smallest and largest width in pixels.")] = (240, 280),
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the scenes.")] = 0,
    heads: Annotated[
        bool, typer.Option("--heads", metavar="", help="Also write heads/*.png: masks of the parts that tell the classes apart.")
    ] = False,
) -> None:
    """Draw scenes with exact masks and index them; needs no download.

    \b
    Examples:
      vwl data prepare scenes --folder demo/scenes --out demo/index.parquet
      vwl data prepare scenes --folder tiny --num-train 8 --num-val 4 --heights 64 80 --widths 72 96 --out tiny.parquet
    """
    from vwl.api.data import prepare_scenes

    notes: list[str] = []
    sizes = {"heights": heights, "widths": widths}
    index = prepare_scenes(
        folder, num_train, num_val, **sizes, num_classes=num_classes, seed=seed, heads=heads, out=out, on_note=notes.append
    )
    _show_prepared(index, notes, out)


@app.command()
def show(index: IndexFile, as_json: Json = False) -> None:
    """Show the splits and classes of an index table, with the number of images of each.

    \b
    Examples:
      vwl data show voc.parquet
      vwl data show voc.parquet --json
    """
    from vwl.cli.console import Value, print_json, print_table
    from vwl.data.index import read_index
    from vwl.data.summary import summarise

    table = read_index(index)
    splits = summarise(table)
    if as_json:
        about = {"source": table.source, "root": table.root.uri, "classes": table.classes, "fingerprint": table.fingerprint()}
        print_json({**about, "splits": [asdict(split) for split in splits]})
        return
    _print_splits(table)
    rows: list[list[Value]] = [[label, name, *(split.classes[name] for split in splits)] for label, name in enumerate(table.classes[1:], 1)]
    print_table("images with each class", ("id", "class", *(split.split for split in splits)), rows)


@app.command()
def check(index: IndexFile, as_json: Json = False) -> None:
    """Open every image and mask of an index table and print the problems; exit with 1 if there are any.

    \b
    Examples:
      vwl data check voc.parquet
      vwl data check voc.parquet --json
    """
    from vwl.cli.console import print_json
    from vwl.data.check import check_index
    from vwl.data.index import read_index

    table = read_index(index)
    with _bar("checking") as progress:
        problems = check_index(table, progress)
    if as_json:
        print_json([asdict(problem) for problem in problems])
    else:
        for problem in problems:
            typer.echo(f"{problem.kind}: {problem.message}")
        typer.echo(f"problems: {len(problems):,} in {len(table.rows):,} images")
    if problems:
        raise typer.Exit(1)


def _show_prepared(index: "Index", notes: list[str], out: str) -> None:
    """Print the splits of an index that was written, and the notes."""
    _print_splits(index)
    for note in notes:
        typer.echo(f"- {note}")
    typer.echo(f"wrote {out}")


def _print_splits(index: "Index") -> None:
    from vwl.cli.console import print_table
    from vwl.data.summary import summarise

    rows = [(split.split, split.images, split.labels_per_image, split.masks) for split in summarise(index)]
    print_table(f"{index.source}: {index.num_objects} classes", ("split", "images", "labels per image", "masks"), rows)


@contextmanager
def _bar(task_name: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr and yield the function that updates it with (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(task_name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
