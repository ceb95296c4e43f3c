"""Image labels that predictions are kept to: which row of the CSV file of labels is an image's."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vwl.data.class_names import class_ids
from vwl.data.labels_csv import read_labels
from vwl.errors import VwlError
from vwl.model_file.sources import Source


class ImageLabels:
    """The object classes of images, from a CSV file as `vwl data prepare folder` reads it.

    A row names an image by its file name or by its path below the folder of images, with or without ending.
    """

    def __init__(self, labels_csv: str | Path, classes: Sequence[str], sources: Sequence[Source], separator: str | None = None) -> None:
        """Read the file.

        Args:
            labels_csv: the file.
            classes: class names by id, background first.
            sources: the images.
            separator: as `vwl.data.labels_csv.read_labels`.

        Raises:
            VwlError: as `read_labels`; an image is listed twice, a class is unknown, or a row names two of the images.
        """
        self.file = str(labels_csv)
        self._rows: dict[str, tuple[int, ...]] = {}
        self._lines: dict[str, int] = {}
        for row in read_labels(labels_csv, separator).rows:
            where = f"{labels_csv} line {row.line}"
            if row.image in self._lines:
                raise VwlError(f"{where}: image '{row.image}' is listed in line {self._lines[row.image]} already; remove one of the lines")
            try:
                ids = class_ids(classes[1:], row.labels)
            except VwlError as error:
                raise VwlError(f"{where}: {error}; the model has: {', '.join(classes[1:])}") from None
            self._rows[row.image] = tuple(sorted({number + 1 for number in ids}))
            self._lines[row.image] = row.line
        used = Counter(key for source in sources if (key := self._key(source)) is not None)
        for source in sources:
            if (key := self._key(source)) is not None and used[key] > 1:
                raise VwlError(
                    f"{labels_csv} line {self._lines[key]}: '{key}' is the name of {used[key]} images, one of them {source.path}; "
                    "write their paths below the folder of images"
                )
        self.num_unused = len(self._rows) - len(used)

    def of(self, source: Source) -> tuple[int, ...]:
        """Return the class ids of an image, ascending.

        Raises:
            VwlError: the file has no row of it.
        """
        key = self._key(source)
        if key is None:
            raise VwlError(f"{source.path}: {self.file} has no line of it; add one, with no labels for an image without objects")
        return self._rows[key]

    def _key(self, source: Source) -> str | None:
        ending = os.path.splitext(source.path)[1]
        stem = source.name.removesuffix(ending)
        names = (f"{stem}{ending}", stem, os.path.basename(source.path), os.path.basename(stem))
        return next((name for name in names if name in self._rows), None)
