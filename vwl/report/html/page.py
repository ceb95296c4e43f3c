"""One self-contained HTML page of sections: template, style, scripts and data in one file that asks the network for nothing.

Every value goes through jinja2's autoescape or, as JSON, through `tojson`, which escapes `<`, `>`, `&` and `'`; the scripts write text
only as text. The page's content security policy names the scripts by their hashes, so that nothing else in it can run.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

SCRIPTS = ("vendor/plotly-basic.min.js", "page.js", "tables.js", "charts.js", "gallery.js")
"""In the order in which they run; those of the report of a search are `SEARCH_SCRIPTS`."""
SEARCH_SCRIPTS = ("vendor/plotly-basic.min.js", "page.js", "charts.js")


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: its anchor.
        title: heading, and entry of the contents.
        content: dataclass that the template reads as `content`.
        data: values for the scripts, by name; written as JSON.
        template: `templates/<template>.html`; the name if not given.
    """

    name: str
    title: str
    content: Any
    data: dict[str, Any] = field(default_factory=dict)
    template: str = ""


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: of the document: the name of the run or search.
        kind: what it reports on, above the title: `Run` or `Search`.
        subtitle: a line below the title.
        sections: in order.
        scripts: file names of the scripts.
    """

    title: str
    kind: str
    subtitle: str
    sections: Sequence[Section]
    scripts: Sequence[str] = SCRIPTS


def render(page: Page) -> bytes:
    """Return the page as UTF-8 HTML; equal pages give equal bytes."""
    scripts = [_script(name) for name in page.scripts]
    data = {name: value for section in page.sections for name, value in section.data.items()}
    return (
        environment()
        .get_template("page.html")
        .render(
            page=page,
            style=_text("page.css"),
            scripts=scripts,
            policy=_policy(scripts),
            data=data,
            version=metadata.version("vwl"),
        )
        .encode("utf-8", "replace")
    )


@cache
def environment() -> Environment:
    """Return the environment of the templates: autoescape on, an unknown name is an error."""
    made = Environment(
        loader=PackageLoader("vwl.report.html", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = number
    made.filters["duration"] = duration
    return made


def number(value: Any, digits: int = 2) -> str:
    """Return a value as a table shows it: floats with `digits` decimals, thousands separated, a dash for none and nan."""
    if value is None or value == "" or value != value:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def duration(seconds: float | None) -> str:
    """Return seconds in words: `8 s`, `3 min 20 s`, `2 h 05 min`; a dash for none."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _policy(scripts: Sequence[str]) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}; base-uri 'none'; form-action 'none'"


def _script(name: str) -> str:
    """Return a script's text, as it stands between its tags: a browser hashes it with line ends as LF."""
    text = _text(name)
    assert "</script" not in text.lower()
    assert "\r" not in text
    return text


@cache
def _text(name: str) -> str:
    return files("vwl.report.html").joinpath(name).read_text(encoding="utf-8")
