"""What a command adds to a space: rows of maps that another method has made (`--import`), and files of weights (`--weights`).

A row whose weights are not given is left out, with a line that says so: the rest of the paper's table can be computed without them.
"""

from collections.abc import Mapping
from typing import cast

from vwl.data.index import Index
from vwl.errors import VwlError, did_you_mean
from vwl.inference.seeds import SeedBackground
from vwl.storage.folder import Folder
from vwl.tuning.rows import SpaceRow
from vwl.tuning.space import Space
from vwl.workflow.imported import ImportedMaps
from vwl.workflow.seeds import inspect_seeds


def with_given(space: Space, maps: Mapping[str, str], weights: Mapping[str, str], index: Index, index_path: str) -> Space:
    """Return a space with the rows and weights that a command adds, and with a hash of the files of each row's maps.

    Args:
        space: as its file has it.
        maps: folder by the label of its row.
        weights: path or URI by name.
        index: the data set that the maps are of.
        index_path: where it is.

    Raises:
        VwlError: the space has no rows, a label is taken, no row takes weights of a name, or maps cannot be imported.
    """
    known = list(dict.fromkeys(name for row in space.rows for name in row.weights.values()))
    for name in weights:
        if name not in known:
            taken = did_you_mean(name, known) or f"; it takes {', '.join(known) or 'none'}"
            raise VwlError(f"--weights {name}: no row of the space {space.name} takes them{taken}")
    rows, left_out = [], {}
    for row in [*space.rows, *(_row_of(space, name, folder) for name, folder in maps.items())]:
        lacking = [name for name in row.weights.values() if name not in weights]
        if lacking:
            left_out[row.label] = f"left out, its weights are not given: --weights {lacking[0]}=FILE"
            continue
        filled = {key: weights[name] for key, name in row.weights.items()}
        rows.append(row.model_copy(update={"set": {**row.set, **filled}, "imported": _inspected(row.imported, index, index_path)}))
    if space.rows and not rows:
        label, reason = next(iter(left_out.items()))
        raise VwlError(f"the space {space.name} has no row left; {label}: {reason}")
    base = space.compare_with if str(space.compare_with) in {row.label for row in rows} or not space.rows else rows[0].label
    return space.model_copy(update={"rows": rows, "left_out": left_out, "compare_with": base})


def _row_of(space: Space, name: str, folder: str) -> SpaceRow:
    if not space.rows:
        raise VwlError(f"--import {name}: the space {space.name} has no rows that the maps could be one of")
    if name in {row.label for row in space.rows}:
        raise VwlError(f"--import {name}: the space {space.name} has a row of this name; choose another name")
    return SpaceRow.model_validate({"label": name, "import": folder})


def _inspected(maps: ImportedMaps | None, index: Index, index_path: str) -> ImportedMaps | None:
    """Return the record of maps with their format, background and a hash of their files; a stored one has them already."""
    if maps is None or maps.content:
        return maps
    background = cast("SeedBackground | None", maps.background or None)
    return inspect_seeds(index, index_path, Folder(maps.folder), maps.format or None, background).record
