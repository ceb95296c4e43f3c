"""LPCAM's prototypes: local features of training images are clustered for each class, and the clusters that stand for it are chosen.

It runs as a training without steps, so that the images are shared by the workers of a training. An interrupted one starts from the
beginning: it is a forward pass over some images of each class.
"""

import numpy as np
import torch

from vwl.config.recipe import Classifier as Settings
from vwl.config.recipe import Recipe
from vwl.data.index import Index, Rows
from vwl.data.sampler import generator
from vwl.errors import VwlError
from vwl.maps.lpcam import chosen, class_probabilities, direction, inside, without_prototypes
from vwl.models.lpcam import PrototypeClassifier
from vwl.models.recam import ReactivatedClassifier
from vwl.models.weights import load_weights
from vwl.storage.folder import Folder
from vwl.training.checkpoint import load
from vwl.training.classifier import ClassifierTask
from vwl.training.distributed import all_reduce, device, rank, world_size
from vwl.training.k_means import k_means
from vwl.training.loop import WEIGHTS

NUM_BLOCKS = 32
"""Blocks that the images are divided into."""
Cells = dict[tuple[int, bool], dict[int, torch.Tensor]]
"""By object class (from 0) and whether inside its maps: the features (n, d) of each of this worker's blocks."""


class LpcamTask(ClassifierTask):
    """Finds the prototypes of each class with a trained classifier.

    Features are those of images at the mean size of training. An image without labels gives none. A class that has no training image, or
    no cluster that the classifier is sure enough of, gets no prototypes; the CAM stage then makes its maps by the weights.
    """

    name = "lpcam"
    model: PrototypeClassifier

    def __init__(self, recipe: Recipe, index: Index, rows: Rows, held_out: Rows, trained: Folder) -> None:
        """Take the folder of the weights of the classifier, or of ReCAM; the others as in `ClassifierTask`."""
        self.trained, self.lpcam, self.reactivated = trained, recipe.lpcam, bool(recipe.recam.epochs)
        super().__init__(recipe, index, rows, held_out)

    def schedule(self, recipe: Recipe) -> Settings:
        """Return the classifier's section, without epochs."""
        return recipe.classifier.model_copy(update={"epochs": 0})

    def network(self) -> PrototypeClassifier:
        """Return the trained classifier without prototypes.

        Raises:
            VwlError: the weights are damaged.
        """
        model = PrototypeClassifier(self.settings, self.index.num_objects, self.lpcam.clusters)
        state, source = load(self.trained, WEIGHTS)["model"], self.trained.uri_of(WEIGHTS)
        load_weights(model, state, source)
        weight = model.image_head.weight.detach()
        if self.reactivated:
            trained = ReactivatedClassifier(self.settings, self.index.num_objects)
            load_weights(trained, state, source, strict=True)
            weight = trained.map_weight.detach()
        model.weight_of_maps.copy_(weight)
        return model

    @torch.no_grad()
    def start(self) -> dict[str, float]:
        """Find the prototypes, and return how many there are."""
        cells, unreadable = self._read_cells()
        model, settings = self.model, self.lpcam
        for number in range(self.index.num_objects):
            for side, within in enumerate((True, False)):
                rng = generator(self.seed, "lpcam clusters", number, side)
                found = k_means(cells[number, within], NUM_BLOCKS, model.centres.shape[3], settings.clusters, settings.iterations, rng)
                model.centres[side, number, : len(found.sizes)] = found.centres.to(model.centres)
                model.sizes[side, number, : len(found.sizes)] = found.sizes.to(model.sizes)
            centres, sizes = model.centres[:, number], model.sizes[:, number]
            probability = torch.stack([class_probabilities(some, model.map_weight)[:, number] for some in centres])
            model.chosen[:, number] = chosen(probability, sizes, settings.prototype_probability, settings.context_probability)
            if model.chosen[0, number].any():
                prototypes, context = (some[which] for some, which in zip(centres, model.chosen[:, number], strict=True))
                model.directions[number] = direction(prototypes, context)
        scores = {
            "prototypes": float(model.chosen[0].sum()),
            "context_clusters": float(model.chosen[1].sum()),
            "classes_without_prototypes": float((~model.has_prototypes).sum()),
        }
        return {**scores, "train_unreadable": float(unreadable)} if unreadable else scores

    def notes(self) -> list[str]:
        """Return a line on the classes without prototypes, if there are any."""
        line = without_prototypes(self.model.has_prototypes.tolist(), self.index.classes[1:])
        return [] if line is None else [line]

    def _read_cells(self) -> tuple[Cells, int]:
        """Return the features of this worker's blocks, and how many images, on all workers, cannot be read."""
        wanted = images_by_class(self.rows.targets(self.index.num_objects), self.lpcam.images_per_class)
        cells: Cells = {(number, within): {} for number in range(self.index.num_objects) for within in (True, False)}
        unreadable = 0
        for block, images in enumerate(np.array_split(np.array(sorted(wanted), np.int64), NUM_BLOCKS)):
            if block % world_size() != rank():
                continue
            parts: dict[tuple[int, bool], list[torch.Tensor]] = {}
            for image in images:
                try:
                    features = self._features(np.asarray(self.index.read_image(self.rows[image])))
                except VwlError:
                    unreadable += 1
                    continue
                for number in wanted[int(image)]:
                    for within, found in zip((True, False), self._cells_of(features, image, number), strict=True):
                        parts.setdefault((number, within), []).append(found.cpu())
            for key, some in parts.items():
                cells[key][block] = torch.cat(some)
        count = all_reduce(torch.tensor([float(unreadable)], device=device()))
        return cells, int(count.item())

    def _cells_of(self, features: torch.Tensor, image: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (n, d) inside and outside the map of a class, drawn at random from those of an image (1, d, h, w)."""
        within = inside(self.model.weight_maps(features)[0, [number]], self.lpcam.foreground_score)[0].flatten().cpu().numpy()
        rng, cells = generator(self.seed, "lpcam cells", self.rows[image].image_id, number), features[0].flatten(1).T
        drawn = [rng.permutation(np.flatnonzero(side))[: self.lpcam.cells_per_image] for side in (within, ~within)]
        return cells[torch.from_numpy(np.sort(drawn[0]))], cells[torch.from_numpy(np.sort(drawn[1]))]


def images_by_class(targets: np.ndarray, most: int) -> dict[int, list[int]]:
    """Return the object classes (from 0) that each image is to give features for, by its number.

    Args:
        targets: (n, C) bool, which classes each image shows.
        most: images of a class, spread evenly over all that show it.
    """
    found: dict[int, list[int]] = {}
    for number, column in enumerate(targets.T):
        shown = np.flatnonzero(column)
        for at in np.linspace(0, len(shown), min(len(shown), most), endpoint=False).astype(int):
            found.setdefault(int(shown[at]), []).append(number)
    return found
