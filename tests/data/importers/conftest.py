"""Images a to d, which the exports of other tools label."""

from pathlib import Path

import pytest
from PIL import Image

EXPORTS = Path(__file__).parent / "exports"
"""Written by label-studio-sdk 2.1.2 (CSV and JSON-MIN, by its converter, from label-studio.json) and by Datumaro 1.13.12 (CVAT, COCO)."""


@pytest.fixture
def photos(tmp_path):
    """A folder with the images a.jpg to d.jpg."""
    return with_images(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg", "d.jpg")


def with_images(folder: Path, *paths: str) -> Path:
    """Write images of different content and return their folder."""
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (60 * number, 0, 0)).save(folder / path)
    return folder
