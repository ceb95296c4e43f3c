"""Cartoon animals on textured grounds: how `vwl.data.scenes` draws one picture and its exact mask.

The animals are made for the question of the paper's Fig. 1, why class activation maps miss most of an object: each class has a small
head whose pattern no other class has, and a large body whose pattern it shares with one other class and whose hue is
free. A classifier can tell the class from the head alone, so only a method that looks further finds the body. Shapes
are signed distances in pixels (negative inside), which gives smooth edges and exact masks at once.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

Pattern = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Coordinates in units of the part's size, (h, w) each, to a blend weight 0..1 of two colours."""


@dataclass(frozen=True)
class Animal:
    """A class: what all its animals have in common.

    Lengths are in units of half the body length.

    Attributes:
        name: of the class.
        body: half-axis of the body across its length.
        legs: number of legs on the side that is seen.
        leg: length of a leg below the body.
        tail: length and thickness of the tail.
        head: radius of the head.
        skin: pattern of body, legs and tail, shared by two classes.
        face: pattern of the head, this class's own.
        face_colours: the two colours of the head, RGB 0..1.
    """

    name: str
    body: float
    legs: int
    leg: float
    tail: tuple[float, float]
    head: float
    skin: Pattern
    face: Pattern
    face_colours: tuple[tuple[float, float, float], tuple[float, float, float]]


