"""`vwl export`: the segmentation model's masks for an evaluation server."""

from pathlib import Path
from typing import Annotated

import typer

from vwl.cli.options import RunArgument


def export(
    run: RunArgument,
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    out: Annotated[str, typer.Option(help="Zip file to write.")] = "results.zip",
    competition: Annotated[str, typer.Option(help="comp5 (trained on VOC alone) or comp6.")] = "comp6",
) -> None:
    """Pack the masks of a split into one zip, laid out as the PASCAL VOC server wants it.

    \b
    Examples:
      vwl export runs/voc
      vwl export runs/voc --split val --out val.zip
    """
    from vwl.cli.console import say
    from vwl.evaluation.voc_submission import write_submission
    from vwl.storage.folder import Folder
    from vwl.workflow.run_folder import Run

    number = write_submission(Run.open(run), split, Folder(Path(out).parent), Path(out).name, competition)
    say(f"{number} masks are in {out}")
