"""One image of any size through the inference stages with tiny untrained networks; as a script, with its peak memory."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from tests.inference.conftest import draw, save_index
from tests.trainings import RECIPE
from vwl.inference.cam import CamStage
from vwl.inference.crf import CrfStage
from vwl.inference.irnet_labels import IrnetLabelsStage
from vwl.inference.segment import SegmentStage
from vwl.inference.walk import WalkStage
from vwl.models.classifier import Classifier
from vwl.models.deeplab import DeepLabV2
from vwl.models.irnet import BoundaryNet
from vwl.storage.folder import Folder
from vwl.storage.score_maps import MapReader, ScoreMap, write_maps

LABELS = (1, 7, 20)
NUM_OBJECTS = 20
NAMES = ("cam", "crf", "irnet-labels", "walk", "segment")


def through_the_stages(folder: Path, height: int, width: int) -> dict[str, ScoreMap | np.ndarray]:
    """Draw an image of VOC's classes and return what each stage makes of it at its own size, the maps at the largest of the paper's."""
    classes = ("background", *(f"class{number}" for number in range(NUM_OBJECTS)))
    index = save_index(folder / "images", {"one": (draw(height, width, 0), LABELS)}, classes)
    (row,) = index.rows
    recipe = RECIPE.model_copy(update={"cam": RECIPE.cam.model_copy(update={"scales": (2.0,)})})
    torch.manual_seed(0)
    found: dict[str, ScoreMap | np.ndarray] = {}
    for name in NAMES:
        began = time.monotonic()
        maps = MapReader(Folder(folder / "cam"))
        stage = {
            "cam": lambda: CamStage(recipe, index, Classifier(RECIPE.classifier, NUM_OBJECTS)),
            "crf": lambda maps=maps: CrfStage(RECIPE, index, maps, 0.15),
            "irnet-labels": lambda maps=maps: IrnetLabelsStage(RECIPE, index, maps),
            "walk": lambda maps=maps: WalkStage(RECIPE, index, maps, BoundaryNet(RECIPE.irnet.backbone)),
            "segment": lambda: SegmentStage(RECIPE, index, DeepLabV2(RECIPE.segmenter, 1 + NUM_OBJECTS)),
        }[name]()
        found[name] = result = stage(row)
        if isinstance(result, ScoreMap):
            write_maps(Folder(folder / name), "part-00000.parquet", [result])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"stage": name, "seconds": round(time.monotonic() - began, 1), "peak_gib": round(peak, 2)}), flush=True)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    through_the_stages(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
