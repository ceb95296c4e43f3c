"""`vwl train`: one training stage of a run."""

import json
from pathlib import Path
from typing import Any

import typer

from vwl.cli.options import (
    Address,
    Backend,
    BackendName,
    Data,
    Override,
    Overwrite,
    RecipeName,
    RunFolder,
    StartFrom,
    WithRun,
    run_with_progress,
    with_layout,
)

app = typer.Typer(no_args_is_help=True, help="Train one network of a run; resumes from its last checkpoint.")


@app.command(cls=WithRun)
@with_layout
def classifier(
    run: RunFolder,
    data: Data = None,
    recipe: RecipeName = None,
    override: Override = None,
    *,
    where: Any,
    start_from: StartFrom = None,
    address: Address = None,
    backend: Backend = "ray",
    overwrite: Overwrite = False,
) -> None:
    """Train the classifier with visual words and hybrid pooling.

    \b
    Examples:
      vwl train classifier --data voc.parquet --recipe paper-voc --run runs/voc
      vwl train classifier --run runs/voc --workers 4 --gpus-per-worker 1
    """
    _train("classifier", run, data, recipe, override, where, start_from, address, backend, overwrite)


@app.command(cls=WithRun)
@with_layout
def recam(
    run: RunFolder,
    override: Override = None,
    *,
    where: Any,
    address: Address = None,
    backend: Backend = "ray",
    overwrite: Overwrite = False,
) -> None:
    """Train the classifier on with ReCAM's softmax over classes (recam.epochs above 0).

    \b
    Examples:
      vwl train recam --run runs/voc
      vwl train recam --run runs/voc -o recam.epochs=4 --overwrite
    """
    _train("recam", run, None, None, override, where, None, address, backend, overwrite)


@app.command(cls=WithRun)
@with_layout
def lpcam(
    run: RunFolder,
    override: Override = None,
    *,
    where: Any,
    address: Address = None,
    backend: Backend = "ray",
    overwrite: Overwrite = False,
) -> None:
    """Cluster features of training images to LPCAM's prototypes of each class (cam.method: lpcam).

    \b
    Examples:
      vwl train lpcam --run runs/voc
      vwl train lpcam --run runs/voc -o cam.method=lpcam --overwrite
    """
    _train("lpcam", run, None, None, override, where, None, address, backend, overwrite)


@app.command(cls=WithRun)
@with_layout
def irnet(
    run: RunFolder,
    override: Override = None,
    *,
    where: Any,
    start_from: StartFrom = None,
    address: Address = None,
    backend: Backend = "ray",
    overwrite: Overwrite = False,
) -> None:
    """Train the boundary network on the run's confident labels.

    \b
    Examples:
      vwl train irnet --run runs/voc
      vwl train irnet --run runs/voc -o irnet.epochs=4 --overwrite
    """
    _train("irnet", run, None, None, override, where, start_from, address, backend, overwrite)


@app.command(cls=WithRun)
@with_layout
def psa(
    run: RunFolder,
    override: Override = None,
    *,
    where: Any,
    start_from: StartFrom = None,
    address: Address = None,
    backend: Backend = "ray",
    overwrite: Overwrite = False,
) -> None:
    """Train PSA's affinity network on the run's confident labels (refiner: psa).

    \b
    Examples:
      vwl train psa --run runs/voc
      vwl train psa --run runs/voc -o psa.epochs=4 --overwrite
    """
    _train("psa", run, None, None, override, where, start_from, address, backend, overwrite)


@app.command(cls=WithRun)
@with_layout
def segmenter(
    run: RunFolder,
    override: Override = None,
    *,
    where: Any,
    start_from: StartFrom = None,
    address: Address = None,
    backend: Backend = "ray",
    overwrite: Overwrite = False,
) -> None:
    """Train the segmentation model on the run's pseudo masks.

    \b
    Examples:
      vwl train segmenter --run runs/voc
      vwl train segmenter --run runs/voc --workers 2:4 --address auto
    """
    _train("segmenter", run, None, None, override, where, start_from, address, backend, overwrite)


def _train(
    stage: str,
    run: str,
    data: str | None,
    recipe: str | None,
    override: list[str] | None,
    where: Any,
    start_from: str | None,
    address: str | None,
    backend: BackendName,
    overwrite: bool,
) -> None:
    overrides = _starting_from(stage, start_from, override) or ()
    wanted: dict[str, Any] = {"data": data, "recipe": recipe, "overrides": overrides, "stages": [stage]}
    run_with_progress(run, where, backend, **wanted, address=address, overwrite=overwrite, fit_workers=False)


def _starting_from(stage: str, weights: str | None, override: list[str] | None) -> list[str] | None:
    """Add the recipe key of --start-from; workers have other working folders, so a path is made absolute."""
    if weights is None:
        return override
    path = weights if "://" in weights else str(Path(weights).expanduser().absolute())
    return [*(override or ()), f"{stage}.start_from={json.dumps(path)}"]
