"""A run that a command is about to start: its recipe and index are read, and its folder is written only when `bind` is called.

Between the two, `vwl.workflow.preflight` checks what can be known, so that a start that fails leaves no run folder behind.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from vwl.config.files import load_recipe, overridden
from vwl.config.recipe import Recipe
from vwl.data.index import Index, read_index
from vwl.storage.folder import Folder
from vwl.storage.lock import exclusive_lock
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES

INDEX_NAME = "index.parquet"
"""File in a run folder of an index that was given as an object."""


def default_recipe(index: Index) -> str:
    """Return the recipe of a run for which none was given: the one that the published figures were made with, on MS COCO or elsewhere."""
    return "reference-coco" if index.source.startswith("MS COCO") else "reference-voc"


@dataclass(frozen=True)
class Start:
    """A run before its start.

    Attributes:
        run: its recipe, index and folder; the folder of a new run does not exist yet.
        is_new: whether the folder holds no run yet.
        is_given: whether a recipe, an override or an index was given, which `bind` compares with the folder's or writes into it.
        overwrite: replace the recipe of an existing run.
        has_index_file: whether the run's index table exists; `bind` writes one that was given as an object.
    """

    run: Run
    is_new: bool
    is_given: bool
    overwrite: bool = False
    has_index_file: bool = True

    @classmethod
    def plan(
        cls,
        folder: str,
        data: str | Index | None,
        recipe: str | Recipe | None,
        override: Sequence[str] = (),
        overwrite: bool = False,
        reuse: str | None = None,
    ) -> "Start":
        """Read what a command starts.

        Args:
            folder: the run folder.
            data: index of a new run, or the path of its table; None: the run exists.
            recipe: its recipe, or the name or path of it; None: that of the existing run, or `default_recipe` with `data`.
            override: changes of the recipe, ``section.key=value``.
            overwrite: replace the recipe of an existing run.
            reuse: a run whose recipe and index a new run has by default.

        Raises:
            VwlError: recipe or index are wrong, or the run does not exist and there is no index for a new one.
        """
        is_new = not Folder(folder).exists("run.json")
        wanted = None if recipe is None else overridden(recipe, override) if isinstance(recipe, Recipe) else load_recipe(recipe, override)
        if reuse is not None and is_new:
            other = Run.open(reuse)
            wanted, data = wanted or overridden(other.recipe, override), data or other.index_path
        index = data if data is None or isinstance(data, Index) else read_index(data)
        if wanted is None and index is not None:
            wanted = load_recipe(default_recipe(index), override)
        if data is None:
            existing = Run.open(folder)
            if wanted is None and not override:
                return cls(existing, is_new, is_given=False)
            data = existing.index_path
            wanted = wanted or overridden(existing.recipe, override)
        assert wanted is not None
        path = Folder(folder).uri_of(INDEX_NAME) if isinstance(data, Index) else data
        run = Run(Folder(folder), wanted, index or read_index(path), path)
        run.index.class_ids(wanted.evaluation.classes or ())
        return cls(run, is_new, True, overwrite, not isinstance(data, Index))

    def bind(self) -> Run:
        """Write the run folder and return the run; the recipe of an existing run is replaced only while no command works in its folder.

        Raises:
            VwlError: the folder belongs to another recipe or index, another command works in it, or it cannot be written.
        """
        if not self.is_given:
            return self.run
        with ExitStack() as held:
            for stage in STAGES if self.overwrite and not self.is_new else ():
                held.enter_context(exclusive_lock(self.run.folder, stage))
            index = None if self.has_index_file else self.run.index
            return Run.start(self.run.folder.uri, self.run.recipe, self.run.index_path, self.overwrite, index)
