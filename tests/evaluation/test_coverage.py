"""What maps cover of heads and bodies, counted pixel by pixel; and the positive control in a smaller form."""

import numpy as np
import pytest

from vwl.constants import map_size
from vwl.data.scenes import prepare_scenes
from vwl.errors import VwlError
from vwl.evaluation.coverage import coverage
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask
from vwl.storage.score_maps import MapReader, ScoreMap, write_maps

TINY = {"heights": (64, 80), "widths": (72, 96), "num_classes": 2}


def maps_of(index, folder, value) -> MapReader:
    """Maps of each image's labels; `value` makes the map of a class (h, w) from its id and the image's grid."""
    maps = []
    for row in index.rows:
        height, width = index.read_mask(row).shape
        grid = map_size(height, width)
        values = np.stack([value(row, class_id, grid) for class_id in row.labels]).astype(np.float16)
        maps.append(ScoreMap(row.image_id, row.labels, height, width, values))
    write_maps(Folder(folder), "part-00000.parquet", maps)
    return MapReader(Folder(folder))


def test_maps_of_everything_cover_everything_of_images_with_one_class(tmp_path):
    index, _ = prepare_scenes(tmp_path / "scenes", 12, 0, **TINY, heads=True)
    rows = [row for row in index.rows if len(row.labels) == 1]
    found = coverage(index, rows, maps_of(index, tmp_path / "maps", lambda row, c, grid: np.ones(grid)), 0.5)
    animals = [index.read_mask(row) > 0 for row in rows]
    assert (found.head_recall, found.body_recall) == (100, 100)
    assert found.precision == pytest.approx(100 * sum(a.sum() for a in animals) / sum(a.size for a in animals), abs=0.01)


def test_maps_of_the_heads_cover_few_bodies(tmp_path):
    index, _ = prepare_scenes(tmp_path / "scenes", 6, 0, **TINY, heads=True)

    def on_heads(row, class_id, grid):
        heads = decode_mask(index.root.read(f"heads/{row.image_id}.png"), "") == class_id
        return np.array([[heads[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean() for x in range(grid[1])] for y in range(grid[0])])

    found = coverage(index, index.rows, maps_of(index, tmp_path / "maps", on_heads), 0.5)
    assert found.head_recall > 80
    assert found.body_recall < 20


def test_scenes_without_masks_of_heads_are_refused(tmp_path):
    index, _ = prepare_scenes(tmp_path / "scenes", 1, 0, **TINY)
    with pytest.raises(VwlError, match="--heads"):
        coverage(index, index.rows, maps_of(index, tmp_path / "maps", lambda row, c, grid: np.ones(grid)), 0.5)
