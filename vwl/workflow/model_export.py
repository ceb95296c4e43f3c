"""Makes the model file of a run's trained network, and loads models from files, run folders and the Hugging Face Hub."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vwl.config.networks import cam_network
from vwl.config.recipe import Recipe, fingerprint, hashed_settings
from vwl.errors import VwlError
from vwl.inference.build import load_classifier, load_segmenter
from vwl.model_file.content import read_model
from vwl.model_file.description import ARCHITECTURE, FORMAT, AnyDescription, Kind
from vwl.model_file.hub import FILE_NAME, hub_file, is_hub_id
from vwl.model_file.models import Classifier, SegmentationModel, described, model_from
from vwl.storage.folder import Folder
from vwl.workflow.manifest import Manifest
from vwl.workflow.run_files import is_run
from vwl.workflow.run_folder import Run, fault_line
from vwl.workflow.stages import SCORED

ModelStage = Literal["segmenter", "classifier"]
LICENCE = (
    "vwl's code is under the MIT licence. These weights are not part of it: the terms of the training images, and of the weights that the "
    "training started from, apply to them."
)
"""The licence line of a model for which none was given."""
_USED: dict[ModelStage, tuple[str, ...]] = {"segmenter": ("cam", "crf", "walk", "masks", "segment"), "classifier": ("cam",)}
"""Stages whose scores and thresholds are in the description."""


def load_model(
    source: str | Path, device: str | torch.device | None = None, stage: ModelStage = "segmenter"
) -> SegmentationModel | Classifier:
    """Load a trained model, which then needs neither its run nor its data set nor Ray.

    Args:
        source: a model file (`vwl export model`), a folder written by `save_pretrained`, a run folder, or OWNER/NAME of a model of the
            Hugging Face Hub. Files and run folders may be URIs.
        device: where to run it, for example `cpu` or `cuda`; default: the GPU, or the CPU where there is none.
        stage: which network of a run folder: `segmenter` or `classifier`. A model file has one.

    Returns:
        A `SegmentationModel` or, of a classifier, a `Classifier`.

    Raises:
        VwlError: there is no model at `source`, or it is damaged or of a later version of vwl.
    """
    text = str(source)
    if is_hub_id(text):
        text = hub_file(text)
    elif not text.endswith(".safetensors"):
        folder = Folder(text)
        if is_run(folder):
            return model_of_run(Run.open(text), stage, device)
        if not folder.exists(FILE_NAME) and (not folder.exists() or (folder.is_local and Path(folder.path).is_dir())):
            raise VwlError(
                f"there is no model at {text}; name a model file (vwl export model), a run folder, or OWNER/NAME of the Hugging Face Hub"
            )
        if folder.exists(FILE_NAME):
            text = folder.uri_of(FILE_NAME)
    return model_from(*read_model(text), text, device)


def model_of_run(run: Run, stage: ModelStage = "segmenter", device: str | torch.device | None = None) -> SegmentationModel | Classifier:
    """Return the model of a run, as its model file would give it.

    Raises:
        VwlError: the training of this stage is not done, or its weights are damaged.
    """
    return model_from(*describe(run, stage), str(run.folder), device)


def describe(run: Run, stage: ModelStage = "segmenter", licence: str | None = None) -> tuple[AnyDescription, Mapping[str, Tensor]]:
    """Return the description and the weights of a run's trained network. They name no path, and do not change while the run does not.

    Args:
        run: the run.
        stage: `segmenter` or `classifier`.
        licence: a line on the terms of use of the weights; default: `LICENCE`.

    Raises:
        VwlError: the training of this stage is not done, its weights are damaged, or the licence is no line of text.
    """
    _require_trained(run, stage)
    if licence is not None and not (licence.strip() and licence.isprintable()):
        raise VwlError("the licence is no line of text; write one, e.g. 'CC BY 4.0'")
    recipe = run.recipe
    network = load_segmenter(recipe, run.index, run.folder) if stage == "segmenter" else load_classifier(recipe, run.index, run.folder)
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    kind: Kind = "segmentation" if stage == "segmenter" else "classifier"
    training = run.manifest(stage)
    assert training is not None
    used = {name: manifest for name in _used(recipe, stage) if (manifest := _done(run, name)) is not None}
    values = {
        "format": FORMAT,
        "kind": kind,
        "classes": list(run.index.classes),
        "palette": list(run.index.palette),
        "normalisation": {"mean": list(network.backbone.mean), "std": list(network.backbone.std)},
        "architecture": _architecture(recipe, stage, kind),
        "prediction": recipe.segment.model_dump(mode="json") if stage == "segmenter" else _cam_settings(recipe),
        "recipe": recipe.name,
        "recipe_hash": fingerprint(recipe),
        "seed": training.seed,
        "scores": [_score(vars(score)) for name, manifest in used.items() if name in SCORED for score in manifest.scores],
        "scored_classes": None if recipe.evaluation.classes is None else list(recipe.evaluation.classes),
        "thresholds": [_threshold(manifest) for manifest in used.values() if manifest.threshold is not None],
        "training_images": training.images,
        "data_fingerprint": run.index.fingerprint(),
        "versions": training.versions,
        "licence": licence or LICENCE,
    }
    return described(values, state), state


def _require_trained(run: Run, stage: ModelStage) -> None:
    if run.is_done(stage):
        return
    damage = fault_line(run.stage_folder(stage), run.faults(stage))
    if damage:
        raise VwlError(f"{damage}; make it again with: vwl train {stage} --run {run.folder}")
    what = "segmentation model" if stage == "segmenter" else "classifier"
    raise VwlError(f"{run.folder} has no trained {what}; finish the run with: vwl run --run {run.folder}")


def _done(run: Run, stage: str) -> Manifest | None:
    """Return the manifest of a stage that is done with the current settings."""
    manifest = run.manifest(stage)
    return manifest if manifest is not None and manifest.state == "done" and manifest.fingerprint == run.fingerprint(stage) else None


def _architecture(recipe: Recipe, stage: ModelStage, kind: Kind) -> dict[str, Any]:
    section = getattr(recipe, stage).model_dump(mode="json")
    # of the backbone only the name: where its first weights came from may be a path of this machine
    return {**{key: section[key] for key in ARCHITECTURE[kind]}, "backbone": {"name": section["backbone"]["name"]}}


def _used(recipe: Recipe, stage: ModelStage) -> tuple[str, ...]:
    """Return the stages of `_USED`; maps that other weights made are not those of a classifier's model file."""
    return () if stage == "classifier" and cam_network(recipe) != "classifier" else _USED[stage]


def _cam_settings(recipe: Recipe) -> dict[str, Any]:
    """Return how a classifier's model file makes maps: always by its weights."""
    return {key: value for key, value in hashed_settings(recipe, "cam").items() if key != "method"}


def _score(score: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("stage", "split", "images", "miou", "threshold", "threshold_chosen", "best_miou_with_ground_truth")
    values = {key: score[key] for key in (*keys, "best_threshold_with_ground_truth")}
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()}


def _threshold(manifest: Manifest) -> dict[str, Any]:
    return {
        "stage": manifest.stage,
        "threshold": manifest.threshold,
        "chosen": manifest.threshold_chosen or "",
        "by_class": dict(manifest.class_thresholds),
    }
