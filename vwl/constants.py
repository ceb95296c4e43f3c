"""Constants of masks and score maps that every package shares."""

IGNORE = 255
"""Mask value of pixels that count nowhere: neither in a loss nor in a score."""
MAP_STRIDE = 4
"""Stride of stored score maps relative to the image, in pixels."""


def map_size(height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) of the score map of an image of `height` x `width` pixels."""
    return -(-height // MAP_STRIDE), -(-width // MAP_STRIDE)
