"""Files of score maps as the code of other methods writes them, by the description of their formats."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vwl.maps.cam import upsample
from vwl.storage.score_maps import ScoreMap

BACKGROUND = 0.3
"""Score of the background in formats that have a map of it."""


def pickled(content: object, folder: Path, image_id: str) -> None:
    np.save(folder / f"{image_id}.npy", content)  # a dict becomes a pickled array of one object


def keys(found: ScoreMap) -> np.ndarray:
    return np.array([class_id - 1 for class_id in found.classes], np.int64)


def full(found: ScoreMap) -> np.ndarray:
    return upsample(found.values, found.height, found.width)


def small(found: ScoreMap) -> np.ndarray:
    return found.values.astype(np.float32)


def beside_background(maps: np.ndarray) -> np.ndarray:
    return np.concatenate([np.full((1, *maps.shape[1:]), BACKGROUND, np.float32), maps])


def logits(maps: np.ndarray) -> np.ndarray:
    """Outputs of a network whose probabilities have the background's and the maps' proportions."""
    return np.log(np.maximum(beside_background(maps), 1e-6)) + 2


def irn(found: ScoreMap, folder: Path) -> None:
    content = {"keys": torch.from_numpy(keys(found)), "cam": torch.from_numpy(small(found)), "high_res": full(found)}
    pickled(content, folder, found.image_id)


def lpcam(found: ScoreMap, folder: Path) -> None:
    content = {"keys": keys(found), "cam": torch.from_numpy(small(found)), "high_res": torch.from_numpy(full(found))}
    pickled(content, folder, found.image_id)


def irn_full_size(found: ScoreMap, folder: Path) -> None:
    """A `cam` at another stride, so that `high_res` counts."""
    pickled({"keys": keys(found), "cam": np.zeros((len(found.classes), 3, 3)), "high_res": full(found)}, folder, found.image_id)


def irn_saved_by_torch(found: ScoreMap, folder: Path) -> None:
    torch.save({"keys": torch.from_numpy(keys(found)), "cam": torch.from_numpy(small(found)).half()}, folder / f"{found.image_id}.pt")


def irn_npz(found: ScoreMap, folder: Path) -> None:
    np.savez_compressed(folder / f"{found.image_id}.npz", keys=keys(found), cam=found.values)


def puzzle(found: ScoreMap, folder: Path) -> None:
    content = {"keys": np.pad(keys(found) + 1, (1, 0)), "cam": torch.from_numpy(small(found)), "hr_cam": full(found)}
    pickled(content, folder, found.image_id)


def puzzle_walked(found: ScoreMap, folder: Path) -> None:
    pickled({"keys": np.pad(keys(found) + 1, (1, 0)), "rw": full(found)}, folder, found.image_id)


def psa(found: ScoreMap, folder: Path) -> None:
    pickled(dict(zip(keys(found).tolist(), full(found), strict=True)), folder, found.image_id)


def psa_npz(found: ScoreMap, folder: Path) -> None:
    np.savez(folder / f"{found.image_id}.npz", **{str(key): own for key, own in zip(keys(found), full(found), strict=True)})


def psa_crf(found: ScoreMap, folder: Path) -> None:
    pickled(dict(zip((0, *found.classes), beside_background(full(found)), strict=True)), folder, found.image_id)


def clip_es(found: ScoreMap, folder: Path) -> None:
    pickled({"keys": keys(found), "attn_highres": full(found).astype(np.float16)}, folder, found.image_id)


def toco(found: ScoreMap, folder: Path) -> None:
    pickled({"keys": torch.from_numpy(keys(found)), "high_res": full(found)}, folder, found.image_id)


def excel(found: ScoreMap, folder: Path) -> None:
    pickled({"keys_gt": keys(found), "valid_lam": torch.from_numpy(beside_background(full(found)))}, folder, found.image_id)


def weaktr(found: ScoreMap, folder: Path) -> None:
    pickled({"prob": logits(full(found)), "keys": np.array([0, *found.classes])}, folder, found.image_id)


def logits_of_all(found: ScoreMap, folder: Path, num_objects: int = 2) -> None:
    every = np.full((num_objects + 1, found.height, found.width), 5, np.float32)
    every[[0, *found.classes]] = logits(full(found))
    pickled({"msc_seg": torch.from_numpy(every)[None]}, folder, found.image_id)


def array(found: ScoreMap, folder: Path) -> None:
    np.save(folder / f"{found.image_id}.npy", found.values)


def array_of_all(found: ScoreMap, folder: Path, num_objects: int = 2) -> None:
    every = np.zeros((num_objects, *found.values.shape[1:]), np.float32)
    every[keys(found)] = found.values
    np.save(folder / f"{found.image_id}.npy", every)


def png(found: ScoreMap, folder: Path) -> None:
    for class_id, own in zip(found.classes, full(found), strict=True):
        Image.fromarray(np.round(own * 65535).astype(np.uint16)).save(folder / f"{found.image_id}_{class_id}.png")


Writer = Callable[[ScoreMap, Path], None]
OBJECTS: dict[Writer, str] = {
    irn: "irn", lpcam: "irn", irn_full_size: "irn", irn_saved_by_torch: "irn", irn_npz: "irn", puzzle: "puzzle", puzzle_walked: "puzzle",
    psa: "psa", psa_npz: "psa", clip_es: "clip-es", toco: "toco", array: "array", array_of_all: "array", png: "png",
}  # fmt: skip
"""Formats with maps of objects only, and their names."""
WITH_BACKGROUND: dict[Writer, str] = {psa_crf: "psa-crf", excel: "excel"}
"""Formats with scores of objects and background."""
RAW: dict[Writer, str] = {weaktr: "weaktr", logits_of_all: "logits"}
"""Formats with a network's outputs."""


def torch_file(content: object) -> bytes:
    sink = io.BytesIO()
    torch.save(content, sink)
    return sink.getvalue()