def _stripes(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.sign(np.sin(9 * u + 1.2 * np.sin(3 * v)))


def _spots(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.clip(3 * (np.sin(8 * u) * np.sin(8 * v) - 0.2), 0, 1)


def _scales(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.abs((3 * u + np.floor(4 * v) / 2) % 1 - 0.5) + np.abs((4 * v) % 1 - 0.5)


def _rings(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.hypot(u, v) * 2.6 % 1 < 0.5).astype(float)


def _checks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return ((np.floor(2.4 * u) + np.floor(2.4 * v)) % 2).astype(float)


def _bars(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return ((2.2 * v) % 1 < 0.5).astype(float)


def _dots(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.hypot((1.8 * u) % 1 - 0.5, (1.8 * v) % 1 - 0.5) < 0.3).astype(float)


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.cos(6 * np.arctan2(v, u)) > 0).astype(float)


def _waves(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return ((1.9 * u + 0.35 * np.sin(7 * v)) % 1 < 0.5).astype(float)


ANIMALS = (
    Animal("beetle", 0.66, 3, 0.45, (0.0, 0.0), 0.34, _spots, _rings, ((0.93, 0.15, 0.12), (1.0, 0.95, 0.9))),
    Animal("lizard", 0.32, 2, 0.35, (1.1, 0.12), 0.32, _spots, _checks, ((0.98, 0.85, 0.1), (0.1, 0.1, 0.15))),
    Animal("fish", 0.48, 0, 0.0, (0.5, 0.3), 0.36, _stripes, _star, ((0.1, 0.75, 0.95), (0.85, 0.1, 0.6))),
    Animal("fox", 0.42, 2, 0.7, (0.8, 0.22), 0.34, _stripes, _dots, ((0.15, 0.7, 0.25), (1.0, 1.0, 0.9))),
    Animal("bird", 0.5, 1, 0.6, (0.6, 0.2), 0.3, _scales, _bars, ((0.2, 0.2, 0.9), (1.0, 0.75, 0.2))),
    Animal("snail", 0.6, 0, 0.0, (0.9, 0.25), 0.3, _scales, _waves, ((0.55, 0.2, 0.75), (0.8, 1.0, 0.4))),
)
"""The classes in order; neighbours in pairs share their skin."""


def draw_scene(rng: np.random.Generator, height: int, width: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture of one to three classes.

    Args:
        rng: the only source of chance.
        height, width: in pixels.
        num_classes: how many of `ANIMALS` there are.

    Returns:
        picture (height, width, 3) uint8 RGB and mask (height, width) uint8, classes 1..num_classes.
    """
    picture, ground = _ground(rng, height, width)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(0, 4)):
        _stone(rng, picture, ground)
    kinds = rng.choice(num_classes, size=min(num_classes, rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15])), replace=False)
    again = kinds[rng.random(len(kinds)) < 0.25]
    # Far animals are smaller and are drawn first.
    for number, kind in enumerate(np.concatenate([again, kinds])):
        _draw_animal(rng, picture, mask, ground, int(kind), shrink=0.7 if number < len(again) else 1.0, crowd=len(kinds))
    light = 1 + rng.uniform(-0.15, 0.15) * np.linspace(-1, 1, width) + rng.uniform(-0.15, 0.15) * np.linspace(-1, 1, height)[:, None]
    picture = picture * light[..., None] + rng.normal(0, rng.uniform(0.01, 0.03), picture.shape)
    return (picture.clip(0, 1) * 255).round().astype(np.uint8), mask


def _draw_animal(
    rng: np.random.Generator, picture: np.ndarray, mask: np.ndarray, ground: np.ndarray, kind: int, shrink: float, crowd: int
) -> None:
    animal, (height, width) = ANIMALS[kind], mask.shape
    size = rng.uniform(0.2, 0.34) * min(height, width) * shrink * (1.0, 0.85, 0.75)[crowd - 1]
    # Of a few centres, the one that hides least; what is still hidden is the occlusion.
    reach = size
    centres = np.stack([rng.uniform(reach, height - reach, 4), rng.uniform(reach, width - reach, 4)], 1)
    hidden = [(mask[_around(y, reach, height), _around(x, reach, width)] > 0).mean() for y, x in centres]
    y, x = centres[int(np.argmin(hidden))]
    rows, columns = _around(y, 2.4 * size, height), _around(x, 2.4 * size, width)
    down, right = np.mgrid[rows, columns] + 0.5
    turn = rng.normal(0, 0.35)
    u = ((right - x) * np.cos(turn) + (down - y) * np.sin(turn)) * rng.choice([-1, 1]) / size
    v = ((down - y) * np.cos(turn) - (right - x) * np.sin(turn)) / size

    coat, phase, tint = _coat(rng, ground), rng.uniform(0, 6, 2), rng.uniform(0.9, 1.1)
    limbs, body, head = _shape(rng, animal, u, v)
    outline = np.minimum(np.minimum(limbs, body), head) * size
    seen = outline < 0.5  # from here on vectors of the pixels that the animal touches
    u, v, body, head, depth = u[seen], v[seen], body[seen], head[seen], outline[seen]
    skin = _mix(animal.skin(u + phase[0], v + phase[1]), *coat) * np.where(body < 0, 1.0, 0.82)[:, None]
    face = tint * _mix(animal.face((u - _HEAD[0]) / animal.head, (v + _HEAD[1]) / animal.head), *map(np.array, animal.face_colours))
    colours = np.where((head < 0)[:, None], face, skin) * np.where(depth > -max(1.0, size / 30), 0.55, 1.0)[:, None]
    _paint(picture[rows, columns], seen, depth, colours)
    mask[rows, columns][outline < 0] = kind + 1


_HEAD = (1.05, 0.25)
"""Centre of the head: ahead of the body's centre and above it, in half body lengths."""


def _shape(rng: np.random.Generator, animal: Animal, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return signed distances of limbs (legs and tail), body and head, (h, w) each, in half body lengths."""
    body = _ellipse(u, v, 1.0, animal.body * rng.uniform(0.85, 1.15))
    head = np.hypot(u - _HEAD[0], v + _HEAD[1]) - animal.head * rng.uniform(0.9, 1.1)
    limbs = np.full_like(u, np.inf)
    for offset in np.linspace(-0.6, 0.6, animal.legs) if animal.legs > 1 else [0.0] * animal.legs:
        foot = offset + rng.normal(0, 0.15), animal.body + animal.leg * rng.uniform(0.8, 1.2)
        limbs = np.minimum(limbs, _rod(u, v, (offset, 0.0), foot, 0.11))
    length, thickness = animal.tail
    if length:
        tip = -0.8 - length * rng.uniform(0.8, 1.1), rng.normal(-0.2, 0.3)
        limbs = np.minimum(limbs, _rod(u, v, (-0.8, 0.0), tip, thickness))
    return limbs, body, head


def _coat(rng: np.random.Generator, ground: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two colours of one free hue; nearly always unlike the ground, so that outlines are seen."""
    for _ in range(6):
        hue, value = rng.random(), rng.uniform(0.35, 0.95)
        bright = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.25, 0.9), value))
        dark = bright * rng.uniform(0.45, 0.65)
        if np.linalg.norm((bright + dark) / 2 - ground.mean(0)) > 0.3:
            break
    return dark, bright


def _ground(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a textured ground (height, width, 3) and its two colours (2, 3)."""
    hue, dull = rng.random(), rng.uniform(0.1, 0.6)
    colours = np.array([colorsys.hsv_to_rgb((hue + rng.normal(0, 0.06)) % 1, dull, rng.uniform(low, low + 0.3)) for low in (0.25, 0.5)])
    down, right = np.mgrid[0:height, 0:width] / min(height, width)
    kind = rng.integers(5)
    if kind == 0:  # cloud
        weight = 0.6 * _noise(rng, height, width, 4, 5) + 0.4 * _noise(rng, height, width, 14, 18)
    elif kind == 1:  # grass
        weight = 0.3 * _noise(rng, height, width, 4, 5) + 0.7 * _noise(rng, height, width, 10, width // 3)
    elif kind == 2:  # tiles
        wide = rng.uniform(0.12, 0.25)
        joint = (down % wide < 0.015) | ((right + (np.floor(down / wide) % 2) * wide / 2) % wide < 0.015)
        weight = np.where(joint, 0.0, 0.6 + 0.4 * _noise(rng, height, width, 9, 12))
    elif kind == 3:  # sand
        weight = 0.4 * _noise(rng, height, width, 3, 4) + 0.6 * rng.random((height, width))
    else:  # water
        weight = 0.5 + 0.35 * np.sin(rng.uniform(25, 60) * (down + 0.1 * _noise(rng, height, width, 4, 5)))
        weight += 0.3 * (_noise(rng, height, width, 6, 6) - 0.5)
    return _mix(weight.clip(0, 1), *colours), colours


def _stone(rng: np.random.Generator, picture: np.ndarray, ground: np.ndarray) -> None:
    """Draw a plain blob in place: background in the colours of an animal."""
    height, width = picture.shape[:2]
    size = rng.uniform(0.06, 0.18) * min(height, width)
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    rows, columns = _around(y, 2 * size, height), _around(x, 2 * size, width)
    down, right = np.mgrid[rows, columns] + 0.5
    outline = _ellipse((right - x) / size, (down - y) / size, rng.uniform(0.7, 1.4), rng.uniform(0.5, 1.0)) * size
    seen = outline < 0.5
    weight = _noise(rng, outline.shape[0], outline.shape[1], 4, 4)[seen]
    _paint(picture[rows, columns], seen, outline[seen], _mix(weight, *_coat(rng, ground)))


def _paint(picture: np.ndarray, seen: np.ndarray, depth: np.ndarray, colours: np.ndarray) -> None:
    """Paint the visible pixels in place; pixels on the outline (`depth` within half a pixel) are blended with the background."""
    cover = np.clip(0.5 - depth, 0, 1)[:, None]
    picture[seen] = picture[seen] * (1 - cover) + colours * cover


def _noise(rng: np.random.Generator, height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """Return smooth noise (height, width) in about 0..1 with `rows` x `columns` bumps."""
    grid = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float64)


def _mix(weight: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first + weight[..., None] * (second - first)


def _ellipse(u: np.ndarray, v: np.ndarray, a: float, b: float) -> np.ndarray:
    near, slope = np.hypot(u / a, v / b), np.hypot(u / a**2, v / b**2)
    return near * (near - 1) / np.maximum(slope, 1e-6)


def _rod(u: np.ndarray, v: np.ndarray, start: tuple[float, float], end: tuple[float, float], radius: float) -> np.ndarray:
    du, dv = end[0] - start[0], end[1] - start[1]
    along = (((u - start[0]) * du + (v - start[1]) * dv) / (du**2 + dv**2)).clip(0, 1)
    return np.hypot(u - start[0] - along * du, v - start[1] - along * dv) - radius


def _around(centre: float, reach: float, end: int) -> slice:
    return slice(max(0, int(centre - reach)), min(end, int(centre + reach) + 1))
