"""The page: escaping, the content security policy, and what a browser would load."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser

import pytest

from vwl.report.html.page import SCRIPTS, Page, Section, duration, number, render
from vwl.report.html.sections.settings import Failure, Failures, Setting, Settings

HOSTILE = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned=1'>\"&amp;\u2028"


@dataclass
class Tag:
    name: str
    attributes: dict[str, str | None]
    text: str = ""


class Tags(HTMLParser):
    """Every start tag with its attributes, and the text of scripts."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.found: list[Tag] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append(Tag(tag, dict(attrs)))

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.found[-1].text += data


def hostile_page():
    failures = Failures([Failure(HOSTILE, HOSTILE, HOSTILE)], 1)
    settings = Settings("", [Setting(HOSTILE, HOSTILE, HOSTILE)], HOSTILE, HOSTILE, HOSTILE)
    sections = [Section("failures", HOSTILE, failures, {"things": {HOSTILE: HOSTILE}}), Section("settings", "Settings", settings)]
    return render(Page(HOSTILE, "Run", HOSTILE, sections)).decode()


def test_hostile_text_adds_no_tag():
    tags = Tags(hostile_page()).found
    assert sum(tag.name == "script" for tag in tags) == len(SCRIPTS) + 1
    assert [tag for tag in tags if tag.name == "img"] == []
    assert not any(name.startswith("on") for tag in tags for name in tag.attributes)


def test_hostile_text_is_shown_as_it_is_and_comes_back_from_the_data():
    text = hostile_page()
    (data,) = [tag for tag in Tags(text).found if tag.attributes.get("id") == "data-things"]
    assert json.loads(data.text) == {HOSTILE: HOSTILE}
    assert "&lt;/script&gt;&lt;script&gt;window.pwned" in text


def test_the_policy_allows_the_pages_own_scripts_and_nothing_from_elsewhere():
    tags = Tags(hostile_page()).found
    (policy,) = [tag.attributes["content"] for tag in tags if tag.attributes.get("http-equiv") == "Content-Security-Policy"]
    scripts = [tag.text for tag in tags if tag.name == "script" and not tag.attributes]
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts}
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts["default-src"] == "'none'"
    assert set(parts["script-src"].split()) == hashes
    assert (parts["img-src"], parts["base-uri"], parts["form-action"]) == ("data:", "'none'", "'none'")
    assert "connect-src" not in parts


def test_no_tag_names_an_address_on_the_network():
    for tag in Tags(hostile_page()).found:
        for name in ("src", "href", "action", "poster", "srcset"):
            assert re.match(r"data:|#", tag.attributes.get(name) or "#"), tag


def test_equal_pages_have_equal_bytes():
    assert hostile_page() == hostile_page()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), ("", "–"), (0, "0"), (12345, "12,345"), (0.5, "0.50"), (float("nan"), "–"), (True, "True"), ("a", "a")],
)
def test_numbers(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (0.0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown
