"""What several seeds say of a setting: mean and spread, and whether a difference is more than seeds make. Pure functions.

The trainings of one seed share their random choices, so settings are compared seed by seed. With the few seeds that one can afford
the noise is estimated over all rows of a table (a layout of settings by seeds: with two rows this is the paired t-test), which
supposes that it is alike in all of them. A row that lacks a seed falls back to the paired t-test on the seeds it shares, or to Welch's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
Scores = Mapping[int, float]
"""A setting's score by seed."""
POOLED, PAIRED, WELCH = "paired by seed, noise pooled over rows", "paired t", "Welch's t"


@dataclass(frozen=True)
class Difference:
    """A difference of means with its confidence interval.

    Attributes:
        value: in the scores' unit.
        half_width: of the interval; none where there are too few seeds to tell.
        method: how the interval came about.
        seeds: number that it rests on, of the setting with fewer.
    """

    value: float
    half_width: float | None
    method: str
    seeds: int

    @property
    def beyond_noise(self) -> bool | None:
        """Whether the interval excludes zero; none where there is none."""
        return None if self.half_width is None else abs(self.value) > self.half_width


def mean_and_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return mean and sample standard deviation; none where there are too few values."""
    mean = float(np.mean(values)) if len(values) else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None


def differences(rows: Mapping[str, Scores], base: str) -> dict[str, Difference]:
    """Return the difference of each row to the base row, where both have a score."""
    shared = sorted(rows.get(base, {}))
    whole = [label for label, scores in rows.items() if set(shared) <= set(scores)]
    noise = pooled_variance([[rows[label][seed] for seed in shared] for label in whole])
    found = {}
    for label, scores in rows.items():
        if label == base or not scores or not shared:
            continue
        if label in whole and noise is not None:
            variance, freedom = noise
            value = float(np.mean([scores[seed] - rows[base][seed] for seed in shared]))
            found[label] = Difference(value, _half_width(2 * variance / len(shared), freedom), POOLED, len(shared))
        else:
            found[label] = _alone(scores, rows[base])
    return found


def pooled_variance(table: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """Return variance and degrees of freedom of what settings and seeds do not explain in a (settings, seeds) table; none if too small."""
    values = np.asarray(table, dtype=float)
    if values.ndim != 2 or min(values.shape) < 2:
        return None
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    freedom = (values.shape[0] - 1) * (values.shape[1] - 1)
    return float((rest**2).sum() / freedom), freedom


def _alone(scores: Scores, base: Scores) -> Difference:
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
