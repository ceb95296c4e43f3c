"""`vwl data`: makes, shows and checks index tables of data sets."""

from dataclasses import asdict
from typing import Annotated

import typer

from vwl.cli.options import Json
from vwl.cli.prepare import app as prepare
from vwl.cli.prepare import print_splits

app = typer.Typer(no_args_is_help=True, help="Make, show and check index tables of data sets.")
app.add_typer(prepare, name="prepare")

IndexFile = Annotated[str, typer.Argument(metavar="INDEX", help="An index table made by: vwl data prepare.")]


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
    print_splits(table)
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
    from vwl.cli.console import print_json, progress_bar
    from vwl.data.check import check_index
    from vwl.data.index import read_index

    table = read_index(index)
    with progress_bar("checking") as progress:
        problems = check_index(table, progress)
    if as_json:
        print_json([asdict(problem) for problem in problems])
    else:
        for problem in problems:
            typer.echo(f"{problem.kind}: {problem.message}")
        typer.echo(f"problems: {len(problems):,} in {len(table.rows):,} images")
    if problems:
        raise typer.Exit(1)


@app.command("add-masks")
def add_masks(
    index: Annotated[str, typer.Argument(metavar="INDEX|RUN", help="An index table, or a run folder whose index is taken.")],
    masks: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of corrected masks, PNG files named after the images.")],
    out: Annotated[str, typer.Option(metavar="FILE", help="The index table to write.")],
    unchanged: Annotated[
        bool,
        typer.Option("--unchanged", metavar="", help="Also take masks that are as vwl review wrote them: they were found to be right."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Make corrected masks the ground truth of their images: the segmentation model learns from them, and they are scored.

    A run on the new index repeats only the stages masks, segmenter and segment.

    \b
    Examples:
      vwl data add-masks voc.parquet corrected --out corrected.parquet
      vwl data add-masks runs/voc to-correct --out new.parquet --unchanged
    """
    from vwl.cli.console import print_json, say
    from vwl.data.corrections import add_masks as with_masks
    from vwl.data.index import read_index, write_index
    from vwl.storage.folder import Folder
    from vwl.workflow.run_files import is_run, read_run_files

    run = Folder(index) if is_run(Folder(index)) else None
    added = with_masks(read_index(index if run is None else read_run_files(run).index), Folder(masks), unchanged)
    write_index(added.index, out)
    if as_json:
        ids = {"training": added.training, "held_out": added.held_out, "unchanged": added.unchanged, "unlabelled": added.unlabelled}
        print_json({**ids, "fingerprint": added.index.fingerprint()})
    else:
        typer.echo(f"corrected masks: {len(added.training):,} of training images, {len(added.held_out):,} of others")
        if added.unchanged:
            typer.echo(f"left out, not changed since vwl review wrote them: {len(added.unchanged):,} (--unchanged takes them)")
        for image_id, names in list(added.unlabelled.items())[:10]:
            typer.echo(f"- {image_id} holds {', '.join(names)}, which its labels lack; the classifier does not learn it from the mask")
    say(f"wrote {out}")
    if run is not None:
        say(f"next: vwl run --data {out} --run NEW --reuse {index}, or vwl run --data {out} --run {index} --overwrite")
