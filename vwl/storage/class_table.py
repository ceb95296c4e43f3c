"""The file `classes.json` beside masks that leave a run: the names and colours of their class ids."""

from collections.abc import Sequence
from dataclasses import dataclass

from vwl.errors import VwlError
from vwl.storage.folder import Folder

NAME = "classes.json"


@dataclass(frozen=True)
class ClassTable:
    """The classes of masks.

    Attributes:
        classes: names by id, background first.
        palette: 768 values, RGB of each of the 256 class ids.
    """

    classes: tuple[str, ...]
    palette: tuple[int, ...]

    def colour(self, class_id: int) -> str:
        """Return the colour of a class as `#rrggbb`."""
        red, green, blue = self.palette[3 * class_id : 3 * class_id + 3]
        return f"#{red:02x}{green:02x}{blue:02x}"


def write_class_table(folder: Folder, classes: Sequence[str], palette: Sequence[int]) -> None:
    """Write `classes.json` into a folder of masks, if it does not say so already."""
    value = {"classes": list(classes), "palette": list(palette)}
    if not (folder.exists(NAME) and folder.read_json(NAME) == value):
        folder.write_json(NAME, value)


def read_class_table(folder: Folder) -> ClassTable | None:
    """Return the content of a folder's `classes.json`, or none if there is no such file.

    Raises:
        VwlError: it is damaged.
    """
    if not folder.exists(NAME):
        return None
    stored = folder.read_json(NAME)
    names, palette = (stored.get("classes"), stored.get("palette")) if isinstance(stored, dict) else (None, None)
    is_names = isinstance(names, list) and len(names) >= 2 and all(isinstance(name, str) for name in names)
    is_palette = isinstance(palette, list) and len(palette) == 768 and all(type(value) is int and 0 <= value <= 255 for value in palette)
    if not is_names or not is_palette:
        raise VwlError(f"{folder.uri_of(NAME)} should hold class names, background first, and a palette of 768 numbers; write it again")
    assert names is not None
    assert palette is not None
    return ClassTable(tuple(names), tuple(palette))
