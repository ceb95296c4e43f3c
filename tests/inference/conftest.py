"""Images of awkward sizes, and small untrained networks, for the tests of the stages."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import TINY
from vwl.config.files import load_recipe
from vwl.config.recipe import Recipe
from vwl.constants import map_size
from vwl.data.index import Index, Row, make_index
from vwl.inference.runner import SHARD_SIZE
from vwl.models.classifier import Classifier
from vwl.models.deeplab import DeepLabV2
from vwl.models.irnet import BoundaryNet
from vwl.storage.folder import Folder
from vwl.storage.score_maps import MapReader, ScoreMap, write_maps

IMAGES = {
    "even": ((48, 64), (1, 2)),
    "odd": ((47, 61), (2,)),
    "flat": ((33, 200), (1, 2)),
    "tall": ((170, 9), (1,)),
    "small": ((5, 7), (2,)),
    "dot": ((1, 1), (1,)),
    "bare": ((40, 52), ()),
}
"""Height and width, and labels, of each image."""


def draw(height: int, width: int, seed: int) -> np.ndarray:
    """An image (H, W, 3) uint8 of smooth patches of colour."""
    patches = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC))


def save_index(folder: Path, images: dict[str, tuple[np.ndarray, tuple[int, ...]]], classes: Sequence[str]) -> Index:
    """Save images as PNG and index them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, (image, labels) in images.items():
        Image.fromarray(image).save(folder / f"{name}.png")
        rows.append(Row(name, f"{name}.png", labels, None, "train"))
    return make_index(rows, classes, folder, "images of a test")


def save_maps(folder: Folder, index: Index, maps: dict[str, np.ndarray]) -> MapReader:
    """Store the values (K, h, w) of each image as a stage would."""
    found = []
    for row in index.rows:
        if row.image_id in maps:
            width, height = index.read_image(row).size
            found.append(ScoreMap(row.image_id, row.labels, height, width, maps[row.image_id].astype(np.float16)))
    write_maps(folder, "part-00000.parquet", found)
    return MapReader(folder)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return load_recipe("demo", TINY)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """The `IMAGES`, of two classes."""
    drawn = {name: (draw(*size, number), labels) for number, (name, (size, labels)) in enumerate(IMAGES.items())}
    return save_index(tmp_path_factory.mktemp("images"), drawn, ("background", "cat", "dog"))


@pytest.fixture(scope="session")
def rows(images: Index) -> dict[str, Row]:
    return {row.image_id: row for row in images.rows}


@pytest.fixture(scope="session")
def maps(images: Index, tmp_path_factory: pytest.TempPathFactory) -> MapReader:
    """A random map of each label of each image."""
    rng = np.random.default_rng(1)
    values = {name: rng.random((len(labels), *map_size(*size))) for name, (size, labels) in IMAGES.items()}
    return save_maps(Folder(tmp_path_factory.mktemp("maps")), images, values)


@pytest.fixture(scope="session")
def classifier(recipe: Recipe) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(recipe.classifier, 2).eval()
    with torch.no_grad():
        model.image_head.weight.mul_(1e3)  # what an untrained network finds would else be next to nothing
    return model


@pytest.fixture(scope="session")
def boundary_net(recipe: Recipe) -> BoundaryNet:
    torch.manual_seed(0)
    return BoundaryNet(recipe.irnet.backbone).eval()


@pytest.fixture(scope="session")
def segmenter(recipe: Recipe) -> DeepLabV2:
    torch.manual_seed(0)
    return DeepLabV2(recipe.segmenter, 3).eval()


@pytest.fixture
def index(tmp_path) -> Index:
    """Images for three shards, the last of which is not full."""
    drawn = {f"p{number:02d}": (draw(9, 10 + number % 3, number), (1,)) for number in range(2 * SHARD_SIZE + 3)}
    return save_index(tmp_path / "images", drawn, ("background", "bright"))


@pytest.fixture
def out(tmp_path) -> Folder:
    return Folder(tmp_path / "out")
