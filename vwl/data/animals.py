"""Cartoon animals on textured grounds: draws one image of `vwl.data.scenes` and its exact mask.

The animals reproduce the problem of the paper's Fig. 1, that class activation maps cover only a part of an object. Each class has a
small head whose pattern is unique, and a large body whose pattern it shares with one other class and whose hue is random. The head alone
identifies the class, so that a plain classifier activates there and misses the body. Shapes are signed distances in pixels (negative
inside), which give smooth edges and exact masks.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

Pattern = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Function of the coordinates u and v, in units of the body part's size, to the blend weight 0..1 of two colours."""


@dataclass(frozen=True)
class Animal:
    """A class of animals. Lengths are in units of half the body length.

    Attributes:
        name: name of the class.
        body: half the height of the body.
        legs: number of visible legs.
        leg: length of a leg below the body.
        tail: length and thickness of the tail.
        head: radius of the head.
        skin: pattern of body, legs and tail, shared by two classes.
        face: pattern of the head, unique to the class.
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
"""The classes 1..6 in order; 1 and 2, 3 and 4, 5 and 6 share their skin."""


class Scene(NamedTuple):
    """A drawn scene.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 class ids, 0 background.
        heads: (H, W) uint8, the mask of the heads alone: the parts that tell the classes apart.
    """

    image: np.ndarray
    mask: np.ndarray
    heads: np.ndarray


def draw_scene(rng: np.random.Generator, height: int, width: int, num_classes: int) -> Scene:
    """Draw an image with animals of one to three classes, and its masks.

    Args:
        rng: source of all random numbers.
        height: of the image, in pixels.
        width: of the image, in pixels.
        num_classes: the first `num_classes` of `ANIMALS` are drawn.
    """
    image, ground_colours = _ground(rng, height, width)
    mask, heads = np.zeros((2, height, width), np.uint8)
    for _ in range(rng.integers(0, 4)):
        _stone(rng, image, ground_colours)
    kinds = rng.choice(num_classes, size=min(num_classes, rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15])), replace=False)
    second = kinds[rng.random(len(kinds)) < 0.25]
    # Second animals of a class are drawn smaller and first, as if farther away.
    for number, kind in enumerate(np.concatenate([second, kinds])):
        shrink = 0.7 if number < len(second) else 1.0
        _draw_animal(rng, image, mask, heads, ground_colours, int(kind), shrink, len(kinds))
    light = 1 + rng.uniform(-0.15, 0.15) * np.linspace(-1, 1, width) + rng.uniform(-0.15, 0.15) * np.linspace(-1, 1, height)[:, None]
    image = image * light[..., None] + rng.normal(0, rng.uniform(0.01, 0.03), image.shape)
    return Scene((image.clip(0, 1) * 255).round().astype(np.uint8), mask, heads)


def _draw_animal(
    rng: np.random.Generator,
    image: np.ndarray,
    mask: np.ndarray,
    heads: np.ndarray,
    ground_colours: np.ndarray,
    kind: int,
    shrink: float,
    num_kinds: int,
) -> None:
    """Draw an animal of class `kind` + 1 into image and masks, in place.

    Args:
        rng: source of all random numbers.
        image: (H, W, 3) float RGB 0..1.
        mask: (H, W) uint8 class ids.
        heads: (H, W) uint8 class ids of the heads.
        ground_colours: (2, 3) RGB 0..1, the colours of the ground.
        kind: index in `ANIMALS`.
        shrink: factor of the animal's size.
        num_kinds: number of classes in the image, 1 to 3; the more, the smaller each animal.
    """
    animal, (height, width) = ANIMALS[kind], mask.shape
    size = rng.uniform(0.2, 0.34) * min(height, width) * shrink * (1.0, 0.85, 0.75)[num_kinds - 1]
    # Of four random positions the one that covers least of the earlier animals; the remaining overlap is occlusion.
    positions = np.stack([rng.uniform(size, height - size, 4), rng.uniform(size, width - size, 4)], 1)
    covered = [(mask[_around(y, size, height), _around(x, size, width)] > 0).mean() for y, x in positions]
    y, x = positions[int(np.argmin(covered))]
    rows, columns = _around(y, 2.4 * size, height), _around(x, 2.4 * size, width)
    down, right = np.mgrid[rows, columns] + 0.5
    turn = rng.normal(0, 0.35)
    u = ((right - x) * np.cos(turn) + (down - y) * np.sin(turn)) * rng.choice([-1, 1]) / size
    v = ((down - y) * np.cos(turn) - (right - x) * np.sin(turn)) / size

    coat, phase, tint = _coat(rng, ground_colours), rng.uniform(0, 6, 2), rng.uniform(0.9, 1.1)
    limbs, body, head = _shape(rng, animal, u, v)
    outline = np.minimum(np.minimum(limbs, body), head) * size
    touched = outline < 0.5  # from here on u, v and the distances are vectors of the pixels that the animal touches
    whole_head = head
    u, v, body, head, depth = u[touched], v[touched], body[touched], head[touched], outline[touched]
    skin = _mix(animal.skin(u + phase[0], v + phase[1]), *coat) * np.where(body < 0, 1.0, 0.82)[:, None]
    face = tint * _mix(animal.face((u - _HEAD[0]) / animal.head, (v + _HEAD[1]) / animal.head), *map(np.array, animal.face_colours))
    colours = np.where((head < 0)[:, None], face, skin) * np.where(depth > -max(1.0, size / 30), 0.55, 1.0)[:, None]
    _paint(image[rows, columns], touched, depth, colours)
    mask[rows, columns][outline < 0] = kind + 1
    heads[rows, columns][outline < 0] = 0  # it covers those behind it
    heads[rows, columns][whole_head < 0] = kind + 1


_HEAD = (1.05, 0.25)
"""Distance of the head's centre from the body's centre, forwards and upwards, in half body lengths."""


def _shape(rng: np.random.Generator, animal: Animal, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the signed distances (h, w) to limbs (legs and tail), body and head, in half body lengths."""
    body = _ellipse(u, v, 1.0, animal.body * rng.uniform(0.85, 1.15))
    head = np.hypot(u - _HEAD[0], v + _HEAD[1]) - animal.head * rng.uniform(0.9, 1.1)
    limbs = np.full_like(u, np.inf)
    for hip in np.linspace(-0.6, 0.6, animal.legs) if animal.legs > 1 else [0.0] * animal.legs:
        foot = hip + rng.normal(0, 0.15), animal.body + animal.leg * rng.uniform(0.8, 1.2)
        limbs = np.minimum(limbs, _rod(u, v, (hip, 0.0), foot, 0.11))
    length, thickness = animal.tail
    if length:
        tip = -0.8 - length * rng.uniform(0.8, 1.1), rng.normal(-0.2, 0.3)
        limbs = np.minimum(limbs, _rod(u, v, (-0.8, 0.0), tip, thickness))
    return limbs, body, head


