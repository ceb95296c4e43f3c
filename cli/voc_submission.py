"""`vwl voc-submission`: the segmentation model's masks as the PASCAL VOC server takes them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vwl.cli.options import RunFolder


def voc_submission(
    run: RunFolder,
    split: Annotated[Literal["test", "val", "train"], typer.Option(help="Split to pack.")] = "test",
    out: Annotated[str, typer.Option(metavar="FILE", help="Zip file to write.")] = "results.zip",
    competition: Annotated[
        Literal["comp5", "comp6"], typer.Option(help="comp5 is trained on VOC only, comp6 on other data too.")
    ] = "comp6",
) -> None:
    """Pack the masks of a split into a zip file for the PASCAL VOC server.

    \b
    Examples:
      vwl voc-submission --run runs/voc
      vwl voc-submission --run runs/voc --split val --out val.zip
    """
    from vwl.cli.console import say
    from vwl.evaluation.voc_submission import write_submission
    from vwl.storage.folder import Folder
    from vwl.workflow.run_folder import Run

    number = write_submission(Run.open(run), split, Folder(Path(out).parent), Path(out).name, competition)
    say(f"{number} masks written to {out}")
