"""Confusion matrices, and the largest confusions by name."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vwl.report.html.page import Section
from vwl.report.html.sections.stored import StoredScore
from vwl.report.html.sections.summary import STAGE_NAMES

_LARGEST = 8


@dataclass(frozen=True)
class Confused:
    """Pixels of a class that were taken for another: their share of the true class's pixels, percent, and of all pixels that are wrong."""

    truth: str
    prediction: str
    share: float
    of_errors: float


@dataclass(frozen=True)
class Confusion:
    """A stage's largest confusions on a split; `key` names its matrix in the page's data."""

    key: str
    title: str
    largest: Sequence[Confused]


@dataclass(frozen=True)
class Confusions:
    """Content of the section, the last stage on held-out images first."""

    matrices: Sequence[Confusion]


def confusion_section(classes: Sequence[str], scores: Sequence[StoredScore]) -> Section:
    """Return the section; the matrices themselves are drawn by the page from its data."""
    last_first = list(reversed(scores))
    ordered = [score for split in ("val", "train") for score in last_first if score.split == split]
    matrices, data = [], {}
    for score in ordered:
        key, counts = f"{score.stage}-{score.split}", np.asarray(score.confusion, np.int64)
        present = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1)).tolist()
        matrices.append(Confusion(key, f"{STAGE_NAMES[score.stage]}, {score.split}", _largest(classes, counts)))
        data[key] = {"names": [classes[i] for i in present], "counts": counts[np.ix_(present, present)].tolist()}
    return Section("confusion", "Confusions", Confusions(matrices), {"confusion": data})


def _largest(classes: Sequence[str], counts: np.ndarray) -> list[Confused]:
    """Return the entries off the diagonal that hold most pixels."""
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    total, true = max(int(wrong.sum()), 1), counts.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_LARGEST]
    pairs = [divmod(int(place), len(counts)) for place in order if wrong.flat[place]]
    return [Confused(classes[t], classes[p], 100 * float(wrong[t, p] / true[t]), 100 * float(wrong[t, p] / total)) for t, p in pairs]
