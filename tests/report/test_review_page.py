import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from vwl.report.review_page import THUMBNAIL, review_page
from vwl.workflow.review import Queue, review
from vwl.workflow.run_folder import Run


class Page(HTMLParser):
    """Collects the tags of a page, and checks that they are closed in order."""

    EMPTY = ("meta", "img", "link", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def queue(tiny_run) -> Queue:
    return review(tiny_run)


@pytest.fixture(scope="module")
def page(tiny_run, queue) -> Page:
    return Page(review_page(tiny_run, queue, queue.images[:4]).decode())


def test_the_page_has_a_row_an_image_with_its_reason(page, queue):
    assert len([item for item in page.all("li") if item.get("tabindex") == "0"]) == 4
    for image in queue.images[:4]:
        assert f"{image.rank}. {image.row.image_id}" in page.text
        assert image.reason in page.text


def test_every_picture_is_in_the_file_small_and_described(page):
    pictures = page.all("img")
    assert len(pictures) == 4 * 5  # the image, three stages, the ground truth
    for picture in pictures:
        kind, _, data = picture["src"].partition(",")
        assert kind == "data:image/jpeg;base64"
        decoded = Image.open(io.BytesIO(base64.b64decode(data)))
        assert decoded.size == (int(picture["width"]), int(picture["height"]))
        assert max(decoded.size) <= THUMBNAIL
        assert picture["alt"].startswith(("image ", "mask of "))


def test_the_page_loads_nothing_and_a_browser_would_refuse_to(tiny_run, queue, page):
    text = review_page(tiny_run, queue, queue.images[:1]).decode()
    assert re.findall(r"https?://|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)) == []
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert all("src" not in script for script in page.all("script"))


def test_names_from_data_files_are_shown_as_they_are_and_run_nothing(tiny_run, queue):
    name = "<script>alert(1)</script>&"
    index = replace(tiny_run.index, classes=("background", name, *tiny_run.index.classes[2:]), source=name)
    run = Run(tiny_run.folder, tiny_run.recipe, index, tiny_run.index_path)
    run.fingerprint = tiny_run.fingerprint  # type: ignore[method-assign]
    page = Page(review_page(run, queue, queue.images[:2]).decode())
    assert len(page.all("script")) == 1
    assert name in page.text


def test_the_page_can_be_used_in_the_dark_and_by_keyboard(tiny_run, queue, page):
    text = review_page(tiny_run, queue, queue.images[:1]).decode()
    assert "prefers-color-scheme: dark" in text
    assert page.all("html")[0]["lang"] == "en"
    assert {"j", "k"} <= set(re.findall(r"\b([jk]): -?1", text))


def test_a_queue_without_ground_truth_has_none_in_its_page(tiny_run, queue):
    bare = [replace(image, row=replace(image.row, mask=None), mious={}) for image in queue.images[:2]]
    page = Page(review_page(tiny_run, queue, bare).decode())
    assert len(page.all("img")) == 2 * 4
    assert "ground truth" not in page.text
