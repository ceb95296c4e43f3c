"""`vwl run` and `vwl demo`: the whole method in one command."""

from typing import Annotated, Any, Literal

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
    Reuse,
    RunFolder,
    Strict,
    end_with_failures,
    print_stage_table,
    run_with_progress,
    with_crf,
    with_layout,
)
from vwl.errors import VwlError


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
    reuse: Reuse = None,
    strict: Strict = False,
    crf: Crf = None,
    tracker: Annotated[
        Literal["mlflow", "wandb", "tensorboard"] | None,
        typer.Option(metavar="NAME", help="Also send metrics and scores to mlflow, wandb or tensorboard."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run all stages, from images and labels to a segmentation model and its scores; resume where an earlier start stopped.

    \b
    Examples:
      vwl run --data voc.parquet --recipe paper-voc --run runs/voc --workers 2
      vwl run --data images.parquet --recipe small --run runs/first
      vwl run --data corrected.parquet --run runs/corrected --reuse runs/first
    """
    from vwl.cli.console import say
    from vwl.workflow.stages import stages_of

    result = run_with_progress(
        run,
        where,
        backend,
        data=data,
        recipe=recipe,
        overrides=with_crf(("crf", "irnet_labels", "psa_labels", "segment"), crf, override) or (),
        address=address,
        overwrite=overwrite,
        reuse=reuse,
        strict=strict,
        tracker=tracker,
    )
    try:
        print_stage_table(result, as_json)
    except VwlError as unscored:  # data sets without ground truth are no mistake
        say(str(unscored))
    say(f"pictures: {result.run.folder / 'pictures'}")
    if result.run.folder.exists("report.html"):
        say(f"report: {result.run.folder / 'report.html'} (open it in a browser)")
    end_with_failures(result.run, stages_of(result.recipe))


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
    from vwl.api.data import prepare_scenes
    from vwl.cli.console import say

    say(f"generating scenes in {folder}/scenes")
    prepare_scenes(f"{folder}/scenes", num_train=160, num_val=40, out=f"{folder}/index.parquet", on_note=lambda note: None)
    run(run=f"{folder}/run", data=f"{folder}/index.parquet", recipe="demo", backend=backend, as_json=as_json)
    say(f"next: vwl predict IMAGE.jpg --run {folder}/run, or use your own images: vwl data prepare folder --help")
