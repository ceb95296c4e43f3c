import numpy as np
import pytest

from tests.helpers import tiny_scenes
from vwl.data.animals import ANIMALS, draw_scene
from vwl.data.check import check_index
from vwl.data.scenes import prepare_scenes
from vwl.errors import VwlError

TINY = {"heights": (64, 80), "widths": (72, 96), "num_classes": 2}


def drawn(number, num_classes=4):
    return draw_scene(np.random.default_rng((0, number)), 96, 120, num_classes)


def test_check_finds_no_problem_in_scenes(tmp_path):
    index = tiny_scenes(tmp_path)
    assert [row.split for row in index.rows] == ["train"] * 6 + ["val"] * 3
    assert check_index(index) == []


def test_the_seed_determines_every_byte(tmp_path):
    def files(name, seed):
        index, _ = prepare_scenes(tmp_path / name, 3, 1, seed=seed, **TINY)
        return [index.root.read(path) for row in index.rows for path in (row.image, row.mask)]

    assert files("a", 0) == files("b", 0)
    assert not set(files("a", 0)) & set(files("c", 1))


def test_a_larger_data_set_contains_the_smaller_one(tmp_path):
    small, _ = prepare_scenes(tmp_path, 2, 1, **TINY)
    large, notes = prepare_scenes(tmp_path, 4, 1, **TINY)
    assert set(small.rows) < set(large.rows)
    assert notes == ["drew 2 scenes, kept 3 existing ones"]


def test_an_interrupted_data_set_is_completed_and_existing_scenes_are_not_touched(tmp_path):
    index, _ = prepare_scenes(tmp_path, 3, 0, **TINY)
    before = index.root.read(index.rows[1].mask)
    index.root.delete(index.rows[1].mask)
    kept = (tmp_path / index.rows[0].image).stat().st_mtime_ns
    again, notes = prepare_scenes(tmp_path, 3, 0, **TINY)
    assert (again.rows, again.classes) == (index.rows, index.classes)
    assert again.root.read(index.rows[1].mask) == before
    assert (tmp_path / index.rows[0].image).stat().st_mtime_ns == kept
    assert notes == ["drew 1 scenes, kept 2 existing ones"]


def test_every_image_shows_one_to_three_classes():
    counts = [len(set(np.unique(drawn(number)[1])) - {0}) for number in range(40)]
    assert set(counts) == {1, 2, 3}


def test_animals_contrast_with_the_ground_along_their_outlines():
    inside, outside = [], []
    for number in range(20):
        image, mask, _ = drawn(number)
        grey = image.astype(float).mean(2)
        step = np.abs(np.diff(grey, axis=1))
        edge = (mask[:, 1:] > 0) != (mask[:, :-1] > 0)
        inside.append(step[edge].mean())
        outside.append(step[(mask[:, 1:] == 0) & (mask[:, :-1] == 0)].mean())
    assert np.mean(inside) > 4 * np.mean(outside)


def test_face_colours_are_unique_and_two_classes_share_a_skin():
    faces = [colour for animal in ANIMALS for colour in animal.face_colours]
    assert len(set(faces)) == len(faces)
    skins = [animal.skin for animal in ANIMALS]
    assert skins[0::2] == skins[1::2]
    assert len(set(skins)) == len(ANIMALS) / 2
    for animal in ANIMALS:
        assert animal.head**2 < 0.5 * animal.body  # areas divided by pi; the body's half length is 1


def test_most_pixels_of_an_animal_are_not_its_head():
    shares = []
    for number in range(30):
        image, mask, _ = drawn(number, num_classes=1)  # beetles: red and white rings on the head
        pixels = image[mask == 1].astype(int)
        red, green, blue = pixels.T
        head = (red > 150) & ((np.abs(green - blue) < 60) & ((green < 90) | (green > 170)))
        shares.append(head.mean())
    assert 0.02 < np.median(shares) < 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 7}, "must be 1 to 6, not 7"),
        ({"num_train": -1}, "cannot be negative"),
        ({"num_train": 0}, "cannot be negative and not both 0"),
        ({"seed": -1}, "the seed of scenes is -1; it cannot be negative"),
        ({"heights": (64, 1_000_000)}, "at most 4096 pixels"),
        ({"heights": (90, 80)}, "heights of scenes must be a range"),
        ({"widths": (8, 80)}, "from at least 32 to at most 4096 pixels"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(VwlError, match=message):
        prepare_scenes(tmp_path, **{"num_train": 1, "num_val": 0, **TINY, **settings})
    assert not list(tmp_path.iterdir())


def test_a_folder_with_scenes_of_other_settings_is_refused(tmp_path):
    prepare_scenes(tmp_path, 1, 0, **TINY)
    with pytest.raises(VwlError, match=r"other settings \(see scenes.json"):
        prepare_scenes(tmp_path, 1, 0, seed=5, **TINY)


def test_heads_are_parts_of_the_mask_and_never_all_of_it():
    for number in range(20):
        scene = drawn(number)
        on_head = scene.heads > 0
        assert on_head.any()
        np.testing.assert_array_equal(scene.heads[on_head], scene.mask[on_head])
        assert on_head.sum() < 0.5 * (scene.mask > 0).sum()


def test_masks_of_heads_are_added_to_scenes_drawn_without(tmp_path):
    index, _ = prepare_scenes(tmp_path, 2, 0, **TINY)
    assert not (tmp_path / "heads").exists()
    before = index.root.read(index.rows[0].image)
    _, notes = prepare_scenes(tmp_path, 2, 0, **TINY, heads=True)
    assert notes == ["drew 2 scenes, kept 0 existing ones"]
    assert index.root.read(index.rows[0].image) == before
    assert sorted(path.name for path in (tmp_path / "heads").iterdir()) == ["train_00000.png", "train_00001.png"]
