"""The report in a browser: nothing is asked of the network, and it can be used with the mouse, the keyboard, on a phone and in the dark.

Needs Chromium and the extra `browser-test`; VWL_CHROMIUM names another program.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import copy_run
from vwl.data.index import make_index, write_index
from vwl.report.html.report import run_report
from vwl.tuning.html_report import search_report
from vwl.workflow.run_folder import Run

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra browser-test")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra browser-test")
CHROMIUM = os.environ.get("VWL_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")

HOSTILE = "<img src=x onerror=window.pwned=1>"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@dataclass
class Opened:
    """A page, what it wrote on the console and what it asked for."""

    page: Any
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def images(self) -> list[str]:
        """Ids of the cards in their order."""
        return self.page.locator("#cards .card b").all_inner_texts()

    def layer(self) -> str | None:
        """Address of the first card's layer."""
        layers = self.page.locator("#cards .card").first.locator("img.layer")
        return layers.get_attribute("src") if layers.count() else None


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def files(tiny_run, done_search, tmp_path_factory) -> dict[str, Path]:
    """The reports of a run, of a search, and of a run whose classes have hostile names."""
    folder = tmp_path_factory.mktemp("browser")
    hostile = copy_run(tiny_run, folder)
    write_index(make_index(hostile.index.rows, ("background", HOSTILE, "</script>"), hostile.index.root, HOSTILE), hostile.index_path)
    hostile = Run.start(str(hostile.folder), hostile.recipe, hostile.index_path, overwrite=True)
    pages = {"run": run_report(tiny_run, 4), "search": search_report(done_search[0]), "hostile": run_report(hostile)}
    for name, content in pages.items():
        (folder / f"{name}.html").write_bytes(content)
    return {name: folder / f"{name}.html" for name in pages}


@pytest.fixture
def open_page(browser, files):
    contexts = []

    def opened(name: str, viewport: dict[str, int] = DESKTOP, dark: bool = False) -> Opened:
        context = browser.new_context(viewport=viewport, color_scheme="dark" if dark else "light")
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.on("console", lambda message: found.messages.append(f"{message.type}: {message.text}"))
        found.page.on("pageerror", lambda error: found.messages.append(f"error: {error}"))
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.goto(files[name].as_uri())
        return found

    yield opened
    for context in contexts:
        context.close()


def scroll_through(page: Any) -> None:
    """Show each section, so that its charts are drawn."""
    for section in page.locator("main > section").all():
        section.scroll_into_view_if_needed()
        for plot in section.locator(".plot").all():
            plot.scroll_into_view_if_needed()
            plot.locator("svg.main-svg").first.wait_for()


@pytest.mark.parametrize("name", ["run", "search", "hostile"])
def test_nothing_is_asked_of_the_network_and_nothing_goes_wrong(open_page, files, name):
    opened = open_page(name)
    scroll_through(opened.page)
    assert opened.messages == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {files[name].as_uri()}


def test_hostile_names_run_nothing(open_page):
    opened = open_page("hostile")
    scroll_through(opened.page)
    opened.page.locator("#cards .card").first.click()
    opened.page.locator("#viewer").wait_for()
    assert opened.page.evaluate("window.pwned === undefined")
    assert opened.page.locator("img[src=x]").count() == 0
    assert HOSTILE in opened.page.locator("#filter-class").inner_text()


def test_a_script_from_elsewhere_is_refused_by_the_policy(open_page):
    page = open_page("run").page
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.pwned = 1'}))")
    assert page.evaluate("window.pwned === undefined")


def test_charts_are_drawn_when_they_are_scrolled_to(open_page):
    page = open_page("run").page
    drawn = page.locator(".plot svg.main-svg")
    assert drawn.count() < page.locator(".plot").count()
    scroll_through(page)
    assert page.locator(".plot:has(svg.main-svg)").count() == page.locator(".plot").count()


def test_the_slider_shows_each_stage(open_page):
    opened = open_page("run")
    slider = opened.page.locator("#stage")
    names, layers = [], []
    for number in range(7):
        slider.fill(str(number))
        names.append(opened.page.locator("#stage-name").inner_text())
        layers.append(opened.layer())
    assert names == ["Image", "CAM", "CRF", "Random walk", "Pseudo masks", "Segmentation", "Ground truth"]
    assert layers[0] is None
    assert len(set(layers[1:])) == 6


def test_the_slider_moves_by_keys(open_page):
    page = open_page("run").page
    page.locator("#stage").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.locator("#stage-name").inner_text() == "CAM"
    assert page.locator("#stage").get_attribute("aria-valuetext") == "CAM"


