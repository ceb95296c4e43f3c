"""What the trials of a search folder have found: one row a trial, read from the run folders, kept as one Parquet table."""

import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vwl.storage.folder import Folder
from vwl.tuning.search import Entry, Search, open_searches
from vwl.tuning.trials import DONE, Trial, epoch_metrics, is_finished, record
from vwl.workflow.manifest import read_manifest

Row = dict[str, Any]
SPLITS = ("train", "val")
PARQUET = "trials.parquet"
_EPOCH = pa.struct([("epoch", pa.int32()), ("metrics", pa.map_(pa.string(), pa.float64()))])
_PLACE = pa.struct([("space", pa.string()), ("setting", pa.string()), ("keys", pa.string())])
_SCORES = [
    ("miou", pa.float64()),
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
        ("in", pa.list_(_PLACE)),
        *((f"{split}_{name}", kind) for split in SPLITS for name, kind in _SCORES),
        ("epochs", pa.list_(_EPOCH)),
        ("started", pa.string()),
        ("finished", pa.string()),
        ("seconds", pa.float64()),
        ("stage_seconds", pa.map_(pa.string(), pa.float64())),
        ("copied_from", pa.map_(pa.string(), pa.string())),
        ("checkpoint", pa.string()),
        ("index_fingerprint", pa.string()),
        ("versions", pa.map_(pa.string(), pa.string())),
        ("recipe", pa.string()),
    ]
)
"""The table of trials. `in`: the settings it stands for, with their keys as JSON; scores in percent; `seconds` of work in all starts,
`stage_seconds` of each stage (a stage `copied_from` another trial keeps the time it took there); `checkpoint`: weights of the first
training, within the folder; `recipe`: all settings as JSON."""


def trial_rows(root: Folder, searches: Sequence[Search]) -> list[Row]:
    """Return a row of `SCHEMA` for each trial of the searches, also of those that failed or were not begun; each trial once."""
    rows: dict[str, Row] = {}
    for search in searches:
        for entry in search.entries():
            trial = entry.trial
            if trial.id not in rows:
                rows[trial.id] = _row(trial, root, search)
            rows[trial.id]["in"].append(_place(search, entry))
    return list(rows.values())


def _place(search: Search, entry: Entry) -> Row:
    return {"space": search.space.name, "setting": entry.setting.label, "keys": json.dumps(entry.setting.overrides, sort_keys=True)}


def _row(trial: Trial, root: Folder, search: Search) -> Row:
    known = record(trial, root)
    state = known["state"]
    if state == DONE and not is_finished(trial, root, search.index_fingerprint, may_stop=False):
        state = "unfinished"  # its data or a stage has changed since
    place = trial.folder(root)
    read = {stage: read_manifest(place / stage) for stage in trial.stages}
    manifests = {stage: manifest for stage, manifest in read.items() if manifest is not None}
    row: Row = {
        "trial": trial.id,
        "recipe_hash": trial.recipe_hash,
        "seed": trial.recipe.seed,
        "stage": trial.stage,
        "state": state,
        "reason": known["reason"],
        "in": [],
        "epochs": [{"epoch": line.pop("epoch"), "metrics": list(line.items())} for line in epoch_metrics(place / trial.stages[0])],
        "started": known.get("started"),
        "finished": known.get("finished"),
        # what a killed process had not noted yet, its stages may have
        "seconds": max(known["seconds"], sum(manifest.seconds for manifest in manifests.values() if manifest.copied_from is None)),
        "stage_seconds": [(stage, manifest.seconds) for stage, manifest in manifests.items()],
        "copied_from": [(stage, manifest.copied_from) for stage, manifest in manifests.items() if manifest.copied_from is not None],
        "checkpoint": f"trials/{trial.id}/{trial.stages[0]}/weights.pt" if (place / trial.stages[0]).exists("weights.pt") else None,
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
