"""Scores 0..1 of the maps of other methods (`vwl.maps.seed_formats`), and a background beside them."""

import numpy as np


def with_background(classes: tuple[int, ...], maps: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Return object classes and maps (K, h, w) with a first map of class 0, the background: 1 minus the largest score."""
    return (0, *classes), np.concatenate([1 - maps.max(axis=0, initial=0)[None], maps])


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """Return probabilities that sum to 1, of outputs before or after a softmax; -inf stands for a class of probability 0."""
    given = np.where(np.isneginf(outputs), 0, outputs)
    total = given.sum(axis=0)
    if given.min() >= 0 and total.min() > 0 and total.max() <= 1.001:
        return given / total
    exponentials = np.exp(outputs - outputs.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def scores(maps: np.ndarray, common: bool) -> np.ndarray:
    """Return scores 0..1; one at a time, or all, are divided by a maximum above 1."""
    positive = np.maximum(maps, 0)
    largest = positive.max(axis=None if common else (1, 2), keepdims=True, initial=0)
    return positive / np.maximum(largest, 1)
