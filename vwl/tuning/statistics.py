"""Statistics over seeds: mean and standard deviation of a setting, and the confidence interval of a difference. Pure functions.

Trainings with the same seed draw the same random numbers, so settings are compared seed by seed. Because there are few seeds, the
noise is estimated over all rows of a table of settings by seeds (two-way layout without replication; with two rows, the paired
t-test), which assumes equal variance in all rows. A row without all seeds is compared by the paired t-test on the seeds that it shares
with the base row, or, if it shares fewer than two, by Welch's t-test.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
Scores = Mapping[int, float]
"""Scores of a setting by seed."""
POOLED, PAIRED, WELCH = "paired by seed, noise pooled over rows", "paired t", "Welch's t"


@dataclass(frozen=True)
class Difference:
    """A difference of means with its confidence interval.

    Attributes:
        value: in the scores' unit.
        half_width: half the width of the confidence interval; none if there are too few seeds.
        method: how the interval was computed.
        seeds: number of seeds it is based on; of two settings, that of the one with fewer.
    """

    value: float
    half_width: float | None
    method: str
    seeds: int

    @property
    def is_significant(self) -> bool | None:
        """Whether the interval excludes zero; none without an interval."""
        return None if self.half_width is None else abs(self.value) > self.half_width


def mean_and_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return mean and sample standard deviation; none of no values, and no deviation of one."""
    mean = float(np.mean(values)) if len(values) else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None


def differences(rows: Mapping[str, Scores], base: str) -> dict[str, Difference]:
    """Return the difference of each row to the base row, by label; rows without a score are left out."""
    shared = sorted(rows.get(base, {}))
    complete = [label for label, scores in rows.items() if set(shared) <= set(scores)]
    noise = pooled_variance([[rows[label][seed] for seed in shared] for label in complete])
    result = {}
    for label, scores in rows.items():
        if label == base or not scores or not shared:
            continue
        if label in complete and noise is not None:
            variance, freedom = noise
            value = float(np.mean([scores[seed] - rows[base][seed] for seed in shared]))
            result[label] = Difference(value, _half_width(2 * variance / len(shared), freedom), POOLED, len(shared))
        else:
            result[label] = _separate_difference(scores, rows[base])
    return result


def pooled_variance(table: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """Return the residual variance and its degrees of freedom in a table of (settings, seeds); none if it is smaller than 2 x 2."""
    values = np.asarray(table, dtype=float)
    if values.ndim != 2 or min(values.shape) < 2:
        return None
    residuals = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    freedom = (values.shape[0] - 1) * (values.shape[1] - 1)
    return float((residuals**2).sum() / freedom), freedom


def _separate_difference(scores: Scores, base: Scores) -> Difference:
    """Return the difference of two rows with noise estimated from these rows only."""
    both = sorted(set(scores) & set(base))
    if len(both) > 1:
        each = [scores[seed] - base[seed] for seed in both]
        return Difference(float(np.mean(each)), _half_width(float(np.var(each, ddof=1)) / len(both), len(both) - 1), PAIRED, len(both))
    ours, theirs = list(scores.values()), list(base.values())
    value, seeds = float(np.mean(ours) - np.mean(theirs)), min(len(ours), len(theirs))
    if seeds < 2:
        return Difference(value, None, "too few seeds", seeds)
    parts = [float(np.var(some, ddof=1)) / len(some) for some in (ours, theirs)]
    squares = sum(part**2 / (len(some) - 1) for part, some in zip(parts, (ours, theirs), strict=True))
    freedom = sum(parts) ** 2 / squares if squares else math.inf
    return Difference(value, _half_width(sum(parts), freedom), WELCH, seeds)


def _half_width(variance: float, freedom: float) -> float:
    """Return half the confidence interval of an estimate with this variance."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
