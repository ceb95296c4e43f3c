"""One decoder everywhere: images of odd kinds are prepared, trained on and segmented as the same upright pixels."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.orientation import turned
from tests.trainings import tiny_spec
from tests.videos import write_video
from vwl.data.check import check_index
from vwl.data.folder import prepare_folder
from vwl.data.index import write_index
from vwl.training.classifier import ClassifierTask
from vwl.workflow.model_export import model_of_run
from vwl.workflow.predict import predict_files

Kind = Callable[[np.ndarray], tuple[bytes, np.ndarray]]
"""From pixels (H, W, 3) uint8 to an image file of this kind, and the pixels that are to be seen of it."""


def saved(image: Image.Image, kind: str, **options) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def on_its_side(pixels):
    data = turned(pixels, 6, "JPEG", quality=95)
    return data, np.rot90(np.asarray(Image.open(io.BytesIO(data))), -1)  # Pillow shows the file's pixels as they lie


def cmyk(pixels):
    data = saved(Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=100, subsampling=0)
    inks = np.asarray(Image.open(io.BytesIO(data)).convert("CMYK"), np.float64)
    cyan_magenta_yellow, black = inks[..., :3], inks[..., 3:]
    return data, ((255 - cyan_magenta_yellow) * (255 - black) / 255).round().astype(np.uint8)


def grey_16_bit(pixels):
    grey = pixels.mean(axis=2)
    return saved(Image.fromarray((grey * 257).astype(np.uint16)), "PNG"), np.repeat(
        (grey * 257 // 257).astype(np.uint8)[..., None], 3, axis=2
    )


def transparent_palette(pixels):
    image = Image.fromarray(pixels).quantize(32)
    opaque = np.asarray(image.convert("RGB"))
    return saved(image, "PNG", transparency=bytes(range(0, 256, 8))), opaque


def webp(pixels):
    return saved(Image.fromarray(pixels), "WEBP", lossless=True), pixels


KINDS: dict[str, tuple[str, Kind, int]] = {
    "EXIF orientation": ("jpg", on_its_side, 0),
    "CMYK": ("jpg", cmyk, 2),
    "16 bits": ("png", grey_16_bit, 1),
    "palette with transparency": ("png", transparent_palette, 0),
    "WebP": ("webp", webp, 0),
}
"""Ending, kind, and the rounding that is allowed, grey levels."""


@pytest.fixture(scope="module")
def pixels(tiny_run) -> np.ndarray:
    return np.asarray(tiny_run.index.read_image(tiny_run.index.split("val")[0]))


@pytest.fixture(params=KINDS)
def file(request, pixels, tmp_path) -> tuple[Path, np.ndarray]:
    """An image file, and what is to be seen of it; decoded here without vwl."""
    ending, kind, allowed = KINDS[request.param]
    data, shown = kind(pixels)
    path = tmp_path / "images" / f"odd.{ending}"
    path.parent.mkdir()
    path.write_bytes(data)
    (tmp_path / "labels.csv").write_text("image,labels,split\nodd,dog,train\n")
    index, _ = prepare_folder(path.parent, tmp_path / "labels.csv")
    assert check_index(index) == []
    found = np.asarray(index.read_image(index.rows[0]))
    assert found.shape == shown.shape == pixels.shape
    assert np.abs(found.astype(int) - shown).max() <= allowed
    return path, found


def test_it_is_prepared_and_gives_the_training_sample_of_its_pixels(file, tmp_path):
    samples = []
    path, seen = file
    for name, data in (("odd", path.read_bytes()), ("plain", saved(Image.fromarray(seen), "PNG"))):
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        (folder / "images" / f"a{path.suffix if name == 'odd' else '.png'}").write_bytes(data)
        (folder / "labels.csv").write_text("image,labels,split\na,dog,train\n")
        index, _ = prepare_folder(folder / "images", folder / "labels.csv")
        write_index(index, folder / "index.parquet")
        recipe = tiny_spec("classifier-L", folder / "index.parquet", folder).recipe
        samples.append(ClassifierTask(recipe, index, index.rows, []).sample(0, 0))
    odd, plain = samples
    assert odd.keys() == plain.keys()
    assert all(torch.equal(odd[key], plain[key]) for key in plain)


def test_it_is_segmented_like_its_pixels(tiny_run, file, tmp_path):
    path, seen = file
    Image.fromarray(seen).save(tmp_path / "plain.png")
    odd, plain = predict_files(model_of_run(tiny_run), [path, tmp_path / "plain.png"], tmp_path / "out", crf=True)
    assert Path(odd.mask).read_bytes() == Path(plain.mask).read_bytes()
    assert Path(odd.overlay).read_bytes() == Path(plain.overlay).read_bytes()


@pytest.mark.parametrize(("every", "numbers"), [(1, [0, 1, 2, 3, 4]), (3, [0, 3])])
def test_each_frame_of_a_video_is_segmented_like_an_image_of_it(tiny_run, pixels, tmp_path, every, numbers):
    shown = [np.roll(pixels, 5 * number, axis=1) for number in range(5)]
    video = write_video(tmp_path / "clip.mkv", shown)
    for number in numbers:
        Image.fromarray(shown[number]).save(tmp_path / f"{number}.png")
    model = model_of_run(tiny_run)
    found = predict_files(model, [video], tmp_path / "out", crf=True, every=every)
    images = predict_files(model, [tmp_path / f"{number}.png" for number in numbers], tmp_path / "images", crf=True)
    assert [(file.frame, Path(file.mask).relative_to(tmp_path / "out").as_posix()) for file in found] == [
        (number, f"clip_frames/{number:06d}_mask.png") for number in numbers
    ]
    for frame, image in zip(found, images, strict=True):
        assert Path(frame.mask).read_bytes() == Path(image.mask).read_bytes()
    assert all(file.kept for file in predict_files(model, [video], tmp_path / "out", crf=True, every=every))
    assert [prediction.name for prediction in model.stream(video, every=every)] == [f"clip_frames/{number:06d}" for number in numbers]


def test_a_video_that_cannot_be_read_is_listed_and_its_line_is_gone_when_it_can(tiny_run, pixels, tmp_path):
    video = write_video(tmp_path / "clip.mkv", [pixels] * 5)
    whole = video.read_bytes()
    video.write_bytes(b"no video")
    model = model_of_run(tiny_run)
    (broken,) = predict_files(model, [video], tmp_path / "out", crf=False)
    assert "clip.mkv cannot be read: " in broken.problem
    video.write_bytes(whole)
    found = predict_files(model, [video], tmp_path / "out", crf=False)
    assert [file.problem for file in found] == [None] * 5
    assert len((tmp_path / "out/predictions.jsonl").read_text().splitlines()) == 5


def test_of_a_video_with_a_damaged_frame_those_before_are_segmented(tiny_run, pixels, tmp_path):
    shown = [np.roll(pixels, number, axis=1) for number in range(5)]
    video = write_video(tmp_path / "clip.mov", shown, codec="png")
    data = video.read_bytes()
    start = [at for at in range(len(data)) if data.startswith(b"IHDR", at)][3]
    video.write_bytes(data[:start] + b"IHDX" + data[start + 4 :])
    *frames, broken = predict_files(model_of_run(tiny_run), [video], tmp_path / "out", crf=False)
    assert [file.frame for file in frames] == [0, 1, 2]
    assert "clip.mov cannot be read from frame 3 on: " in broken.problem
