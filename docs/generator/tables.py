"""What a page takes from the code: each `<!-- generated: NAME -->` on a line of its own is replaced by the result of a function."""

from collections.abc import Callable

from docs.generator import api, commands
from docs.generator.navigation import ROOT, contents
from vwl.config.expectation import ExpectedScore, load_expectation
from vwl.config.files import builtin_recipes, recipe_summary
from vwl.config.keys import Key, recipe_keys
from vwl.config.named_files import names_in
from vwl.config.recipe import Recipe


def recipe_list() -> str:
    """Return a table of the built-in recipes with their summaries."""
    return _table(["recipe", "is"], [[f"`{name}`", recipe_summary(name)] for name in builtin_recipes()])


def recipe_key_tables() -> str:
    """Return a table of keys for each section of a recipe, under a heading with the section's own description."""
    lines = []
    sections: dict[str, list[Key]] = {}
    for key in recipe_keys():
        sections.setdefault(key.key.rpartition(".")[0], []).append(key)
    order = ["", *Recipe.model_fields]
    for section, keys in sorted(sections.items(), key=lambda pair: order.index(pair[0].partition(".")[0])):
        about = (_section_type(section).__doc__ or "").strip().split("\n\n")[0] if section else "The recipe itself."
        heading = [f"### {section or 'recipe'}", "", " ".join(about.split()), ""]
        lines += [*heading, _table(["key", "type", "default", "meaning"], _rows(keys)), ""]
    return "\n".join(lines)


def _rows(keys: list[Key]) -> list[list[str]]:
    return [[f"`{key.key}`", f"`{key.type}`", f"`{key.default}`", key.about] for key in keys]


def _section_type(section: str) -> type:
    value = Recipe()
    for name in section.split("."):
        value = getattr(value, name)
    return type(value)


def expectations() -> str:
    """Return the tables of what reproductions should score."""
    lines = []
    for name in names_in("vwl.config.expectations"):
        expected = load_expectation(name)
        rows = [_expected(score) for score in expected.scores]
        images = ", ".join(f"{split} {number:,}" for split, number in expected.images.items())
        lines += [f"**`vwl reproduce {name}`**: {expected.title}, recipe `{expected.recipe}`; images: {images}.", ""]
        lines += [_table(["stage", "split", "paper's mIoU", "in the paper", "as expected"], rows), ""]
    return "\n".join(lines)


def _expected(score: ExpectedScore) -> list[str]:
    paper, (low, high) = "-" if score.paper is None else f"{score.paper:.1f}", score.band
    return [f"`{score.stage}`", score.split, paper, score.source, f"{low:g} to {high:g}"]


def limits() -> str:
    """Return the list of limits of the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return readme.partition("## Limits\n\n")[2].partition("\n\n")[0]


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *cells]])


GENERATED: dict[str, Callable[[], str]] = {
    "contents": contents,
    "recipes": recipe_list,
    "recipe-keys": recipe_key_tables,
    "expectations": expectations,
    "limits": limits,
    "commands": commands.reference,
    "api": api.reference,
}