def _coat(rng: np.random.Generator, ground_colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a dark and a bright colour of one random hue, in most cases different from the ground so that outlines are visible."""
    for _ in range(6):
        hue, value = rng.random(), rng.uniform(0.35, 0.95)
        bright = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.25, 0.9), value))
        dark = bright * rng.uniform(0.45, 0.65)
        if np.linalg.norm((bright + dark) / 2 - ground_colours.mean(0)) > 0.3:
            break
    return dark, bright


def _ground(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a textured ground (height, width, 3) and its two colours (2, 3), RGB 0..1."""
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


def _stone(rng: np.random.Generator, image: np.ndarray, ground_colours: np.ndarray) -> None:
    """Draw a stone into the image, in place: background in the colours that animals have."""
    height, width = image.shape[:2]
    size = rng.uniform(0.06, 0.18) * min(height, width)
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    rows, columns = _around(y, 2 * size, height), _around(x, 2 * size, width)
    down, right = np.mgrid[rows, columns] + 0.5
    outline = _ellipse((right - x) / size, (down - y) / size, rng.uniform(0.7, 1.4), rng.uniform(0.5, 1.0)) * size
    touched = outline < 0.5
    weight = _noise(rng, outline.shape[0], outline.shape[1], 4, 4)[touched]
    _paint(image[rows, columns], touched, outline[touched], _mix(weight, *_coat(rng, ground_colours)))


def _paint(image: np.ndarray, touched: np.ndarray, distance: np.ndarray, colours: np.ndarray) -> None:
    """Paint pixels in place, blended with the old colours where the outline runs through a pixel.

    Args:
        image: (h, w, 3) float RGB 0..1.
        touched: (h, w) bool, the n pixels to paint.
        distance: (n,) signed distance to the outline, in pixels.
        colours: (n, 3) RGB 0..1.
    """
    cover = np.clip(0.5 - distance, 0, 1)[:, None]
    image[touched] = image[touched] * (1 - cover) + colours * cover


def _noise(rng: np.random.Generator, height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """Return smooth noise (height, width) in about 0..1, interpolated from `rows` x `columns` random values."""
    grid = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float64)


def _mix(weight: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the blend (..., 3) of two colours; weight 0 (...) gives the first."""
    return first + weight[..., None] * (second - first)


def _ellipse(u: np.ndarray, v: np.ndarray, a: float, b: float) -> np.ndarray:
    """Return the approximate signed distance to an ellipse with half-axes a and b around the origin."""
    near, slope = np.hypot(u / a, v / b), np.hypot(u / a**2, v / b**2)
    return near * (near - 1) / np.maximum(slope, 1e-6)


def _rod(u: np.ndarray, v: np.ndarray, start: tuple[float, float], end: tuple[float, float], radius: float) -> np.ndarray:
    """Return the signed distance to a rod with round ends."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = (((u - start[0]) * du + (v - start[1]) * dv) / (du**2 + dv**2)).clip(0, 1)
    return np.hypot(u - start[0] - along * du, v - start[1] - along * dv) - radius


def _around(centre: float, reach: float, end: int) -> slice:
    """Return the pixels from `centre` - `reach` to `centre` + `reach` that lie in 0..`end`."""
    return slice(max(0, int(centre - reach)), min(end, int(centre + reach) + 1))