def test_images_are_filtered_by_split_class_and_score(open_page, tiny_run):
    opened = open_page("run")
    page = opened.page
    by_split = {row.image_id for row in tiny_run.index.rows if row.split == "val"}
    page.locator("#filter-split").select_option("val")
    assert set(opened.images()) == by_split
    page.locator("#filter-split").select_option("")
    page.locator("#filter-class").select_option("2")
    assert set(opened.images()) == {row.image_id for row in tiny_run.index.rows if 2 in row.labels}
    page.locator("#filter-class").select_option("")
    page.locator("#filter-score").fill("0")
    assert (opened.images(), page.locator("#gallery-count").inner_text()) == ([], "No image matches.")


def test_images_are_sorted_by_score_the_worst_first(open_page):
    opened = open_page("run")
    scores = [float(text) for text in opened.page.locator("#cards .card-text span").all_inner_texts()]
    assert scores == sorted(scores)
    opened.page.locator("#sort").select_option("best:segment")
    assert [float(text) for text in opened.page.locator("#cards .card-text span").all_inner_texts()] == scores[::-1]
    opened.page.locator("#sort").select_option("")
    assert opened.images() == sorted(opened.images())


def test_the_viewer_is_used_by_keys_alone(open_page):
    opened = open_page("run")
    page, ids = opened.page, opened.images()
    page.locator("#cards .card").first.focus()
    page.keyboard.press("Enter")
    title = page.locator("#viewer-title")
    assert title.inner_text() == f"{ids[0]} · Segmentation"
    for key, expected in (
        ("ArrowRight", f"{ids[1]} · Segmentation"),
        ("ArrowUp", f"{ids[1]} · Ground truth"),
        ("1", f"{ids[1]} · Image"),
        ("ArrowLeft", f"{ids[0]} · Image"),
        ("ArrowLeft", f"{ids[0]} · Image"),
    ):
        page.keyboard.press(key)
        assert title.inner_text() == expected
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    page.wait_for_function("id => document.activeElement.querySelector('b')?.textContent === id", arg=ids[1])  # after the dialog's event


def test_full_pictures_are_larger_than_thumbnails(open_page):
    opened = open_page("run")
    opened.page.locator("#cards .card").first.click()  # the worst
    notes = opened.page.locator("#viewer-note")
    assert "thumbnail" not in notes.inner_text()
    opened.page.keyboard.press("Escape")
    opened.page.locator("#cards .card").nth(2).click()
    sizes = [opened.page.locator("#viewer-picture img").first.evaluate("image => image.decode().then(() => image.naturalWidth)")]
    assert sizes[0] <= 160


def test_tables_of_classes_and_matrices_are_switched(open_page):
    page = open_page("run").page
    visible = page.locator("#classes .switched:visible h3")
    assert visible.all_inner_texts() == ["IoU, val"]
    page.locator("#classes select[data-select=metric]").select_option("recall")
    page.locator("#classes select[data-select=split]").select_option("train")
    assert visible.all_inner_texts() == ["Recall, train"]
    page.locator("#confusion select").select_option("cam-train")
    assert page.locator("#confusion .matrix:visible tbody th").all_inner_texts() == ["background", "beetle", "lizard"]


@pytest.mark.parametrize("name", ["run", "search"])
def test_a_phone_scrolls_in_one_direction_only(open_page, name):
    page = open_page(name, PHONE).page
    scroll_through(page)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@pytest.mark.parametrize("by", ["system", "button"])
def test_dark_colours_reach_the_charts(open_page, by):
    page = open_page("run", dark=by == "system").page
    scroll_through(page)
    if by == "button":
        page.get_by_role("button", name="Dark").click()
    assert page.evaluate("getComputedStyle(document.body.parentElement).backgroundColor") == "rgb(17, 21, 28)"
    line = page.locator("#chart-classifier-loss .js-line").first
    assert line.evaluate("line => line.style.stroke") == "rgb(143, 176, 255)"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["run", "search"])
def test_axe_finds_no_barrier(open_page, name, viewport, dark):
    page = open_page(name, viewport, dark).page
    scroll_through(page)
    found = axe.Axe().run(page).response["violations"]
    if name == "run":
        page.locator("#cards .card").first.click()
        page.locator("#viewer").wait_for()
        found += axe.Axe().run(page, {"include": [["#viewer"]]}).response["violations"]
    assert [(one["impact"], one["id"], one["nodes"][0]["html"]) for one in found] == []
