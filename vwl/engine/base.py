"""What an engine is: something that trains a stage and something that runs an inference stage's shards, here or on a Ray cluster.

The workflow hands both a spec and gets progress back. `vwl.engine.local` works without Ray; `vwl.engine.train` and `vwl.engine.map` use it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from vwl.config.layout import Layout
from vwl.config.node_labels import Selector
from vwl.evaluation.sums import SumImages, sum_in_threads
from vwl.inference.build import InferenceSpec
from vwl.inference.runner import Shard
from vwl.training.build import TrainSpec
from vwl.training.loop import TrainResult


@dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Attributes:
        stage: its name.
        done, total: steps of a training, images of an inference stage.
        message: one line for the user, e.g. how many images failed; may be empty.
        metrics: of a training, the newest line of metrics.jsonl with the step's own loss.
        part: `scoring` while thresholds and scores of a stage are computed, whose images are made; else empty.
    """

    stage: str
    done: int
    total: int
    message: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    part: str = ""

    @property
    def name(self) -> str:
        """The stage, and which part of it."""
        return f"{self.stage} {self.part}" if self.part else self.stage


OnProgress = Callable[[Progress], None]


class Trainer(Protocol):
    """Trains a stage."""

    def fit(self, spec: TrainSpec, layout: Layout, on_progress: OnProgress) -> TrainResult:
        """Train to the end, going on from the last checkpoint.

        Raises:
            VwlError: a mistake of the user, e.g. a layout that does not fit.
            Interrupted: stopped on request, after a checkpoint.
        """
        ...


class ShardRunner(Protocol):
    """Runs the shards of an inference stage."""

    def run_shards(
        self, spec: InferenceSpec, shards: list[Shard], images_done: int, on_progress: OnProgress, max_processes: int | None = None
    ) -> None:
        """Run shards in at most `max_processes` processes; `images_done` images count as done from the start.

        Raises:
            VwlError: the stage cannot be built or its results cannot be written.
        """
        ...

    def split_processes(self) -> tuple[int, int] | None:
        """Return how many processes run networks and how many refine at the same time; none if that gains nothing."""
        ...


@dataclass(frozen=True)
class Engine:
    """Where trainings and inference stages run, and where results are scored."""

    trainer: Trainer
    shard_runner: ShardRunner
    sum_images: SumImages = sum_in_threads


@contextmanager
def open_engine(backend: str, address: str | None = None, inference_on: Selector | None = None) -> Iterator[Engine]:
    """Open Ray (a local one, or the cluster at `address`), or plain processes of this machine for the backend `local`.

    On a cluster, inference runs on the nodes with the labels `inference_on`.

    Raises:
        VwlError: no cluster answers, or no node has these labels.
    """
    if backend == "local":
        from vwl.engine import local

        yield Engine(local, local)
    else:
        from vwl.engine import map as ray_map
        from vwl.engine import session, sums
        from vwl.engine import train as ray_train
        from vwl.engine.nodes import check_selected
        from vwl.engine.pool import set_inference_nodes

        with session.session(address):
            check_selected(inference_on or {}, "--inference-on")
            set_inference_nodes(inference_on or {})
            yield Engine(ray_train, ray_map, sums.sum_images)
