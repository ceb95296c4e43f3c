"""Choosing thresholds and scoring the four scored stages of a finished run: in the driver alone, and on the workers of Ray.

The driver alone is a loop over the images in one thread; the local backend counts in threads. The run folder is opened and not changed,
except for the scores, which are written with the same content. Ray has been started and has scored once before. Parity: the manifests'
thresholds and scores, and the bytes of `scores-*.json`, are equal. Times are of the processor of the driver's machine, too: it may be
busy with other work.
"""

import argparse
from collections.abc import Callable, Sequence

from _paired import Line, paired, show

from vwl.data.index import Row
from vwl.engine import session, sums
from vwl.evaluation.sums import Count, OnImages, SumImages, SumType, parts, sum_in_threads, sum_part
from vwl.workflow.manifest import StageScore
from vwl.workflow.run_folder import Run
from vwl.workflow.scoring import choose_and_score
from vwl.workflow.stages import SCORED, SPLITS

Result = list[tuple[float | None, dict[str, float], list[StageScore], dict[str, bytes]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="a copy of a finished run folder")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpus", type=int, default=2)
    options = parser.parse_args()
    run = Run.open(options.run)
    found: list[Result] = []

    def by(sum_images: SumImages) -> Callable[[], None]:
        return lambda: found.append([scored(run, stage, sum_images) for stage in SCORED])

    with session.session(None, cpus=options.cpus):
        ray = paired(by(alone), by(sums.sum_images), options.repeats)
    threads = paired(by(alone), by(sum_in_threads), options.repeats)
    equal = all(one == found[0] for one in found)
    parity = "same numbers" if equal else "NOT the same numbers"
    lines = [
        Line(f"scoring: driver alone, {name}", f"{pair.first:.2f} s", f"{pair.second:.2f} s", pair.ratio, "", parity)
        for name, pair in ((f"Ray, {options.cpus} CPUs", ray), ("threads", threads))
    ]
    show(f"Scoring {', '.join(SCORED)} of {len(run.index.rows):,} images", lines, equal)


def alone(count: Count[SumType], rows: Sequence[Row], on_images: OnImages) -> SumType:
    """Make a sum in this thread."""
    total = count.empty()
    for part in parts(rows):
        total.merge(sum_part(count, part))
    return total


def scored(run: Run, stage: str, sum_images: SumImages) -> tuple[float | None, dict[str, float], list[StageScore], dict[str, bytes]]:
    """Return a stage's thresholds and scores."""
    manifest = run.manifest(stage)
    assert manifest is not None
    new = choose_and_score(run, manifest, sum_images)
    folder = run.stage_folder(stage)
    files = {name: folder.read(name) for split in SPLITS if folder.exists(name := f"scores-{split}.json")}
    return new.threshold, dict(new.class_thresholds), new.scores, files


if __name__ == "__main__":
    main()
