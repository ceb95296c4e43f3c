"""Formats of score maps ("seeds") of other methods: told apart by their keys, read as maps of vwl's class ids at stride 4.

| format | content | maps |
|---|---|---|
| `irn` | `keys`, `cam`, `high_res` | objects from 0; also of AdvCAM, ReCAM, LPCAM and the authors' code |
| `puzzle` | `keys`, `cam`, `hr_cam`; or `keys`, `rw` | PuzzleCAM: keys are a leading 0, then objects from 1; no map of the 0 |
| `clip-es` | `keys`, `attn_highres` | objects from 0; also of WeCLIP+ |
| `toco` | `keys`, `high_res` | objects from 0 |
| `weaktr` | `keys`, `prob` | outputs of the classes it predicts: 0 is the background, objects from 1 |
| `excel` | `keys_gt`, `valid_lam`; or `keys`, `valid_cam` | objects from 0; a first map without a key is the background |
| `logits` | `msc_seg`, `msc_segs` or `segs` | outputs for the background and all objects: ToCo, DuPL, ExCEL, WeCLIP+ |
| `psa` | {class: map} | objects from 0; also of SEAM, SC-CAM, S2C, MCTformer, WeakTr |
| `psa-crf` | {class: map} | 0 is the background, objects from 1 |
| `array` | an array | a map of each label, or of each object, or of the background and each object |
| `png` | {class: map} | 0 is the background, objects from 1 |

Outputs become probabilities over the background and the image's labels: by a softmax, or by division by their sum if they are
probabilities already. Other maps are scores: what is negative becomes 0,
and a map whose maximum is above 1 is divided by it (maps that have their own background: all by the largest).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vwl.constants import map_size
from vwl.errors import VwlError
from vwl.maps.cam import downsample
from vwl.maps.seed_scores import probabilities, scores

Content = Mapping[Any, Any] | np.ndarray


@dataclass(frozen=True)
class SeedFormat:
    """A format.

    Attributes:
        markers: keys of which one tells the format; the maps are the first of them, or `cam`, whichever has a size that fits.
        background: whether it has a map of the background.
        outputs: whether its maps are outputs of a segmentation network, which may predict other classes than the image's labels.
    """

    markers: tuple[str, ...]
    background: bool = False
    outputs: bool = False


FORMATS: dict[str, SeedFormat] = {
    "puzzle": SeedFormat(("hr_cam", "rw")),
    "clip-es": SeedFormat(("attn_highres",)),
    "excel": SeedFormat(("valid_lam", "valid_cam")),
    "weaktr": SeedFormat(("prob",), background=True, outputs=True),
    "logits": SeedFormat(("msc_seg", "msc_segs", "segs"), background=True, outputs=True),
    "irn": SeedFormat(("cam",)),
    "toco": SeedFormat(("high_res",)),
    "psa": SeedFormat(()),
    "psa-crf": SeedFormat((), background=True),
    "array": SeedFormat(()),
    "png": SeedFormat(()),
}
"""All formats by name; a file is of the first whose marker it holds."""


def detect(content: Content, labels: Sequence[int]) -> str:
    """Return the name of a file's format.

    Args:
        content: what the file holds.
        labels: class ids of its image, which tell whether classes are counted from 0 (`psa`) or 0 is the background (`psa-crf`).

    Raises:
        VwlError: it is of none.
    """
    if isinstance(content, np.ndarray):
        if content.ndim == 2 and content.dtype.kind in "iu":
            raise VwlError(f"is an array {content.shape} of whole numbers, segment ids or a mask, not score maps (K, H, W)")
        return "array"
    for name, known in FORMATS.items():
        if any(marker in content for marker in known.markers):
            return name
    if all(isinstance(key, int | np.integer) for key in content):
        return "psa-crf" if _has_background(content, set(labels)) else "psa"
    raise VwlError(f"has the keys {_listed(content)}, which are of no known format ({', '.join(FORMATS)})")


def has_background(content: Content, name: str, num_objects: int) -> bool:
    """Return whether a file of a format has a map of the background; an array, PNG files and those of ExCEL may have one."""
    if name == "array":
        return len(content) == num_objects + 1
    if name == "excel":
        return 0 in _excel(content, (), num_objects)[0]
    return FORMATS[name].background or (name == "png" and 0 in content)


def _has_background(content: Mapping[Any, Any], labels: set[int]) -> bool:
    """Return whether class 0 of a dict by class is the background and not the first object."""
    keys = {int(key) for key in content}
    if 0 not in keys:
        return False
    from_background, from_object = keys - {0} == labels, {key + 1 for key in keys} == labels
    if from_background != from_object:
        return from_background
    maps = [_as_array(value) for value in content.values()]
    if any(own.dtype.kind not in "fiu" or own.shape != maps[0].shape or own.size == 0 for own in maps):
        return False
    return bool(np.abs(np.sum(maps, axis=0, dtype=np.float64) - 1).max() < 0.01)


@dataclass(frozen=True)
class Seeds:
    """The maps of one image.

    Attributes:
        classes: class ids (K,), ascending; 0, if present, is the background.
        maps: (K, ceil(H / 4), ceil(W / 4)) float32, 0..1.
        left_out: classes of the file that are not labels of the image.
    """

    classes: tuple[int, ...]
    maps: np.ndarray
    left_out: tuple[int, ...] = ()


def read_seeds(content: Content, name: str, labels: Sequence[int], num_objects: int, height: int, width: int) -> Seeds:
    """Return the maps of the image's labels, and of the background if the file has one.

    Args:
        content: what the file holds.
        name: of its format.
        labels: class ids of its image.
        num_objects: number of object classes of the data set.
        height, width: the image's size, pixels.

    Raises:
        VwlError: the content is not of the format, or has only classes that are not labels, or another size; says what is wrong with the
            file, whose name the caller knows.
    """
    classes, found = _READERS[name](content, labels, num_objects)
    if len(set(classes)) != len(classes):
        raise VwlError("has two maps of one class")
    wrong = [class_id for class_id in classes if not 0 <= class_id <= num_objects]
    if wrong:
        raise VwlError(f"has a map of class {wrong[0]}, where the data set has 1 to {num_objects} (counted as {name} does); check --format")
    kept = [position for position, class_id in enumerate(classes) if class_id in {0, *labels}]
    objects = [class_id for class_id in classes if class_id]
    known = FORMATS[name]
    if objects and labels and not known.outputs and not set(objects) & set(labels):
        raise VwlError(
            f"has maps of the classes {_listed(objects)}, none of them a label of the image ({_listed(labels)}); "
            "check --format and the order of the classes in the index"
        )
    holds_all = name in {"array", "logits"}
    left_out = () if holds_all else tuple(class_id for class_id in objects if class_id not in labels)
    if not kept and not known.outputs:
        return Seeds((), np.zeros((0, *map_size(height, width)), np.float32), left_out)
    maps = _fitting(found, len(classes), height, width)[kept]
    classes = [classes[position] for position in kept]
    if not np.isfinite(maps).all():
        raise VwlError("has scores that are not finite")
    if known.outputs and 0 not in classes:  # predicted nowhere
        nowhere = np.full((1, *maps.shape[1:]), -np.inf if classes else 0, np.float32)
        classes, maps = [0, *classes], np.concatenate([nowhere, maps])
    maps = probabilities(maps) if known.outputs else scores(maps, common=0 in classes)
    if maps.shape[1:] != map_size(height, width):
        maps = np.clip(downsample(maps), 0, 1)
    order = np.argsort(classes)
    return Seeds(tuple(int(classes[position]) for position in order), maps[order], left_out)


def _fitting(found: Sequence[Any], num_maps: int, height: int, width: int) -> np.ndarray:
    """Return the first of some arrays that has the size of a score map, or else the image's, as (K, h, w) float32."""
    arrays = [_numbers(array) for array in found]
    arrays = [array[0] if array.ndim == 4 and len(array) == 1 else array for array in arrays]
    for size in (map_size(height, width), (height, width)):
        for array in arrays:
            if array.shape == (num_maps, *size):
                with np.errstate(over="ignore"):  # becomes inf, which is refused
                    return array.astype(np.float32)
    shapes = " and ".join(str(array.shape) for array in arrays)
    stored = ", ".join(str(size) for size in (map_size(height, width), (height, width)))
    raise VwlError(f"has maps of shape {shapes} for {num_maps} classes of an image of {height} x {width} pixels; expected {stored}")


