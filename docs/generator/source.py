"""Excerpts of the source: the lines of a function, a class or a statement, with their present line numbers."""

import ast
import textwrap
from functools import cache
from typing import NamedTuple

from docs.generator.navigation import ROOT


class Excerpt(NamedTuple):
    """Lines of a file: its path in the repository, the number of the first line, the text."""

    path: str
    first: int
    text: str


def excerpt(reference: str) -> Excerpt:
    """Return the lines that `MODULE:QUALNAME` or `MODULE:QUALNAME | MARKER` names.

    The first form is a whole function, method or class; the second the simple statements in it that contain the marker, from
    the first to the last one.

    Raises:
        LookupError: the module, the name or the marker is not there.
    """
    name, _, marker = (part.strip() for part in reference.partition("|"))
    module, _, qualname = name.partition(":")
    path = module.replace(".", "/") + ".py"
    if not (ROOT / path).is_file():
        raise LookupError(f"{reference}: there is no {path}")
    lines, tree = _parsed(path)
    node: ast.AST = tree
    for part in qualname.split("."):
        found = [child for child in ast.walk(node) if getattr(child, "name", None) == part and child is not node]
        if not found:
            raise LookupError(f"{reference}: {path} has no {qualname}")
        node = found[0]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    if marker:
        simple = [child for child in ast.walk(node) if isinstance(child, ast.stmt) and not getattr(child, "body", None)]
        hits = [child for child in simple if any(marker in line for line in lines[child.lineno - 1 : child.end_lineno])]
        if not hits:
            raise LookupError(f"{reference}: {path} has no '{marker}' in {qualname}")
        first, last = min(hit.lineno for hit in hits), max(hit.end_lineno or hit.lineno for hit in hits)
        kept = lines[first - 1 : last]
    else:
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        kept = lines[first - 1 : node.end_lineno]
    return Excerpt(path, first, textwrap.dedent("\n".join(kept)))


@cache
def _parsed(path: str) -> tuple[list[str], ast.Module]:
    text = (ROOT / path).read_text(encoding="utf-8")
    return text.splitlines(), ast.parse(text)


def render(reference: str) -> str:
    """Return an excerpt as a titled Markdown code block with line numbers."""
    path, first, text = excerpt(reference)
    last = first + text.count("\n")
    lines = f"line {first}" if last == first else f"lines {first} to {last}"
    return f'```python title="{path}, {lines}" linenums="{first}"\n{text}\n```'
