"""The stages in order: skip what is done, go on with what was cut off, score what there is ground truth for."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from vwl.config.layout import Layout
from vwl.data.index import Row
from vwl.errors import VwlError
from vwl.evaluation.scoring import Score, choose_threshold, class_thresholds, percent, score_maps, score_masks
from vwl.inference.build import MapSpec
from vwl.inference.runner import Shard, failures, shards, unfinished
from vwl.storage.score_maps import MapReader
from vwl.training.build import TrainSpec
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES, scored_rows, training_rows

Report = Callable[[str, int, int, str | dict[str, float]], None]
SCORED = ("cam", "crf", "walk", "segment")
"""Stages whose masks are compared with ground truth."""
SPLITS = ("train", "val")


class Trains(Protocol):
    """A module, or an object, that trains a stage."""

    def fit(self, spec: TrainSpec, layout: Layout, report: Report) -> dict[str, Any]:
        """Train, and return the loop's result."""
        ...


class Maps(Protocol):
    """A module, or an object, that takes shards through a stage."""

    def run_shards(self, spec: MapSpec, shards: list[Shard], images_done: int, report: Report, most: int | None = None) -> None:
        """Work on the shards, in at most so many processes."""
        ...

    def split(self) -> tuple[int, int] | None:
        """Return how many processes run networks and how many others work at the same time; none if nothing is gained by it."""
        ...


@dataclass(frozen=True)
class Engine:
    """Where the work is done."""

    train: Trains
    map: Maps


@contextmanager
def open_engine(backend: str, address: str | None = None) -> Iterator[Engine]:
    """Open Ray (a local one, or the cluster at `address`), or nothing for the backend `local`."""
    if backend == "local":
        from vwl.engine import local

        yield Engine(local, local)
    else:
        from vwl.engine import map as ray_map
        from vwl.engine import session
        from vwl.engine import train as ray_train

        with session.session(address):
            yield Engine(ray_train, ray_map)