def _numbers(value: Any) -> np.ndarray:
    array = _as_array(value)
    if array.dtype.kind not in "fiu":
        raise VwlError("has maps that are not numbers")
    return array


def _as_array(value: Any) -> np.ndarray:
    """Return a value as an array; of objects if its parts have several lengths."""
    try:
        return np.asarray(value)
    except ValueError:
        return np.full(1, None, object)


def _ids(content: Content, key: str) -> list[int]:
    if isinstance(content, np.ndarray) or key not in content:
        raise VwlError(f"has no key '{key}'{'' if isinstance(content, np.ndarray) else f'; it has {_listed(content)}'}")
    array = _as_array(content[key]).ravel()
    whole = array.dtype.kind in "iu" or (array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.round(array)).all())
    if not whole and array.size:
        raise VwlError(f"has '{key}' that are not class ids")
    return [int(class_id) for class_id in array]


def _held(content: Content, *keys: str) -> list[Any]:
    """Return the values of those keys that a file has."""
    found = [] if isinstance(content, np.ndarray) else [content[key] for key in keys if key in content]
    if not found:
        raise VwlError(f"has none of the keys {', '.join(keys)}{'' if isinstance(content, np.ndarray) else f'; it has {_listed(content)}'}")
    return found


Found = tuple[list[int], list[Any]]
"""Class ids, and arrays of their maps of which one is taken."""


