"""`vwl run` and `vwl demo`: the whole method in one command."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vwl.cli.options import (
    Address,
    Backend,
    Crf,
    Data,
    Json,
    Override,
    Overwrite,
    RecipeName,
    RunFolder,
    Strict,
    end_with_failures,
    plan_start,
    print_stage_table,
    run_stages_with_progress,
    with_crf,
    with_layout,
)
from vwl.errors import VwlError

if TYPE_CHECKING:
    from vwl.workflow.run_folder import Run


@with_layout
def run(
    run: RunFolder,
    data: Data = None,
    recipe: RecipeName = None,
    override: Override = None,
    *,
    where: Any,
    address: Address = None,
    backend: Backend = "ray",
    overwrite: Overwrite = False,
    strict: Strict = False,
    crf: Crf = None,
    as_json: Json = False,
) -> None:
    """Run all stages, from images and labels to a segmentation model and its scores; resume where an earlier start stopped.

    \b
    Examples:
      vwl run --data voc.parquet --recipe paper-voc --run runs/voc --workers 2
      vwl run --data images.parquet --recipe small --run runs/first
    """
    from vwl.cli.console import say
    from vwl.report.summary import write_report
    from vwl.workflow.stages import STAGES

    start = plan_start(run, data, recipe, with_crf(("crf", "irnet_labels", "segment"), crf, override), overwrite)
    opened = run_stages_with_progress(start, list(STAGES), where, backend, address, fit_workers=True, strict=strict)
    pictures = write_report(opened)
    try:
        print_stage_table(opened, as_json)
    except VwlError as unscored:  # data sets without ground truth are no mistake
        say(str(unscored))
    say(f"pictures: {pictures}")
    _write_html_report(opened)
    end_with_failures(opened, list(STAGES))


def _write_html_report(run: "Run") -> None:
    """Write `report.html` into a run's folder. Whatever goes wrong is a message: it must not make a finished run fail."""
    from vwl.cli.console import say
    from vwl.report.html.report import run_report, write_html

    try:
        say(f"report: {write_html(run_report(run), run.folder, None)}")
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        say(f"no report was written ({reason}); try again with: vwl report --run {run.folder}")


def demo(
    folder: Annotated[str, typer.Option(metavar="FOLDER", help="Folder for scenes and run.")] = "demo",
    backend: Backend = "ray",
    as_json: Json = False,
) -> None:
    """Draw scenes, do all stages on them with the recipe `demo`, and show the scores and pictures.

    \b
    Examples:
      vwl demo
      vwl demo --folder /tmp/demo --json
    """
    from vwl.cli.console import say
    from vwl.data.index import write_index
    from vwl.data.scenes import prepare_scenes

    say(f"generating scenes in {folder}/scenes")
    index, _ = prepare_scenes(f"{folder}/scenes", num_train=160, num_val=40)
    write_index(index, f"{folder}/index.parquet")
    run(run=f"{folder}/run", data=f"{folder}/index.parquet", recipe="demo", backend=backend, as_json=as_json)
    say(f"next: vwl predict IMAGE.jpg --run {folder}/run, or use your own images: vwl data prepare folder --help")
