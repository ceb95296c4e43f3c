"""`vwl data prepare`: makes the index table of a data set."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from vwl.data.index import Index

app = typer.Typer(no_args_is_help=True, help="Turn a data set into one index table (Parquet).")

Out = Annotated[str, typer.Option(metavar="FILE", help="The index table to write.")]
Negatives = Annotated[
    str | None,
    typer.Option(metavar="LABEL", help="The label of images that show none of the classes, e.g. none; empty: images without a label."),
]
Separator = Annotated[
    Literal["semicolon", "bar", "comma", "blank"] | None,
    typer.Option(
        metavar="NAME",
        help="What separates labels: semicolon, bar, comma or blank. Default: the one of ; | , that the file uses, else blanks.",
    ),
]


@app.command()
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


@app.command()
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
    from vwl.cli.console import progress_bar

    notes: list[str] = []
    with progress_bar("painting masks") as progress:
        index = prepare_coco(root, masks, out=out, on_note=notes.append, on_progress=progress)
    _show_prepared(index, notes, out)


@app.command()
def folder(
    images: Annotated[str, typer.Option(metavar="FOLDER", help="Folder of the images.")],
    labels: Annotated[str, typer.Option(metavar="FILE", help="CSV file with the columns image,labels and optionally split.")],
    out: Out = "index.parquet",
    masks: Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder of PNG masks named like the images.")] = None,
    val_share: Annotated[float, typer.Option(metavar="SHARE", help="Share of the images for split val, 0 to below 1.")] = 0.0,
    classes: Annotated[
        str | None, typer.Option(metavar="FILE", help="Text file with one class name per line, in the order of the mask ids.")
    ] = None,
    separator: Separator = None,
    negatives: Negatives = None,
) -> None:
    """Index a folder of images with a CSV file of labels.

    The column labels holds class names such as dog;traffic light. They are separated by ; | or , in the whole file, or by blanks
    if none of these occurs. A name in quotes is kept as it is. Names that differ only in case or blanks are refused, and so are
    training images without a label, unless --negatives says that they show no object.

    \b
    Examples:
      vwl data prepare folder --images images --labels labels.csv --val-share 0.1 --out images.parquet
      vwl data prepare folder --images images --labels labels.csv --masks masks --classes classes.txt --out images.parquet
    """
    from vwl.api.data import prepare_folder

    notes: list[str] = []
    index = prepare_folder(
        images,
        labels,
        masks,
        val_share=val_share,
        classes=classes,
        separator=separator,
        negatives=negatives,
        out=out,
        on_note=notes.append,
    )
    _show_prepared(index, notes, out)


@app.command()
def auto(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Folder of the data set, or its file of labels.")],
    out: Out = "index.parquet",
    images: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Folder of the images. Default: PATH, or the folder that it lies in.")
    ] = None,
    masks: Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder of PNG masks, laid out like the images.")] = None,
    val_share: Annotated[float, typer.Option(metavar="SHARE", help="Share of the images for split val, 0 to below 1.")] = 0.0,
    classes: Annotated[
        str | None, typer.Option(metavar="FILE", help="Text file with one class name per line, in the order of the mask ids.")
    ] = None,
    separator: Separator = None,
    negatives: Negatives = None,
    label_format: Annotated[
        Literal["labels-csv", "multi-hot", "label-studio", "cvat", "coco-json", "hugging-face", "class-folders", "voc", "coco"] | None,
        typer.Option("--format", metavar="NAME", help="The format, where several are found."),
    ] = None,
    field: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The choices or column of the labels (Label Studio, Hugging Face), if there are several."),
    ] = None,
) -> None:
    """Find out the format of a data set's labels and index it.

    \b
    Formats, the names of --format:
      class-folders  dog/1.jpg, or train/dog/1.jpg and val/dog/2.jpg
      labels-csv     CSV with image,labels
      multi-hot      CSV with a column of 0 and 1 for each class
      label-studio   choices, exported as JSON, JSON-MIN or CSV
      cvat           CVAT for images 1.1 (XML): tags; shapes count too
      coco-json      COCO JSON with any category ids
      hugging-face   metadata.csv or metadata.jsonl
      voc, coco      the layouts of PASCAL VOC and MS COCO

    \b
    Examples:
      vwl data prepare auto photos --val-share 0.1 --out photos.parquet
      vwl data prepare auto export.json --images photos --negatives none
    """
    from vwl.api.data import prepare_any
    from vwl.cli.console import progress_bar

    notes: list[str] = []
    with progress_bar("painting masks") as progress:
        index = prepare_any(
            path,
            images,
            masks,
            val_share=val_share,
            classes=classes,
            separator=separator,
            negatives=negatives,
            label_format=label_format,
            field=field,
            out=out,
            on_found=lambda found: typer.echo(f"found: {found}"),
            on_note=notes.append,
            on_progress=progress,
        )
    _show_prepared(index, notes, out)


@app.command()
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


def _show_prepared(index: "Index", notes: list[str], out: str) -> None:
    """Print the splits of an index that was written, and the notes."""
    print_splits(index)
    for note in notes:
        typer.echo(f"- {note}")
    typer.echo(f"wrote {out}")


def print_splits(index: "Index") -> None:
    """Print the splits of an index as a table."""
    from vwl.cli.console import print_table
    from vwl.data.summary import summarise

    rows = [(split.split, split.images, split.labels_per_image, split.masks) for split in summarise(index)]
    print_table(f"{index.source}: {index.num_objects} classes", ("split", "images", "labels per image", "masks"), rows)
