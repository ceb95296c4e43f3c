"""The equations of the paper, (1) to (13), transcribed as printed: loops over pixels, codewords and classes in NumPy.

Features are (hw, d) for the visual words and (h, w, d) for the pooling, as there. Where the print cannot be meant literally, the
transcription says so: Eq. 6 (D), Eq. 11 (sign).
"""

import math

import numpy as np


def eq1_class_activation(features: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """M_c of features (h, w, d) and the classifier (C, d), after the ReLU: (C, h, w)."""
    height, width, dim = features.shape
    maps = np.zeros((len(weight), height, width))
    for c in range(len(weight)):
        for y in range(height):
            for x in range(width):
                score = 0.0
                for i in range(dim):
                    score += weight[c, i] * features[y, x, i]
                maps[c, y, x] = max(score, 0)
    return maps


def eq2_similarity(features: np.ndarray, codewords: np.ndarray) -> np.ndarray:
    similarity = np.zeros((len(features), len(codewords)))
    for i, pixel in enumerate(features):
        for j, codeword in enumerate(codewords):
            similarity[i, j] = (pixel @ codeword) / (math.sqrt(pixel @ pixel) * math.sqrt(codeword @ codeword))
    return similarity


def eq3_probability(similarity: np.ndarray, temperature: float) -> np.ndarray:
    probability = np.zeros_like(similarity)
    for i in range(len(similarity)):
        total = sum(math.exp(temperature * s) for s in similarity[i])
        for j in range(similarity.shape[1]):
            probability[i, j] = math.exp(temperature * similarity[i, j]) / total
    return probability


def eq4_assignments(probability: np.ndarray) -> list[int]:
    return [int(np.argmax(row)) for row in probability]


def word_label(assignments: list[int], num_codewords: int) -> np.ndarray:
    return np.array([float(j in assignments) for j in range(num_codewords)])


def eq5_frequency(probability: np.ndarray) -> np.ndarray:
    return sum(probability) / len(probability)


def eq6_new_codewords(features: np.ndarray, assignments: list[int], num_codewords: int) -> tuple[np.ndarray, np.ndarray]:
    """C' and the number of pixels of each codeword. D is the matrix of counts: with the printed reciprocals D^-1 would multiply by them."""
    one_hot = np.eye(num_codewords)[assignments]
    counts = one_hot.sum(axis=0)
    degree = np.diag(np.where(counts > 0, counts, 1))
    return np.linalg.inv(degree) @ one_hot.T @ features, counts


def eq7_moved(codewords: np.ndarray, new_codewords: np.ndarray, momentum: float) -> np.ndarray:
    return momentum * new_codewords + (1 - momentum) * codewords


def eq8_maximum(features: np.ndarray, split: int) -> np.ndarray:
    """f_max of features (h, w, d) whose sides are divisible by `split`."""
    height, width, dim = features.shape[0] // split, features.shape[1] // split, features.shape[2]
    total = np.zeros(dim)
    for i in range(split):
        for j in range(split):
            total += features[i * height : (i + 1) * height, j * width : (j + 1) * width].reshape(-1, dim).max(axis=0)
    return total / split**2


def eq9_average(features: np.ndarray) -> np.ndarray:
    height, width, dim = features.shape
    total = np.zeros(dim)
    for i in range(height):
        for j in range(width):
            total += features[i, j]
    return total / (height * width)


def eq10_hybrid(features: np.ndarray, gap_weight: float) -> np.ndarray:
    return (sum(eq8_maximum(features, split) for split in (1, 2, 4)) + gap_weight * eq9_average(features)) / (gap_weight + 3)


def eq11_classification(logits: np.ndarray, target: np.ndarray) -> float:
    """L_cls with the minus sign that the print lacks: without it, training would drive the scores away from the labels."""
    total = 0.0
    for p, y in zip(logits, target, strict=True):
        total += y * math.log(math.exp(p) / (1 + math.exp(p))) + (1 - y) * math.log(1 / (1 + math.exp(p)))
    return -total / len(logits)


def eq13_decov(codewords: np.ndarray) -> float:
    """DeCov of the covariance between codewords, summed (not averaged) over the feature dimensions."""
    covariance = np.zeros((len(codewords), len(codewords)))
    for i, one in enumerate(codewords):
        for j, other in enumerate(codewords):
            covariance[i, j] = sum((one - one.mean()) * (other - other.mean()))
    return 0.5 * (np.linalg.norm(covariance, "fro") ** 2 - np.linalg.norm(np.diag(covariance)) ** 2)
