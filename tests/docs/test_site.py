"""The built site: it builds without a warning, its links and anchors lead somewhere, and reading it needs no network."""

import re
import shutil
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from docs.generator.navigation import pages

pytestmark = pytest.mark.slow
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


class Links(HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.targets.append(values["href"])
        fetched = tag != "link" or values.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "modulepreload")
        if tag in LOADED and LOADED[tag] in values and fetched:
            self.loaded.append(values[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("zensical", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(package)
    from docs.generator.__main__ import build

    return build(tmp_path_factory.mktemp("site") / "site").parent


@pytest.fixture(scope="module")
def parsed(site) -> dict[Path, Links]:
    return {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_every_page_of_the_navigation_is_built(site):
    names = [page.name for section in pages().values() for page in section]
    assert [name for name in names if not (site / name.replace("README.md", "index.html").replace(".md", ".html")).is_file()] == []


def test_every_link_and_anchor_leads_somewhere(site, parsed):
    broken = defaultdict(list)
    for path, page in parsed.items():
        if path.name == "404.html":  # its links are for a server's root
            continue
        for target in [*page.targets, *page.loaded]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            if not file.is_file() or (parts.fragment and file.suffix == ".html" and unquote(parts.fragment) not in parsed[file].anchors):
                broken[str(path.relative_to(site))].append(target)
    assert broken == {}


def test_nothing_is_loaded_from_the_network(parsed):
    assert {path.name: remote for path, page in parsed.items() if (remote := [url for url in page.loaded if "//" in url])} == {}


def test_the_api_shows_every_public_name_with_its_parameters(site):
    import vwl

    text = (site / "api.html").read_text(encoding="utf-8")
    assert [name for name in vwl.__all__ if name != "__version__" and f">{name}</" not in text and f"{name}<" not in text] == []
    assert "doc-signature" in text or "doc-heading" in text
    assert ":::" not in text


def test_equations_are_mathml_and_excerpts_have_their_line_numbers(site):
    text = (site / "method.html").read_text(encoding="utf-8")
    assert text.count("<math") >= 9
    assert "$$" not in text
    assert "vwl/models/codebook.py, line" in text


def test_no_generated_part_is_left_open(site):
    pages_left = [path.name for path in site.rglob("*.html") if "<!-- generated:" in path.read_text(encoding="utf-8")]
    assert pages_left == []


def test_a_link_to_a_page_that_does_not_exist_fails_the_build(tmp_path):
    pytest.importorskip("latex2mathml")
    from docs.generator.staging import _linked

    (page,) = (page for section in pages().values() for page in section if page.name == "start.md")
    with pytest.raises(LookupError, match=r"docs/nowhere\.md"):
        _linked("[there](nowhere.md)", page, "docs", tmp_path)
    assert _linked("`[code](nowhere.md)`", page, "docs", tmp_path) == "`[code](nowhere.md)`"


def test_a_browser_that_opens_the_site_from_the_disk_asks_nobody_and_finds_words(site):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    requests, errors = [], []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        for name in ("index", "method", "recipes", "commands", "api"):
            page.goto((site / f"{name}.html").as_uri())
            page.wait_for_load_state("networkidle")
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("Control+k")
        page.keyboard.type("perplexity")
        page.get_by_text(re.compile(r"^[1-9]\d* results?$")).wait_for(timeout=30_000)
        browser.close()
    assert [url for url in requests if urlsplit(url).scheme not in ("file", "data", "blob")] == []
    assert errors == []


def test_a_table_shows_the_alternatives_of_an_option_as_they_are_typed(site):
    text = (site / "commands.html").read_text(encoding="utf-8")
    assert "--workers N|MIN:MAX" in text
    assert "0&lt;=x&lt;=1" in text
