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
            classes.append((name, value))
        elif callable(value):
            functions.append((name, value))
    for name, value in [*functions, *classes]:
        lines += [f"## vwl.{name} {{ #vwl.{name} }}", "", f"::: {value.__module__}.{value.__qualname__}", ""]
    return "\n".join(lines)