def run_stages(
    run: Run,
    names: Sequence[str],
    engine: Engine,
    layout: Layout,
    report: Report,
    tell: Callable[[str], None],
    fit_workers: bool = False,
    strict: bool = False,
) -> None:
    """Do the named stages that are not done, and decide and score anew where only threshold or evaluated classes have changed.

    Args:
        run: the run folder.
        names: stages, in order.
        engine: where.
        layout: of the trainings.
        report: (stage, done, total, news) progress; of a training the figures of a step, else words.
        tell: one line for the user.
        strict: stop at the first image that cannot be worked on, instead of listing it.
        fit_workers: let each training have as many workers as share its batch equally, instead of refusing.

    Raises:
        VwlError: a stage's inputs are missing, a batch cannot be shared, or what a stage raises.
        Interrupted: stopped on request; what is done is kept.
    """
    layouts = {name: _layout_of(run, name, layout, fit_workers) for name in names if STAGES[name].kind == "train"}
    for name in SCORED:
        if run.is_done(name) and _decide_again(run, name):
            tell(f"{name}: scored anew, its threshold or the evaluated classes have changed")
    for name in names:
        if run.is_done(name):
            tell(f"{name}: done before, skipped")
            continue
        run.require(name)
        manifest = run.begin(name)
        began = time.monotonic()
        try:
            if STAGES[name].kind == "train":
                if layouts[name].workers != layout.workers:
                    tell(f"{name}: its batch is shared by {layouts[name].workers} of the {layout.workers} workers")
                manifest |= _train(run, name, engine, layouts[name], report)
            else:
                manifest |= _map(run, name, engine, report, strict)
        finally:
            manifest["seconds"] = round(manifest["seconds"] + time.monotonic() - began, 3)
            run.write_manifest(name, manifest)
        run.stage_folder(name).sweep()  # now that nobody writes there
        manifest |= {"state": "done", "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        if name in SCORED:
            manifest |= _decide(run, name, manifest)
        run.write_manifest(name, manifest)
        if manifest.get("failed"):
            first, reason = next(iter(manifest["failed"].items()))
            tell(f"{name}: {len(manifest['failed'])} images failed, e.g. {first}: {reason} (all are in {name}/manifest.json)")


def _layout_of(run: Run, name: str, layout: Layout, fit_workers: bool) -> Layout:
    """Return how a training is laid out; what does not divide is refused now, not hours later."""
    batch_size = getattr(run.recipe, name).batch_size
    fitting = layout.fitting(batch_size) if fit_workers else layout
    fitting.pieces(batch_size)
    return fitting


def _train(run: Run, name: str, engine: Engine, layout: Layout, report: Report) -> dict[str, Any]:
    reads = STAGES[name].reads
    masks = run.stage_folder(reads[0]) if reads else None
    spec = TrainSpec(name, run.recipe, run.index_path, run.stage_folder(name), masks, run.fingerprint(name))
    result = engine.train.fit(spec, layout, report)
    return {
        "images": len(training_rows(run.index)),
        "steps": result["step"],
        "training_scores": result["scores"],
        "started_from": result["weights"],
    }


def _map(run: Run, name: str, engine: Engine, report: Report, strict: bool) -> dict[str, Any]:
    rows = stage_rows(run, name)
    if not rows:
        raise VwlError(f"{name}: no image is left to work on; {STAGES[name].reads[0]}/manifest.json says why each failed")
    out = run.stage_folder(name)
    spec = map_spec(run, name, strict)
    all_shards = shards(rows)
    todo = unfinished(all_shards, out)
    if todo:
        engine.map.run_shards(spec, todo, len(rows) - sum(len(shard.rows) for shard in todo), report)
    found: dict[str, Any] = {"images": len(rows), "failed": failures(out)}
    if len(found["failed"]) == len(rows):
        first, reason = next(iter(found["failed"].items()))
        raise VwlError(f"{name}: all {len(rows)} images failed, e.g. {first}: {reason}; put that right and delete {out} to try again")
    return found | _input_background(run, name)


def map_spec(run: Run, name: str, strict: bool = False) -> MapSpec:
    """Return what workers need to know of an inference stage; where it reads a threshold, the stage that chose it is done."""
    background = _input_background(run, name)
    return MapSpec(name, run.recipe, run.index_path, run.folder, background.get("threshold"), strict, _factors(run, background))


def stage_rows(run: Run, name: str) -> list[Row]:
    """Return the photographs that an inference stage works on: those of its kind that no stage before it has lost."""
    lost = _lost(run, name)
    return [row for row in STAGES[name].rows(run.index) if row.image_id not in lost]


def _lost(run: Run, name: str) -> set[str]:
    """Images that failed in a stage whose maps or masks this one reads, directly or through others."""
    above = [stage for stage in STAGES[name].reads if STAGES[stage].kind != "train"]
    return {image_id for stage in above for image_id in (*_failed(run, stage), *_lost(run, stage))}


def _failed(run: Run, stage: str) -> list[str]:
    return list((run.manifest(stage) or {}).get("failed", {}))


def failed_images(run: Run, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the images that failed in each of the named stages in which any did."""
    return {name: failed for name in names if (failed := _failed(run, name))}


BACKGROUND = ("threshold", "threshold_chosen", "class_thresholds")
"""The entries of a manifest that tell of the background's score: for all classes, how it was chosen, and by class name, if so chosen."""


def _input_background(run: Run, name: str) -> dict[str, Any]:
    """The background score that a stage starts from."""
    if name == "crf" and run.recipe.crf.background != "auto":
        return {"threshold": float(run.recipe.crf.background), "threshold_chosen": "recipe"}
    if name in {"crf", "masks"}:
        above = run.manifest("cam" if name == "crf" else "walk")
        assert above is not None
        return {key: above[key] for key in BACKGROUND if key in above}
    return {}


def _factors(run: Run, background: Mapping[str, Any]) -> dict[int, float]:
    """What each class's maps are multiplied by, so that its own threshold comes to lie at the one for all."""
    thresholds = background.get("class_thresholds", {})
    return {run.index.classes.index(name): background["threshold"] / own for name, own in thresholds.items()}


def _decide(run: Run, name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Choose the threshold of a finished stage's soft maps and score it: what may change without doing the stage again."""
    found: dict[str, Any] = {"decisions": _decisions(run, name)}
    if STAGES[name].kind == "maps":
        maps = MapReader(run.stage_folder(name))
        rows = [row for row in training_rows(run.index) if row.image_id in maps]
        wanted = found["decisions"]["background_threshold"]
        threshold, chosen = choose_threshold(wanted, maps, rows)
        by_class = class_thresholds(maps, rows) if wanted == "auto-by-class" else {}
        found |= {"threshold": threshold, "threshold_chosen": chosen}
        found["class_thresholds"] = {run.index.classes[class_id]: own for class_id, own in by_class.items()}
    return found | {"scores": [brief(score) for score in score_stage(run, name, manifest | found)]}


def _decisions(run: Run, name: str) -> dict[str, Any]:
    """The settings that enter a stage's threshold and scores, but not its result."""
    classes = run.recipe.evaluation.classes
    found: dict[str, Any] = {"classes": None if classes is None else list(classes)}
    if STAGES[name].kind == "maps":
        found["background_threshold"] = getattr(run.recipe, name).background_threshold
    return found


def _decide_again(run: Run, name: str) -> bool:
    manifest = run.manifest(name)
    assert manifest is not None
    if manifest.get("decisions") == _decisions(run, name):
        return False
    run.write_manifest(name, manifest | _decide(run, name, manifest))
    return True


def score_stage(run: Run, name: str, manifest: dict[str, Any]) -> list[Score]:
    """Score a finished stage on every split with ground truth, and keep the details in its folder."""
    names = run.recipe.evaluation.classes
    class_ids = None if names is None else run.index.class_ids(names)
    found = []
    there = {row.image_id for row in stage_rows(run, name)} - set(manifest["failed"])
    for split in SPLITS:
        rows = [row for row in scored_rows(run.index, split) if row.image_id in there]
        if not rows:
            continue
        folder = run.stage_folder(name)
        if STAGES[name].kind == "maps":
            threshold, chosen = manifest["threshold"], manifest["threshold_chosen"]
            score = score_maps(run.index, rows, MapReader(folder, _factors(run, manifest)), name, split, threshold, chosen, class_ids)
        else:
            score = score_masks(
                run.index, rows, folder, name, split, class_ids, manifest.get("threshold"), manifest.get("threshold_chosen", "")
            )
        folder.write_json(f"scores-{split}.json", score.as_dict(run.index.classes))
        found.append(score)
    return found


def brief(score: Score) -> dict[str, Any]:
    """Return a score's line of the stage table."""
    return {
        "stage": score.stage,
        "split": score.split,
        "images": score.images,
        "miou": percent(score.scores.miou),
        "threshold": score.threshold,
        "threshold_chosen": score.chosen,
        "best_miou_with_ground_truth": None if score.best_miou is None else percent(score.best_miou),
        "best_threshold_with_ground_truth": score.best_threshold,
    }


def stage_table(run: Run) -> list[dict[str, Any]]:
    """Return one line a scored stage and split: stage, split, mIoU (percent), threshold and how it was chosen, images, seconds."""
    lines = []
    for name in SCORED:
        manifest = run.manifest(name)
        if manifest is not None and manifest["state"] == "done":
            lines += [line | {"seconds": manifest["seconds"]} for line in manifest["scores"]]
    return lines


def stored_score(run: Run, stage: str, split: str) -> dict[str, Any]:
    """Return a stage's full score on a split.

    Raises:
        VwlError: it was not scored.
    """
    folder = run.folder / stage
    if stage not in SCORED or not folder.exists(f"scores-{split}.json"):
        there = [f"{name} on {s}" for name in SCORED for s in SPLITS if (run.folder / name).exists(f"scores-{s}.json")]
        raise VwlError(f"{run.folder} has no score of {stage} on {split}; it has {', '.join(there) or 'none'}")
    return dict(folder.read_json(f"scores-{split}.json"))


def progress_of(run: Run, name: str) -> dict[str, Any]:
    """Return a stage's line for `vwl status`: stage, state, done, total, seconds, note."""
    manifest = run.manifest(name)
    line: dict[str, Any] = {"stage": name, "state": "not begun", "done": None, "total": None, "seconds": None, "note": ""}
    if manifest is None:
        return line
    folder = run.stage_folder(name)
    line |= {"state": manifest["state"], "seconds": manifest["seconds"]}
    if manifest["fingerprint"] != run.fingerprint(name):
        line |= {"state": "outdated", "note": "settings or inputs have changed since"}
    if STAGES[name].kind == "train":
        lines = folder.read("metrics.jsonl").decode().splitlines() if folder.exists("metrics.jsonl") else []
        losses = [entry for entry in map(json.loads, lines) if "loss" in entry]
        if losses:
            line |= {"done": losses[-1]["step"], "total": losses[-1]["num_steps"], "note": f"loss {losses[-1]['loss']:.4f}"}
    else:
        everything = shards(stage_rows(run, name))
        left = unfinished(everything, folder)
        line["total"] = sum(len(shard.rows) for shard in everything)
        line["done"] = line["total"] - sum(len(shard.rows) for shard in left)
        failed = manifest.get("failed")
        line["note"] = f"{len(failed)} images failed" if failed else line["note"]
    return line
