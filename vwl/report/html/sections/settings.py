"""Failures, settings that differ from the base recipe, and versions."""

from collections.abc import Sequence
from dataclasses import dataclass

from vwl.config.files import builtin_recipes, differences, load_recipe, to_yaml
from vwl.report.html.page import Section
from vwl.workflow.inputs import failures_to_report
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import stages_of

_MAX_FAILURES = 200


@dataclass(frozen=True)
class Failure:
    """An image that a stage could not process, and why."""

    stage: str
    image_id: str
    reason: str


@dataclass(frozen=True)
class Failures:
    """Content of the section: the first failures, and how many there are."""

    lines: Sequence[Failure]
    total: int


@dataclass(frozen=True)
class Setting:
    """A recipe key with the base's value and the run's."""

    key: str
    base: str
    value: str


@dataclass(frozen=True)
class Settings:
    """Content of the section: the base recipe (empty if it is none of the built-in ones), differences, and the whole recipe as YAML."""

    base: str
    changed: Sequence[Setting]
    yaml: str
    index_path: str
    source: str


@dataclass(frozen=True)
class Versions:
    """Content of the section: package names, and the version by stage and package; none where the stage was not run."""

    packages: Sequence[str]
    stages: Sequence[tuple[str, Sequence[str]]]


def failures_section(run: Run) -> Section:
    """Return what failed; images for which no map was to be imported are not failures."""
    lines = []
    for stage in stages_of(run.recipe):
        manifest = run.manifest(stage)
        if manifest is not None:
            lines += [Failure(stage, image_id, manifest.failed[image_id]) for image_id in failures_to_report(run, stage)]
    return Section("failures", "Failures", Failures(lines[:_MAX_FAILURES], len(lines)))


def settings_section(run: Run) -> Section:
    """Return the settings that differ from the built-in recipe of the same name; from the defaults where there is none."""
    base = run.recipe.name if run.recipe.name in builtin_recipes() else ""
    recipe = load_recipe(base) if base else type(run.recipe)(name=run.recipe.name)
    changed = []
    for line in differences(recipe, run.recipe):
        key, _, values = line.partition(": ")
        before, _, now = values.partition(" -> ")
        changed.append(Setting(key, before, now))
    return Section("settings", "Settings", Settings(base, changed, to_yaml(run.recipe), run.index_path, run.index.source))


def versions_section(run: Run) -> Section:
    """Return the versions that each stage was made with; stages with equal ones share a line."""
    found = {stage: manifest.versions for stage in stages_of(run.recipe) if (manifest := run.manifest(stage)) is not None}
    packages = list(dict.fromkeys(name for versions in found.values() for name in versions))
    rows: dict[tuple[str, ...], list[str]] = {}
    for stage, versions in found.items():
        rows.setdefault(tuple(versions.get(name) or "–" for name in packages), []).append(stage)
    lines = [("all stages" if len(rows) == 1 else ", ".join(stages), versions) for versions, stages in rows.items()]
    return Section("versions", "Versions", Versions(packages, lines))
