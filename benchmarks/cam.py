"""Class activation maps: one image, one scale, one horizontal flip at a time against the CAM stage, on two cores each.

The plain loop runs the network as it was trained, eagerly, in torch's default layout and with two threads; the stage works as
`vwl infer cam` does, in two processes of one thread: horizontal flips in one batch, batch norm folded, channels_last. Both read the same
JPEG files of 500 x 375 pixels with the recipe `small` (EfficientNet-Lite0, three scales). Parity: the stored maps of all images
within 0.002 of their maximum.
"""

import argparse
import tempfile
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from _paired import Line, Paired, paired, real_images, show
from PIL import Image

from vwl.config.files import load_recipe
from vwl.config.recipe import Recipe
from vwl.constants import map_size
from vwl.data.index import Index, Row, make_index
from vwl.data.transforms import long_side_scale, normalise, resize, scaled_size
from vwl.inference.cam import CamStage
from vwl.maps import cam
from vwl.models.classifier import Classifier
from vwl.training.pretrained import load_pretrained

NUM_OBJECTS, CORES = 20, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        index = saved(Path(folder), options.images)
        recipe, model = small()
        torch.set_num_threads(CORES)
        with get_context("spawn").Pool(CORES, begin, (index,)) as pool:
            found: dict[str, list[np.ndarray]] = {}

            def plain() -> None:
                found["plain"] = [plain_maps(recipe, model, index, row) for row in index.rows]

            def ours() -> None:
                found["ours"] = pool.map(stage_maps, index.rows, chunksize=1)

            pair = paired(plain, ours, options.repeats)
        single = in_one_process(recipe, model, index, options.repeats)
    apart = max(float(np.abs(a - b).max()) for a, b in zip(found["plain"], found["ours"], strict=True))
    parity = f"maps within {apart:.1e}"
    lines = [
        Line("CAM, image: plain loop, stage on 2 cores", *milliseconds(pair, options.images), pair.ratio, "1.5", parity),
        Line("CAM, image: the same, one thread each", *milliseconds(single, options.images), single.ratio, "", parity),
    ]
    show("Class activation maps, EfficientNet-Lite0, 3 scales with horizontal flip", lines, apart <= 2e-3)


def milliseconds(pair: Paired, num: int) -> tuple[str, str]:
    return f"{pair.first / num * 1e3:.0f} ms", f"{pair.second / num * 1e3:.0f} ms"


def small() -> tuple[Recipe, Classifier]:
    """The recipe and a classifier with ImageNet's backbone; its head is drawn."""
    recipe = load_recipe("small")
    torch.manual_seed(0)
    network = Classifier(recipe.classifier, NUM_OBJECTS)
    load_pretrained(network, recipe.classifier)
    return recipe, network.eval()


def saved(folder: Path, num: int) -> Index:
    """Save images as JPEG with one to three labels each."""
    rng, rows = np.random.default_rng(0), []
    for number, rgb in enumerate(real_images(num)):
        Image.fromarray(rgb).save(folder / f"{number}.jpg", quality=92)
        labels = rng.choice(NUM_OBJECTS, 1 + number % 3, replace=False) + 1
        rows.append(Row(str(number), f"{number}.jpg", tuple(sorted(int(label) for label in labels)), None, "train"))
    return make_index(rows, ["background", *(f"class{number}" for number in range(NUM_OBJECTS))], folder, "a benchmark")


@torch.no_grad()
def plain_maps(recipe: Recipe, model: Classifier, index: Index, row: Row) -> np.ndarray:
    """Maps (K, h, w) of an image, one view after the other."""
    rgb = np.asarray(index.read_image(row))
    base, grid, backbone = long_side_scale(rgb.shape, recipe.cam.long_side), map_size(*rgb.shape[:2]), model.backbone
    total = torch.zeros(1, NUM_OBJECTS, *grid)
    for scale in recipe.cam.scales:
        image = normalise(resize(rgb, *scaled_size(rgb.shape, base * scale)), backbone.mean, backbone.std).contiguous()
        straight = model.activation_maps(image[None])
        flipped = model.activation_maps(image.flip(2)[None]).flip(3)
        total += torch.nn.functional.interpolate(torch.maximum(straight, flipped), grid, mode="bilinear", align_corners=False)
    return cam.normalise(total[0, [label - 1 for label in row.labels]].numpy())


_stage: CamStage


def begin(index: Index) -> None:
    """Build the stage of a process."""
    global _stage
    torch.set_num_threads(1)
    _stage = CamStage(small()[0], index, small()[1])


def stage_maps(row: Row) -> np.ndarray:
    return _stage(row).values.astype(np.float32)


def in_one_process(recipe: Recipe, model: Classifier, index: Index, repeats: int) -> Paired:
    """Time both with one thread in this process."""
    torch.set_num_threads(1)
    stage = CamStage(recipe, index, model)
    return paired(
        lambda: [plain_maps(recipe, model, index, row) for row in index.rows], lambda: [stage(row) for row in index.rows], repeats
    )


if __name__ == "__main__":
    main()
