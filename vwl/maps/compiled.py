"""Compiles functions with numba, which is imported at the first use, since that takes a second."""

from collections.abc import Callable
from typing import Any


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return the function, compiled at its first call and run without the GIL; `options` are numba's.

    Machine code is cached beside the source or in the user's cache folder, if one of them can be written.
    """
    from numba import njit

    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:
        return njit(nogil=True, **options)(function)
