"""`vwl voc-submission`: the segmentation model's masks as the PASCAL VOC server takes them."""

from pathlib import Path
from typing import Annotated

import typer

from vwl.cli.options import RunArgument


def voc_submission(
    run: RunArgument,
    split: Annotated[str, typer.Option(help="Split to pack: test, val or train.")] = "test",
    out: Annotated[str, typer.Option(help="Zip file to write.")] = "results.zip",
    competition: Annotated[str, typer.Option(help="comp5 (trained on VOC only) or comp6 (trained on other data too).")] = "comp6",
) -> None:
    """Pack the masks of a split into a zip file for the PASCAL VOC server.

    \b
    Examples:
      vwl voc-submission runs/voc
      vwl voc-submission runs/voc --split val --out val.zip
    """
    from vwl.cli.console import say
    from vwl.evaluation.voc_submission import write_submission
    from vwl.storage.folder import Folder
    from vwl.workflow.run_folder import Run

    number = write_submission(Run.open(run), split, Folder(Path(out).parent), Path(out).name, competition)
    say(f"{number} masks written to {out}")
