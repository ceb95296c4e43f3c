"""Checks before a run starts: what can be known without computing is refused before the first stage and before the folder is written.

`check_start` needs no cluster; `check_cluster` is called as soon as one is connected.
"""

from collections.abc import Mapping, Sequence

import torch

from vwl.config.layout import Layout
from vwl.config.networks import batch_size
from vwl.config.recipe import Classifier, Irnet, Psa, Segmenter
from vwl.errors import VwlError
from vwl.models import classifier, deeplab, irnet, psa
from vwl.training.build import require_labels
from vwl.training.pretrained import load_pretrained
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES, training_rows

_NOT_BUILT = (RuntimeError, OverflowError, MemoryError, TypeError)
"""What torch raises where a size of the recipe is too large for it."""
Settings = Classifier | Irnet | Psa | Segmenter
Network = classifier.Classifier | irnet.BoundaryNet | psa.AffinityNet | deeplab.DeepLabV2


def check_start(run: Run, stages: Sequence[str], layout: Layout, backend: str, fit_workers: bool) -> dict[str, Layout]:
    """Check the trainings of a start that are not done: images, workers, GPUs, networks, and weights to start from.

    Args:
        run: may not be written yet.
        stages: names of the stages that are to run.
        layout: of the trainings.
        backend: `ray` or `local`.
        fit_workers: whether each training gets the largest number of workers that divides its batch.

    Returns:
        The layout of each training that is not done, by stage.

    Raises:
        VwlError: a training would fail; the message names the key or option.
    """
    trainings = [stage for stage in stages if STAGES[stage].kind == "train" and run.needs(stage) and not run.is_done(stage)]
    layouts = {stage: _training_layout(run, stage, layout, fit_workers) for stage in trainings}
    if trainings and backend == "local" and layout.gpus_per_worker and not torch.cuda.is_available():
        raise VwlError("--gpus-per-worker 1: this machine has no GPU that torch can use; leave the option out to train on the CPU")
    if trainings and backend == "local" and layout.gpus_per_worker and layout.workers > (gpus := torch.cuda.device_count()):
        raise VwlError(f"{layout.workers} workers need a GPU each and this machine has {gpus}; lower --workers")
    if trainings:
        rows = training_rows(run.index)
        if "classifier" in trainings:
            require_labels(rows)
    for stage in trainings:
        if stage not in ("recam", "lpcam"):  # their network is the classifier's
            _check_network(run, stage)
    return layouts


def check_cluster(layouts: Mapping[str, Layout]) -> None:
    """Check that the connected cluster, when idle, has enough worker slots for each training.

    Raises:
        VwlError: it is too small.
    """
    from vwl.engine.resources import check_worker_slots

    for layout in layouts.values():
        check_worker_slots(layout, layout.min_workers or layout.workers)


def _training_layout(run: Run, stage: str, layout: Layout, fit_workers: bool) -> Layout:
    batch = batch_size(run.recipe, stage)
    fitting = layout.fit_to_batch(batch) if fit_workers else layout
    fitting.split_batch(batch)
    return fitting


def _check_network(run: Run, stage: str) -> None:
    """Build a training's network and load the weights that it starts from."""
    settings = getattr(run.recipe, stage)
    num_classes = len(run.index.classes)
    try:
        network = _build(settings, num_classes)
    except VwlError as error:
        raise VwlError(f"recipe section {stage}: {error}") from None
    except _NOT_BUILT as error:
        reason = str(error).partition("\n")[0]
        raise VwlError(f"recipe section {stage}: its network cannot be built ({reason}); are its sizes too large?") from None
    load_pretrained(network, _without_own_results(settings, run))


def _build(settings: Settings, num_classes: int) -> Network:
    if isinstance(settings, Classifier):
        return classifier.Classifier(settings, num_classes - 1)
    if isinstance(settings, Irnet):
        return irnet.BoundaryNet(settings.backbone)
    if isinstance(settings, Psa):
        return psa.AffinityNet(settings)
    return deeplab.DeepLabV2(settings, num_classes)


def _without_own_results(settings: Settings, run: Run) -> Settings:
    """Return the settings without weights in the run's own folder, which an earlier stage of the run may yet write."""
    changes: dict[str, object] = {}
    own = f"{run.folder.uri}/"
    if settings.backbone.weights.startswith(own):
        changes["backbone"] = settings.backbone.model_copy(update={"weights": "none"})
    if settings.start_from is not None and settings.start_from.startswith(own):
        changes["start_from"] = None
    return settings.model_copy(update=changes)