def _from_objects(*keys: str) -> Callable[[Content, Sequence[int], int], Found]:
    """Return a reader of maps whose `keys` are objects counted from 0."""
    return lambda content, labels, num_objects: ([key + 1 for key in _ids(content, "keys")], _held(content, *keys))


def _puzzle(content: Content, labels: Sequence[int], num_objects: int) -> Found:
    keys = _ids(content, "keys")
    if keys[:1] != [0]:
        raise VwlError(f"has the keys {keys}, where puzzle has a leading 0")
    return keys[1:], _held(content, "cam", "hr_cam", "rw")


def _weaktr(content: Content, labels: Sequence[int], num_objects: int) -> Found:
    return _ids(content, "keys"), _held(content, "prob")


def _excel(content: Content, labels: Sequence[int], num_objects: int) -> Found:
    maps = _held(content, "valid_lam", "valid_cam")[:1]
    keys = _ids(content, "keys_gt" if "valid_lam" in content else "keys")
    has_first = _numbers(maps[0]).shape[:1] == (len(keys) + 1,)
    return [*([0] if has_first else []), *(key + 1 for key in keys)], maps


def _logits(content: Content, labels: Sequence[int], num_objects: int) -> Found:
    return list(range(num_objects + 1)), _held(content, *FORMATS["logits"].markers)


def _by_class(shift: int) -> Callable[[Content, Sequence[int], int], Found]:
    """Return a reader of maps by class id; `shift` is added to the ids."""

    def read(content: Content, labels: Sequence[int], num_objects: int) -> Found:
        if isinstance(content, np.ndarray) or not all(isinstance(key, int | np.integer) for key in content):
            raise VwlError("is no dict of maps by class id")
        maps = [_numbers(value) for value in content.values()]
        if len({own.shape for own in maps}) > 1:
            raise VwlError("has maps of several sizes")
        return [int(key) + shift for key in content], [np.stack(maps)] if maps else []

    return read


def _array(content: Content, labels: Sequence[int], num_objects: int) -> Found:
    if not isinstance(content, np.ndarray) or content.ndim != 3:
        raise VwlError("is no array (K, H, W)")
    by_number = {num_objects + 1: range(num_objects + 1), num_objects: range(1, num_objects + 1), len(labels): labels, 0: ()}
    if len(content) not in by_number:
        raise VwlError(f"has {len(content)} maps, which are neither of its {len(labels)} labels nor of all {num_objects} objects")
    return list(by_number[len(content)]), [content]


_READERS: dict[str, Callable[[Content, Sequence[int], int], Found]] = {
    "irn": _from_objects("cam", "high_res"),
    "puzzle": _puzzle,
    "clip-es": _from_objects("attn_highres"),
    "toco": _from_objects("high_res"),
    "weaktr": _weaktr,
    "excel": _excel,
    "logits": _logits,
    "psa": _by_class(1),
    "psa-crf": _by_class(0),
    "array": _array,
    "png": _by_class(0),
}


def _listed(content: Mapping[Any, Any] | Sequence[int]) -> str:
    keys = [str(key) for key in content]
    return ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "") if keys else "(none)"
