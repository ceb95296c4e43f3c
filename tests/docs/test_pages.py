"""The pages of the site: every page has a place in the navigation, every symbol it shows exists, every link leads somewhere."""

import ast
import re
from pathlib import Path

import pytest

from docs.generator.navigation import ROOT, SECTIONS, contents, pages
from docs.generator.source import excerpt, render
from tests.test_readme import DOCUMENTS, PAGES, text_of
from vwl.config.keys import recipe_keys

METHOD = text_of("docs/method.md")
REFERENCES = [line for block in re.findall(r"^```source\n(.*?)\n```$", METHOD, re.MULTILINE | re.DOTALL) for line in block.splitlines()]


def test_every_page_of_docs_has_a_place_in_the_navigation():
    placed = {page.file for section in SECTIONS.values() for page in section}
    written = {path.relative_to(ROOT).as_posix() for folder in ("docs", "docs/results", "examples") for path in (ROOT / folder).iterdir()}
    assert {name for name in written if name.endswith((".md", ".ipynb"))} - placed == set()


def test_no_two_pages_have_the_same_name_or_title():
    names = [page.name for section in SECTIONS.values() for page in section]
    titles = [page.title for section in SECTIONS.values() for page in section]
    assert len(set(names)) == len(names)
    assert len(set(titles)) == len(titles)


def test_the_contents_link_every_page():
    linked = set(re.findall(r"\]\(([^)]+)\)", contents()))
    assert len(linked) == sum(len(section) for section in pages().values()) - 1  # all but the page that they are on
    assert all((ROOT / "docs" / link).is_file() for link in linked)


@pytest.mark.parametrize("reference", REFERENCES)
def test_every_symbol_of_the_tour_exists_and_its_lines_are_those_of_the_file(reference):
    path, first, text = excerpt(reference)
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()[first - 1 :]
    shown = text.splitlines()
    assert [line.strip() for line in lines[: len(shown)]] == [line.strip() for line in shown]
    ast.parse(text)  # a part that is cut off, or begins deeper than it goes on, does not parse
    _, _, marker = reference.partition("| ")
    assert marker in text
    assert f'linenums="{first}"' in render(reference)


@pytest.mark.parametrize(
    "reference",
    ["vwl.no.module:f", "vwl.maps.cam:no_function", "vwl.models.codebook:Codebook.no_method", "vwl.maps.cam:class_activation | Eq. 99"],
)
def test_a_symbol_that_does_not_exist_would_be_noticed(reference):
    with pytest.raises(LookupError, match=re.escape(reference.partition(":")[0])):
        excerpt(reference)


def test_the_tour_shows_every_equation_of_the_paper():
    named = set()
    for low, high in re.findall(r"Eqs?\. (\d+)(?:(?:,| and| to) ?(?:\d+ and )?(\d+))?", METHOD):
        named |= set(range(int(low), int(high or low) + 1))
    assert named >= set(range(1, 16)) - {14}
    assert "Eqs. 12, 14 and 15" in METHOD


def test_marked_equations_in_the_code_are_in_the_tour():
    """A statement with `# Eq. N` is shown, alone or in its function."""
    shown = "\n".join(excerpt(reference).text for reference in REFERENCES)
    marked = [
        line.strip()
        for path in sorted((ROOT / "vwl").rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"# (?:with \"image\": )?Eq\. \d", line)
    ]
    assert len(marked) >= 8
    assert [line for line in marked if line not in shown] == []


def headings(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and Python-Markdown make them."""
    found = re.findall(r"^#+ (.+?)(?: \{ #(.+?) \})?$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {anchor or re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title, anchor in found}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_anchor_of_a_link_is_a_heading(document):
    path = ROOT / document
    text = re.sub(r"^```.*?^```", "", text_of(document), flags=re.MULTILINE | re.DOTALL)
    anchors = re.findall(r"\]\(([^)\s#]*)#([^)\s]+)\)", text)
    wanted = [(path.parent / target if target else path, anchor) for target, anchor in anchors if "://" not in target]
    missing = [f"{target}#{anchor}" for target, anchor in wanted if anchor not in headings(Path(target).read_text(encoding="utf-8"))]
    assert missing == []


@pytest.mark.parametrize("document", PAGES)
def test_a_page_has_one_title_and_its_code_blocks_are_closed(document):
    text = text_of(document)
    assert text.startswith("# ")
    assert len(re.findall(r"^```", text, re.MULTILINE)) % 2 == 0
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^# ", outside, re.MULTILINE)) == 1


def test_every_generated_part_is_known():
    pytest.importorskip("latex2mathml")
    from docs.generator.tables import GENERATED

    named = {name for page in PAGES for name in re.findall(r"^<!-- generated: (.+) -->$", text_of(page), re.MULTILINE)}
    assert named == set(GENERATED)
    assert all(f"| `{key.key}` |" in GENERATED["recipe-keys"]() for key in recipe_keys())


def test_the_commands_page_has_every_command_and_option():
    import typer

    from docs.generator.commands import reference
    from vwl.cli.main import COMMANDS, _imported

    text = reference()
    for name, command in COMMANDS.items():
        todo = [(f"vwl {name}", _imported(command))]
        while todo:
            path, found = todo.pop()
            assert f"{path} {{ #{path.replace(' ', '-')} }}" in text
            assert isinstance(found, typer.core.TyperCommand | typer.core.TyperGroup)
            options = [] if hasattr(found, "commands") else [option for p in found.params if not p.hidden for option in p.opts]
            assert [option for option in options if option.startswith("--") and option != "--help" and option not in text] == []
            todo += [(f"{path} {inner}", child) for inner, child in getattr(found, "commands", {}).items()]


def test_what_is_known_as_html_or_markdown_is_escaped_in_the_tables():
    from docs.generator.commands import _cell

    assert _cell("a <b> | *c* `<d>`") == "a &lt;b> \\| \\*c\\* `<d>`"
