"""Runs a search: checks that it can end before anything starts, then runs the unfinished trials on Ray Tune."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from vwl.cluster.plan import BASE_MEMORY, worker_memory
from vwl.config.layout import Layout
from vwl.config.networks import batch_size
from vwl.data.index import read_index
from vwl.engine.base import open_engine
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.tuning.follow import Follower, TrialsView
from vwl.tuning.samples import GroupBuilder, SampleRegistry, fewest_epochs, last_stopping_epoch, past_and_pending
from vwl.tuning.search import Search, groups
from vwl.tuning.trials import Trial, TrialGroup, run_trials
from vwl.workflow.stages import STAGES

RESOURCES = "resources.json"
"""File in a search folder with the resource options of each search, by the name of its space."""


@dataclass(frozen=True)
class TuneResources:
    """The resources that trials run with.

    Attributes:
        layout: of each trial's trainings.
        concurrent: trials at a time; none: as many as fit.
        backend: `ray`, or `local`: one trial after the other in this process.
        address: of the Ray cluster; none: a local one.
        options: the command line's options that say so, which a resumed search takes over.
    """

    layout: Layout
    concurrent: int | None = None
    address: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "ray"


def run_search(
    search: Search,
    root: Folder,
    resources: TuneResources,
    view: TrialsView,
    say: Callable[[str], None],
    after_trial: Callable[[], None],
) -> None:
    """Run a search's unfinished trials; trials that are finished, also by another search in the folder, are not run again.

    Args:
        search: the space, recipe, data set and seeds.
        root: the search's folder.
        resources: what the trials run with.
        view: shows each trial's state.
        say: prints one line for the user.
        after_trial: called when a trial has ended.

    Raises:
        VwlError: a trial does not fit into the cluster, its batch does not divide among its workers, or the data set has changed.
        Interrupted: stopped by Ctrl-C; finished trials and checkpoints are kept.
    """
    search = search.joined_with_stored(root)
    if read_index(search.index_path).fingerprint() != search.index_fingerprint:
        raise VwlError(
            f"{search.index_path} is not the data set of the search in {root}; restore it, give its new path "
            "(--resume RUN --data INDEX), or use another --run folder"
        )
    if resources.backend == "local" and search.space.strategy == "search":
        raise VwlError(f"the space {search.space.name} samples its settings, which Ray Tune does; leave out --backend local")
    if resources.backend == "local" and resources.layout.workers > 1:
        raise VwlError("--backend local trains in this process; leave out --workers-per-trial, or use the backend ray")
    for label, reason in search.space.left_out.items():
        say(f"{search.space.name}, {label}: {reason}")
    for entry in search.entries() or search.entries_of({}, 0, search.seeds[:1]):
        for stage in entry.trial.stages:
            if STAGES[stage].kind == "train":
                resources.layout.split_batch(batch_size(entry.trial.recipe, stage))
    follower = Follower(root, search, view, after_trial)
    for trial in {entry.trial.id: entry.trial for entry in search.entries()}.values():
        follower.show(trial)
    (_run_samples if search.space.strategy == "search" else _run_grid)(search, root, resources, follower, say)


def _run_grid(search: Search, root: Folder, resources: TuneResources, follower: Follower, say: Callable[[str], None]) -> None:
    planned = list(groups(search.entries(), search.index_fingerprint))
    for trials in planned:
        unfinished = tuple(trial for trial in trials if not follower.is_finished(trial))
        if unfinished:
            follower.add(TrialGroup(unfinished, root, search.index_path, resources.layout))
    total, left = sum(map(len, planned)), sum(len(group.trials) for group in follower.groups.values())
    if resources.backend == "local":
        _run_here(search, root, resources, follower, f"{search.space.name}: {total} trials, {total - left} of them finished", say)
        return
    with _open_ray(search, root, resources, total, left, len(follower.groups), say) as concurrent:
        if concurrent:
            from vwl.engine import tune

            tune.run_tasks(follower.groups, run_trials, resources.layout, concurrent, str(root / "ray"), follower)


def _run_here(
    search: Search, root: Folder, resources: TuneResources, follower: Follower, progress: str, say: Callable[[str], None]
) -> None:
    """Run the groups one after the other in this process, without Ray."""
    _store(search, root, resources if follower.groups else None)
    say(f"{progress}; running one at a time" if follower.groups else progress)
    with open_engine("local") as engine:
        for task, group in follower.groups.items():
            follower.on_start(task)
            run_trials(group, engine, partial(follower.on_event, task))


def _store(search: Search, root: Folder, resources: TuneResources | None) -> None:
    """Store a search, and what its trials run with unless none is left."""
    search.write(root)
    if resources is not None:
        stored = root.read_json(RESOURCES) if root.exists(RESOURCES) else {}
        root.write_json(RESOURCES, {**stored, search.space.name: dict(resources.options)})


def _run_samples(search: Search, root: Folder, resources: TuneResources, follower: Follower, say: Callable[[str], None]) -> None:
    past, pending = past_and_pending(search, root, follower)
    samples_left = max(search.space.samples - len(past), 0)
    total = search.space.samples * len(search.seeds)
    done = sum(follower.is_finished(entry.trial) for entry in search.entries())
    with _open_ray(search, root, resources, total, total - done if samples_left else 0, samples_left, say) as concurrent:
        if concurrent:
            from vwl.engine import tune
            from vwl.engine.suggest import Suggester

            early = search.space.early_stopping
            last_epoch = None if early is None else last_stopping_epoch(early, fewest_epochs(search))
            halving = tune.successive_halving(last_epoch, early.grace_epochs, early.keep) if early and last_epoch else None
            build = GroupBuilder(root, search.index_path, resources.layout, search.space.stage, early is not None)
            registry = SampleRegistry(search, root, build, follower, pending)
            suggester = Suggester(search.space.search, search.seeds[0], past, pending, registry.admit)
            storage = str(root / "ray")
            tune.run_samples(suggester, build, samples_left, halving, run_trials, resources.layout, concurrent, storage, follower)


@contextmanager
def _open_ray(
    search: Search, root: Folder, resources: TuneResources, total: int, left: int, num_tasks: int, say: Callable[[str], None]
) -> Iterator[int]:
    """Store the search, connect to Ray and yield how many tasks to run at a time; yield 0 without Ray if no trial is left.

    Args:
        search: the search.
        root: its folder.
        resources: what the trials run with.
        total: planned trials.
        left: trials that are not finished.
        num_tasks: groups that the trials that are left form.
        say: prints one line for the user.
    """
    progress = f"{search.space.name}: {total} trials, {total - left} of them finished"
    if not left:
        _store(search, root, None)
        say(progress)
        yield 0
        return
    os.environ.setdefault("RAY_DASHBOARD_STARTUP_TIMEOUT_S", "300")  # the default is too short on a busy machine; read at Ray's import
    from vwl.engine import tune  # Ray takes seconds to import

    with tune.tune_session(resources.address):
        concurrent = tune.concurrent_tasks(resources.layout, resources.concurrent, _trial_memory(search, resources.layout))
        _store(search, root, resources)
        say(f"{progress}; running {min(concurrent, num_tasks)} at a time")
        yield concurrent


def _trial_memory(search: Search, layout: Layout) -> float:
    """Return an estimate of the bytes that a trial's workers need."""
    trials = [entry.trial for entry in search.entries()] or [Trial(search.recipe, search.space.stage)]
    stages = list(dict.fromkeys(stage for trial in trials for stage in trial.stages))
    return layout.workers * (BASE_MEMORY + worker_memory(search.recipe, read_index(search.index_path), layout, stages)[0])
