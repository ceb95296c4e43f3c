"""Makes the Markdown that Zensical renders: a copy of the pages with what is generated, and links that hold on the site."""

import posixpath
import re
import shutil
from pathlib import Path

from latex2mathml.converter import convert

from docs.generator import notebooks, source
from docs.generator.navigation import ROOT, Page, pages
from docs.generator.tables import GENERATED

_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_INLINE_CODE = re.compile(r"`[^`\n]+`")
_SOURCE = re.compile(r"^```source\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
_EQUATION = re.compile(r"^\$\$\n(.*?)\n\$\$$", re.MULTILINE | re.DOTALL)
_FILES = "files"
"""Folder of the site for files of the repository that a page links to and that are no pages."""


def stage(folder: Path) -> None:
    """Write all pages and what they link to into an empty folder.

    Raises:
        LookupError: a page names a symbol, a table or a file that does not exist.
    """
    for section in pages().values():
        for page in section:
            target = folder / page.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_text(page, folder), encoding="utf-8")
    for name in ("style.css", "iframe-worker.js"):
        shutil.copy(Path(__file__).parent / name, folder)


def _text(page: Page, folder: Path) -> str:
    path = ROOT / page.file
    if path.suffix == ".ipynb":
        text = notebooks.render(path, (folder / page.name).parent / "pictures")
        return _linked(text, page, posixpath.dirname(page.file), folder, skip=("pictures/",))
    text = path.read_text(encoding="utf-8")
    if path.suffix == "":  # LICENSE
        return f"# {page.title}\n\n{text}"
    text = re.sub(r"\A#+ ", "# ", text)  # the tables of a search begin with a lower heading
    return _linked(expanded(text), page, posixpath.dirname(page.file), folder)


def expanded(text: str) -> str:
    """Return a page with its generated parts, its excerpts of the source and its equations as MathML.

    Raises:
        LookupError: it names something that does not exist.
    """
    text = re.sub(r"^<!-- generated: ([a-z-]+) -->$", lambda match: GENERATED[match[1]](), text, flags=re.MULTILINE)
    text = _SOURCE.sub(lambda match: "\n\n".join(map(source.render, match[1].splitlines())), text)
    return _EQUATION.sub(lambda match: f'<div class="equation">{convert(match[1], display="block")}</div>', text)


def _linked(text: str, page: Page, base: str, folder: Path, skip: tuple[str, ...] = ()) -> str:
    """Return a page whose links between files of the repository are links between pages of the site; code stays as it is."""
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0] if match[0].startswith("```") else match[0].replace("\\|", "|"))  # in a table GitHub needs the backslash
        return f"\0{len(kept) - 1}\0"

    def link(match: re.Match[str]) -> str:
        target, hash_, anchor = match[2].partition("#")
        if not target or "://" in target or target.startswith(("mailto:", *skip)):
            return match[0]
        name = _name_on_site(posixpath.normpath(posixpath.join(base, target)), folder, page)
        return f"{match[1]}{posixpath.relpath(name, posixpath.dirname(page.name) or '.')}{hash_}{anchor}{match[3]}"

    text = _INLINE_CODE.sub(keep, _FENCE.sub(keep, text))
    text = _LINK.sub(link, text)
    while "\0" in text:
        text = re.sub(r"\0(\d+)\0", lambda match: kept[int(match[1])], text)
    return text


def _name_on_site(path: str, folder: Path, page: Page) -> str:
    """Return the name on the site of a file of the repository; one that is no page is copied there."""
    names = {page.file: page.name for section in pages().values() for page in section}
    if path in names:
        return names[path]
    if (ROOT / path / "README.md").is_file() and f"{path}/README.md" in names:
        return names[f"{path}/README.md"]
    if not (ROOT / path).is_file():
        raise LookupError(f"{page.file} links to {path}, which does not exist or is a folder")
    name = path.removeprefix("docs/") if path.startswith("docs/") else f"{_FILES}/{path}"
    if not (folder / name).exists():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / name)
    return name
