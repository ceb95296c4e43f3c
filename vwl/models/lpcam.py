"""A classifier with LPCAM's prototypes (`vwl.maps.lpcam`), which the CAM stage compares features with when `cam.method` is `lpcam`."""

import torch

from vwl.config.recipe import Classifier as Settings
from vwl.maps.cam import class_activation
from vwl.maps.lpcam import similarity_maps
from vwl.models.classifier import Classifier


class PrototypeClassifier(Classifier):
    """A trained classifier, the centres of the clusters of each class, and what its maps are computed from.

    Attributes:
        weight_of_maps: W (C, d) of Eq. 1, of the classifier or, after ReCAM, its product of weights.
        centres: (2, C, k, d), of the clusters inside and outside the maps of each class.
        sizes: (2, C, k) int64, features in each cluster.
        chosen: (2, C, k) bool, which clusters are prototypes and which are context.
        directions: (C, d), as `vwl.maps.lpcam.direction` returns them; 0 for a class without prototypes.
    """

    weight_of_maps: torch.Tensor
    centres: torch.Tensor
    sizes: torch.Tensor
    chosen: torch.Tensor
    directions: torch.Tensor

    def __init__(self, settings: Settings, num_objects: int, num_clusters: int) -> None:
        """Build the network for `num_objects` classes, not counting the background, without prototypes."""
        super().__init__(settings, num_objects)
        dim, clusters = self.image_head.in_features, (2, num_objects, num_clusters)
        self.register_buffer("weight_of_maps", torch.zeros(num_objects, dim))
        self.register_buffer("centres", torch.zeros(*clusters, dim))
        self.register_buffer("sizes", torch.zeros(clusters, dtype=torch.int64))
        self.register_buffer("chosen", torch.zeros(clusters, dtype=torch.bool))
        self.register_buffer("directions", torch.zeros(num_objects, dim))

    @property
    def map_weight(self) -> torch.Tensor:
        """W (C, d) of Eq. 1."""
        return self.weight_of_maps

    @property
    def has_prototypes(self) -> torch.Tensor:
        """(C,) bool."""
        return self.chosen[0].any(dim=1)

    def weight_maps(self, features: torch.Tensor) -> torch.Tensor:
        """Return the maps (B, C, h, w) of features (B, d, h, w) that the weights give: Eq. 1."""
        return class_activation(features, self.map_weight)

    def prototype_maps(self, features: torch.Tensor) -> torch.Tensor:
        """Return the maps (B, C, h, w) of features (B, d, h, w) that the prototypes give; 0 for a class without."""
        return similarity_maps(features, self.directions)

    def maps_of(self, features: torch.Tensor) -> torch.Tensor:
        """Return the maps (B, C, h, w) of features (B, d, h, w): of the prototypes, or of the weights for a class without."""
        return torch.where(self.has_prototypes[:, None, None], self.prototype_maps(features), self.weight_maps(features))
