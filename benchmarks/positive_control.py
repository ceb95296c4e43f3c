"""A positive control: what hybrid pooling and visual words add to the coverage of whole objects, on scenes made for the claim.

Each animal has a small head that alone tells its class, and a body whose pattern another class shares. For each row of Table 4 and each
seed: recall of bodies and of heads, precision, and mIoU of the class activation maps on val, at Otsu's threshold. Every row has the
learning rate at which its mean mAP on val over the seeds is best; ground-truth masks choose nothing. Finished cells are kept in --out.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from vwl.config.files import load_recipe
from vwl.config.layout import Layout
from vwl.data.index import write_index
from vwl.data.scenes import prepare_scenes
from vwl.engine import local
from vwl.engine.base import Engine
from vwl.evaluation.coverage import coverage
from vwl.storage.score_maps import MapReader
from vwl.tuning.statistics import differences, mean_and_sd
from vwl.workflow.pipeline import run_stages
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import scored_rows

ROWS = {
    "baseline": ("classifier.pooling=gap", "classifier.codebook.strategy=none"),
    "HP": ("classifier.codebook.strategy=none",),
    "HP + VWE": ("classifier.codebook.strategy=learning", "classifier.codebook.decov=none"),
    "HP + VWL-M": ("classifier.codebook.strategy=memory",),
    "HP + VWL-L": ("classifier.codebook.strategy=learning",),
}
SETTINGS = (
    "classifier.epochs=4",
    "classifier.crop=224",
    "classifier.resize=[224,288]",
    "classifier.linear_probe=report",
    "classifier.codebook.histogram=sum",
    "classifier.codebook.decov=unsquared",
    "classifier.optimiser.head_lr_mult=10",
    "cam.long_side=384",
    "cam.scales=[1.0]",
)
RATES = (0.002, 0.004)
FIGURES = ("body_recall", "head_recall", "precision", "miou")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=[*ROWS], help="Only these rows, to run several processes.")
    parser.add_argument("--train", type=int, default=160)
    parser.add_argument("--val", type=int, default=80)
    options = parser.parse_args()
    index, _ = prepare_scenes(options.out / "scenes", options.train, options.val, heads=True)
    write_index(index, options.out / "index.parquet")
    found: dict[str, dict[int, dict[str, float]]] = {}
    for name in options.rows:
        by_rate = {rate: {seed: cell(options.out, name, ROWS[name], rate, seed) for seed in range(options.seeds)} for rate in RATES}
        maps = {rate: float(np.mean([figures["val_map"] for figures in cells.values()])) for rate, cells in by_rate.items()}
        rate = max(maps, key=lambda rate: maps[rate])
        found[name] = by_rate[rate]
        print(f"{name}: mean mAP by rate { ({rate: round(100 * value, 1) for rate, value in maps.items()}) }, chosen {rate}", flush=True)
    for base in (base for base in ("baseline", "HP") if base in found):
        print(f"\n| row | mAP | {' | '.join(f'{figure} | to {base}' for figure in FIGURES)} |")
        print(f"|---|--:|{'--:|' * 2 * len(FIGURES)}")
        for name, by_seed in found.items():
            line = [name, f"{100 * sum(cell['val_map'] for cell in by_seed.values()) / len(by_seed):.1f}"]
            for figure in FIGURES:
                values = {row: {seed: cell[figure] for seed, cell in cells.items()} for row, cells in found.items()}
                mean, sd = mean_and_sd(list(values[name].values()))
                difference = differences(values, base).get(name)
                line.append(f"{mean:.1f} ± {sd or 0:.1f}")
                line.append("-" if difference is None else f"{difference.value:+.1f} ± {difference.half_width or 0:.1f}")
            print(f"| {' | '.join(line)} |")


def cell(out: Path, name: str, changes: tuple[str, ...], rate: float, seed: int) -> dict[str, float]:
    """Train a row's classifier and return its figures, or those that are stored."""
    stored = out / "cells" / f"{name} {rate:g} {seed}.json"
    if stored.exists():
        return dict(json.loads(stored.read_text()))
    recipe = load_recipe("demo", [*SETTINGS, *changes, f"classifier.optimiser.learning_rate={rate}", f"seed={seed}"])
    run = Run.start(str(out / "runs" / f"{name} {rate:g} {seed}"), recipe, str(out / "index.parquet"))
    run_stages(run, ["classifier", "cam"], Engine(local, local), Layout(cpus_per_worker=1), lambda progress: None, lambda line: None)
    trained, manifest = run.manifest("classifier"), run.manifest("cam")
    assert trained is not None
    assert manifest is not None
    assert manifest.threshold is not None
    reader = MapReader(run.stage_folder("cam"))
    covered = coverage(run.index, scored_rows(run.index, "val"), reader, manifest.threshold)
    miou = next(score.miou for score in manifest.scores if score.split == "val")
    figures = {**asdict(covered), "miou": miou, "threshold": manifest.threshold, **(trained.training_scores or {})}
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_text(json.dumps(figures))
    return figures


if __name__ == "__main__":
    main()
