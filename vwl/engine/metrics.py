"""Metrics of trainings and inference stages for Prometheus: Ray's agent on each node exports what the processes of the node set.

Processes set them by the names below; Ray adds the prefix `ray_`, and `_total` to counters. All have the tags `run` (path of the run
folder, with the bucket on S3) and `stage`. deploy/grafana/vwl.json shows them.
"""

from collections.abc import Mapping
from functools import cache

from ray.util.metrics import Counter, Gauge

from vwl.engine.base import OnProgress, Progress
from vwl.storage.folder import Folder

TRAINING_GAUGES = {
    "loss": ("vwl_training_loss", "Loss of the newest step, summed over its terms."),
    "images_per_second": ("vwl_training_images_per_second", "Images trained on in a second, of all workers, over the last ten steps."),
    "data_wait_share": ("vwl_training_data_wait_share", "Share of the time that worker 0 waited for images, over the last ten steps."),
    "codebook_perplexity": ("vwl_codebook_perplexity", "Perplexity of the assignments to codewords."),
    "codewords_used": ("vwl_codewords_used", "Codewords that are assigned to some pixel."),
}
"""Name and description of the gauges of a training, by the key of metrics.jsonl that they repeat. Worker 0 sets them."""
DONE, TOTAL = "vwl_stage_done", "vwl_stage_total"
IMAGES, FAILED, STARTS = "vwl_images", "vwl_images_failed", "vwl_process_starts"
PROGRESS_GAUGES = {
    DONE: "Steps of a training, or images of an inference stage, that are done.",
    TOTAL: "Steps of a training, or images of an inference stage, in all.",
}
"""Set by the driver."""
COUNTERS = {
    IMAGES: "Images that inference actors have finished, failed ones among them; without the last ones of an actor.",
    FAILED: "Images that could not be processed; counted by the driver.",
    STARTS: "Starts of training workers and inference actors; those after the first of each follow a failure.",
}
"""Counted by training workers and inference actors, except failures: an actor may end before its last counts are exported."""
_TAGS = ("run", "stage")


def exported_names() -> set[str]:
    """Return the names that Prometheus sees."""
    gauges = {name for name, _ in TRAINING_GAUGES.values()} | PROGRESS_GAUGES.keys()
    return {f"ray_{name}" for name in gauges} | {f"ray_{name}_total" for name in COUNTERS}


class StageMetrics:
    """The metrics of one stage of a run in this process."""

    def __init__(self, run: str, stage: str) -> None:
        self._tags = {"run": run, "stage": stage}

    def set_training(self, metrics: Mapping[str, float]) -> None:
        """Set the gauges of a training from a line of metrics.jsonl; keys that it lacks are left alone."""
        for key, (name, description) in TRAINING_GAUGES.items():
            if key in metrics:
                _gauge(name, description).set(metrics[key], self._tags)

    def set_progress(self, done: int, total: int) -> None:
        """Set how far the stage is."""
        for name, value in ((DONE, done), (TOTAL, total)):
            _gauge(name, PROGRESS_GAUGES[name]).set(value, self._tags)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to one of the `COUNTERS`."""
        if amount:
            _counter(name).inc(amount, self._tags)


def run_of(stage_folder: Folder) -> str:
    """Return the tag `run` of a stage's folder."""
    return stage_folder.path.rpartition("/")[0]


def with_progress(on_progress: OnProgress, run: str) -> OnProgress:
    """Return a callback that also sets the progress of each stage."""

    def follow(progress: Progress) -> None:
        StageMetrics(run, progress.stage).set_progress(progress.done, progress.total)
        on_progress(progress)

    return follow


@cache
def _gauge(name: str, description: str) -> Gauge:
    return Gauge(name, description, _TAGS)


@cache
def _counter(name: str) -> Counter:
    return Counter(name, COUNTERS[name], _TAGS)
