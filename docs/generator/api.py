"""The reference of the Python API: one mkdocstrings block for each public name of the package."""

import inspect

import vwl


def reference() -> str:
    """Return the names of `vwl.__all__`, functions first, each with the block that mkdocstrings replaces by its reference."""
    lines = []
    functions, classes = [], []
    for name in vwl.__all__:
        value = getattr(vwl, name)
        if inspect.isclass(value):
            classes.append(value)
        elif callable(value):
            functions.append(value)
    for value in [*functions, *classes]:
        lines += [f"::: {value.__module__}.{value.__qualname__}", ""]
    return "\n".join(lines)
