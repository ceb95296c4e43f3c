"""Builds an inference stage from a picklable spec, on each worker; networks are loaded from the run folder."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch

from vwl.config.networks import cam_network
from vwl.config.recipe import Recipe
from vwl.data.index import Index, read_index
from vwl.errors import Damaged, VwlError
from vwl.inference.cam import CamStage
from vwl.inference.crf import CrfStage
from vwl.inference.irnet_labels import IrnetLabelsStage
from vwl.inference.lpcam import LpcamStage
from vwl.inference.masks import MasksStage
from vwl.inference.psa_labels import PsaLabelsStage
from vwl.inference.psa_walk import PsaWalkStage
from vwl.inference.runner import Shard, process
from vwl.inference.segment import SegmentStage
from vwl.inference.stage import Stage
from vwl.inference.walk import WalkStage
from vwl.models.classifier import Classifier
from vwl.models.deeplab import DeepLabV2
from vwl.models.irnet import BoundaryNet
from vwl.models.lpcam import PrototypeClassifier
from vwl.models.psa import AffinityNet
from vwl.models.recam import ReactivatedClassifier
from vwl.storage.folder import Folder
from vwl.storage.score_maps import MapReader
from vwl.training.checkpoint import load
from vwl.training.distributed import device
from vwl.training.loop import WEIGHTS

NETWORK_STAGES = frozenset({"cam", "walk", "segment"})
"""Stages that run a network, on a GPU where there is one."""
PROCESSES_PER_GPU = 4
"""Processes that share a GPU if there are enough CPUs: while one decodes, walks or refines, the network of another runs."""

ProcessShard = Callable[[Shard], dict[str, str]]


@dataclass(frozen=True)
class InferenceSpec:
    """An inference stage as it is sent to workers.

    Attributes:
        stage: `cam`, `crf`, `irnet-labels`, `psa-labels`, `walk`, `masks` or `segment`.
        recipe: all settings.
        index_path: the data set's index table.
        run: the run folder, with the results of earlier stages.
        threshold: resolved background score (crf, masks).
        class_scales: factors by class id that maps are multiplied by before they are compared with the threshold (crf, masks).
        strict: stop at the first image that fails, instead of listing it.
        index: classes, palette and root of the data set, without rows, which come with the shards; none to read the table.
    """

    stage: str
    recipe: Recipe
    index_path: str
    run: Folder
    threshold: float | None = None
    strict: bool = False
    class_scales: Mapping[int, float] = field(default_factory=dict)
    index: Index | None = None

    def processor(self) -> ProcessShard:
        """Build the stage and return the function that processes one of its shards and returns what failed, see `process`.

        Raises:
            VwlError: as `build_stage`.
        """
        return partial(process, build_stage(self), out=self.run / self.stage, strict=self.strict)


def hide_gpus(stage: str) -> None:
    """Hide the GPUs from a process that works on a stage without a network; call it before torch uses CUDA.

    Such a stage has one process per CPU. Their dense CRFs would all run on the same GPU otherwise.
    """
    if stage not in NETWORK_STAGES:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def build_stage(spec: InferenceSpec) -> Stage:
    """Build a stage with its trained network and inputs.

    Raises:
        VwlError: an earlier stage's weights or maps are missing or damaged.
    """
    recipe, run = spec.recipe, spec.run
    index = read_index(spec.index_path) if spec.index is None else spec.index
    maps = MapReader(run / "cam")
    if spec.stage == "cam":
        return _build_cam(recipe, index, run)
    if spec.stage == "irnet-labels":
        return IrnetLabelsStage(recipe, index, maps)
    if spec.stage == "psa-labels":
        return PsaLabelsStage(recipe, index, maps)
    if spec.stage == "walk" and recipe.refiner == "psa":
        return PsaWalkStage(recipe, index, maps, load_affinity_net(recipe, run))
    if spec.stage == "walk":
        return WalkStage(recipe, index, maps, load_boundary_net(recipe, run))
    if spec.stage == "segment":
        return SegmentStage(recipe, index, load_segmenter(recipe, index, run))
    assert spec.threshold is not None
    if spec.stage == "crf":
        return CrfStage(recipe, index, MapReader(run / "cam", spec.class_scales), spec.threshold)
    if spec.stage == "masks":
        refined = run / ("cam" if recipe.refiner == "none" else "walk")
        return MasksStage(MapReader(refined, spec.class_scales), spec.threshold, index)
    raise ValueError(spec.stage)


def _build_cam(recipe: Recipe, index: Index, run: Folder) -> CamStage:
    network = cam_network(recipe)
    if network == "lpcam":
        model = PrototypeClassifier(recipe.classifier, index.num_objects, recipe.lpcam.clusters)
        return LpcamStage(recipe, index, _with_weights(model, run / "lpcam"))
    if network == "recam":
        return CamStage(recipe, index, _with_weights(ReactivatedClassifier(recipe.classifier, index.num_objects), run / "recam"))
    return CamStage(recipe, index, load_classifier(recipe, index, run))


Network = TypeVar("Network", bound=torch.nn.Module)


def load_classifier(recipe: Recipe, index: Index, run: Folder) -> Classifier:
    """Return a run's trained classifier, ready for inference."""
    return _with_weights(Classifier(recipe.classifier, index.num_objects), run / "classifier")


def load_boundary_net(recipe: Recipe, run: Folder) -> BoundaryNet:
    """Return a run's trained boundary network, ready for inference."""
    return _with_weights(BoundaryNet(recipe.irnet.backbone), run / "irnet")


def load_affinity_net(recipe: Recipe, run: Folder) -> AffinityNet:
    """Return a run's trained affinity network, ready for inference."""
    return _with_weights(AffinityNet(recipe.psa), run / "psa")


def load_segmenter(recipe: Recipe, index: Index, run: Folder) -> DeepLabV2:
    """Return a run's trained segmentation model, ready for inference."""
    return _with_weights(DeepLabV2(recipe.segmenter, len(index.classes)), run / "segmenter")


def _with_weights(network: Network, folder: Folder) -> Network:
    try:
        network.load_state_dict(load(folder, WEIGHTS)["model"])
    except Damaged as error:
        raise VwlError(f"{error}; delete it and train its stage again (vwl train {_name(folder)})") from None
    except (RuntimeError, KeyError, TypeError):
        raise VwlError(
            f"{folder.uri_of(WEIGHTS)} is of another network or version of vwl; "
            f"delete {folder} and train the stage again (vwl train {_name(folder)})"
        ) from None
    return network.to(device()).eval().requires_grad_(False)


def _name(folder: Folder) -> str:
    return folder.path.rstrip("/").rpartition("/")[2]
