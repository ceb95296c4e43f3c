"""The results of the trials in a search folder: one row per trial, read from the run folders, written as one Parquet table."""

import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vwl.storage.folder import Folder
from vwl.tuning.search import Entry, Search, open_searches
from vwl.tuning.trials import DONE, UNFINISHED, Trial, epoch_metrics, is_finished, read_record
from vwl.workflow.manifest import read_manifest

Row = dict[str, Any]
SPLITS = ("train", "val")
PARQUET = "trials.parquet"
_EPOCH = pa.struct([("epoch", pa.int32()), ("metrics", pa.map_(pa.string(), pa.float64()))])
_CELL = pa.struct([("space", pa.string()), ("setting", pa.string()), ("keys", pa.string()), ("column", pa.string())])
_SCORES = [
    ("miou", pa.float64()),
    ("object_precision", pa.float64()),
    ("object_recall", pa.float64()),
    ("threshold", pa.float64()),
    ("threshold_chosen", pa.string()),
    ("best_miou_with_ground_truth", pa.float64()),
    ("best_threshold_with_ground_truth", pa.float64()),
]
SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("recipe_hash", pa.string()),
        ("seed", pa.int64()),
        ("stage", pa.string()),
        ("state", pa.string()),
        ("reason", pa.string()),
        ("in", pa.list_(_CELL)),
        *((f"{split}_{name}", kind) for split in SPLITS for name, kind in _SCORES),
        ("epochs", pa.list_(_EPOCH)),
        ("started", pa.string()),
        ("finished", pa.string()),
        ("seconds", pa.float64()),
        ("stage_seconds", pa.map_(pa.string(), pa.float64())),
        ("stage_images", pa.map_(pa.string(), pa.int64())),
        ("copied_from", pa.map_(pa.string(), pa.string())),
        ("checkpoint", pa.string()),
        ("index_fingerprint", pa.string()),
        ("versions", pa.map_(pa.string(), pa.string())),
        ("recipe", pa.string()),
    ]
)
"""Columns of the table of trials. `in`: the cells of tables that the trial fills, with their recipe keys as JSON and, in a table with two
axes, their column. Scores are in percent. `stage_images`: of each inference stage.
`seconds`: time of all runs; `stage_seconds`: of each stage (a stage `copied_from` another trial keeps the time it took there).
`checkpoint`: weights of the first training, relative to the folder; `recipe`: all settings as JSON."""


def trial_rows(root: Folder, searches: Sequence[Search]) -> list[Row]:
    """Return one row of `SCHEMA` for each trial of the searches, including those that failed or have not started."""
    rows: dict[str, Row] = {}
    for search in searches:
        for entry in search.entries():
            trial = entry.trial
            if trial.id not in rows:
                rows[trial.id] = _row(trial, root, search)
            rows[trial.id]["in"].append(_cell(search, entry))
    return list(rows.values())


def _cell(search: Search, entry: Entry) -> Row:
    return {
        "space": search.space.name,
        "setting": entry.setting.label,
        "keys": json.dumps(entry.setting.overrides, sort_keys=True),
        "column": entry.setting.column or None,
    }


def _row(trial: Trial, root: Folder, search: Search) -> Row:
    record = read_record(trial, root)
    state = record.state
    if state == DONE and not is_finished(trial, root, search.index_fingerprint, may_stop=False):
        state = UNFINISHED  # its data or a stage has changed since
    folder = trial.folder(root)
    stored = {stage: read_manifest(folder / stage) for stage in trial.stages}
    manifests = {stage: manifest for stage, manifest in stored.items() if manifest is not None}
    row: Row = {
        "trial": trial.id,
        "recipe_hash": trial.recipe_hash,
        "seed": trial.recipe.seed,
        "stage": trial.stage,
        "state": state,
        "reason": record.reason,
        "in": [],
        "epochs": [{"epoch": n, "metrics": list(metrics.items())} for n, metrics in epoch_metrics(folder / trial.stages[0]).items()],
        "started": record.started,
        "finished": record.finished,
        # a killed process has not updated the record, but its finished stages have their times
        "seconds": max(record.seconds, sum(manifest.seconds for manifest in manifests.values() if manifest.copied_from is None)),
        "stage_seconds": [(stage, manifest.seconds) for stage, manifest in manifests.items()],
        "stage_images": [(stage, manifest.images) for stage, manifest in manifests.items() if manifest.images],
        "copied_from": [(stage, manifest.copied_from) for stage, manifest in manifests.items() if manifest.copied_from is not None],
        "checkpoint": f"trials/{trial.id}/{trial.stages[0]}/weights.pt" if (folder / trial.stages[0]).exists("weights.pt") else None,
        "index_fingerprint": search.index_fingerprint,
        "versions": list(manifests[trial.stages[0]].versions.items()) if trial.stages[0] in manifests else [],
        "recipe": trial.recipe.model_dump_json(),
    }
    scores = manifests[trial.stage].scores if state == DONE else []
    for line in scores:
        row |= {f"{line.split}_{name}": getattr(line, name) for name, _ in _SCORES}
    return row


def write_parquet(root: Folder) -> list[Row]:
    """Write the table of all trials of a folder, and return its rows."""
    rows = trial_rows(root, open_searches(root))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink, compression="zstd")
    root.write(PARQUET, sink.getvalue())
    return rows
