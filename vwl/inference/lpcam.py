"""The CAM stage with LPCAM: maps by similarity to the prototypes of each class (`vwl.maps.lpcam`)."""

from collections.abc import Sequence

import numpy as np
import torch

from vwl.config.recipe import Recipe
from vwl.data.index import Index
from vwl.inference.cam import CamStage
from vwl.models.lpcam import PrototypeClassifier


class LpcamStage(CamStage):
    """The score maps of a data set's images. The features of an image and its flip are added, as in the published code.

    A class without prototypes has the map that `cam.method: weights` gives it.
    """

    model: PrototypeClassifier

    def __init__(self, recipe: Recipe, index: Index, model: PrototypeClassifier) -> None:
        """Take a classifier with prototypes."""
        super().__init__(recipe, index, model)
        self._has_prototypes = model.has_prototypes.cpu()

    def _fused(self, view: np.ndarray, labels: Sequence[int]) -> torch.Tensor:
        features = self._features(view)
        numbers = [label - 1 for label in labels]
        pair = features[:1] + features[1:].flip(3) if self.settings.hflip else features
        found = self.model.prototype_maps(pair)[0, numbers].float().cpu()
        has = self._has_prototypes[numbers]
        if has.all():
            return found
        return torch.where(has[:, None, None], found, self._fused_pair(self.model.weight_maps(features), labels))
