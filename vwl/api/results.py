"""The results of a run as objects: scores, masks, metrics, report and models, read from the run folder when they are asked for."""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import torch

from vwl.api.events import Metrics
from vwl.api.history import training_metrics
from vwl.config.recipe import Recipe
from vwl.data.index import Index
from vwl.errors import VwlError
from vwl.model_file.models import Classifier, SegmentationModel
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, read_result
from vwl.workflow.inputs import failures_to_report
from vwl.workflow.model_export import model_of_run
from vwl.workflow.run_folder import Run
from vwl.workflow.scoring import ScoreLine, score_table
from vwl.workflow.stages import STAGES, stages_of
from vwl.workflow.status import StageStatus, stage_status

MaskStage = Literal["crf", "irnet-labels", "masks", "segment"]
_REPORTS = ("report.html", "pictures/all.png")


class RunResult:
    """A run folder. It can be opened while the run works or after it was stopped; attributes show what is there now.

    Attributes:
        run: the workflow's object, which is no part of the public API.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def __repr__(self) -> str:
        return f"RunResult({self.folder!r})"

    @property
    def folder(self) -> str:
        """Path or URI of the run folder."""
        return self.run.folder.uri

    @property
    def recipe(self) -> Recipe:
        """All settings of the run."""
        return self.run.recipe

    @property
    def index(self) -> Index:
        """The data set of the run."""
        return self.run.index

    @property
    def status(self) -> list[StageStatus]:
        """How far each stage is, in the order of the stages."""
        return [stage_status(self.run, stage) for stage in stages_of(self.run.recipe)]

    @property
    def scores(self) -> list[ScoreLine]:
        """The mIoU and other scores of each finished stage and split, percent; empty where there is no ground truth."""
        return score_table(self.run)

    @property
    def masks(self) -> "Masks":
        """The masks of the segmentation model, by image id: of the images with ground truth, or of the training images."""
        return self.stage_masks("segment")

    def stage_masks(self, stage: MaskStage) -> "Masks":
        """Return the masks of a stage: `crf`, `irnet-labels`, `masks` (the pseudo masks) or `segment`.

        Raises:
            VwlError: the stage writes no masks, or is not done.
        """
        if stage not in STAGES or STAGES[stage].kind != "masks":
            raise VwlError(f"the stage '{stage}' writes no masks; those that do are crf, irnet-labels, masks and segment")
        if not self.run.is_done(stage):
            raise VwlError(f"the stage {stage} of {self.folder} is not done; finish the run with vwl.run(out={self.folder!r})")
        return Masks(self.run, stage)

    @property
    def failed(self) -> dict[str, dict[str, str]]:
        """Reason by image id of each image that could not be processed, by stage."""
        found = {}
        for stage in stages_of(self.run.recipe):
            manifest = self.run.manifest(stage)
            if manifest is not None and (images := failures_to_report(self.run, stage)):
                found[stage] = {image_id: manifest.failed[image_id] for image_id in images}
        return found

    @property
    def report(self) -> str | None:
        """Path or URI of the report that the last stage has written; none before."""
        name = next((name for name in _REPORTS if self.run.folder.exists(name)), None)
        return None if name is None else self.run.folder.uri_of(name)

    def metrics(self, stage: Literal["classifier", "irnet", "segmenter"]) -> list[Metrics]:
        """Return the metrics that a training has logged until now.

        Raises:
            VwlError: the stage is no training.
        """
        if stage not in STAGES or STAGES[stage].kind != "train":
            raise VwlError(f"'{stage}' is no training; trainings are classifier, irnet and segmenter")
        return training_metrics(self.run, stage)

    def model(
        self, stage: Literal["segmenter", "classifier"] = "segmenter", device: str | torch.device | None = None
    ) -> SegmentationModel | Classifier:
        """Return the trained model, as `vwl.load_model` does.

        Raises:
            VwlError: the training of this stage is not done, or there is no such device.
        """
        return model_of_run(self.run, stage, device)


class Masks(Mapping[str, np.ndarray]):
    """The masks of a stage by image id: class ids (H, W) uint8, 255 undecided. A mask is read when it is asked for."""

    def __init__(self, run: Run, stage: str) -> None:
        """List the masks of a stage that is done."""
        self._folder: Folder = run.stage_folder(stage)
        manifest = run.manifest(stage)
        assert manifest is not None
        self._ids = [row.image_id for row in run.stage_rows(stage) if row.image_id not in manifest.failed]
        self._known = frozenset(self._ids)

    def __getitem__(self, image_id: str) -> np.ndarray:
        self.path(image_id)
        return decode_mask(read_result(self._folder, image_id), image_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def path(self, image_id: str) -> str:
        """Return the path or URI of a mask's file, an indexed PNG.

        Raises:
            KeyError: there is no mask of this image.
        """
        if image_id not in self._known:
            raise KeyError(image_id)
        return self._folder.uri_of(f"{image_id}.png")
