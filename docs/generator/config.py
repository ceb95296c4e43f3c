"""The settings of Zensical, with the navigation of the pages that exist."""

import json
from pathlib import Path

from docs.generator.navigation import pages


def write_config(path: Path, sources: Path, site: Path) -> None:
    """Write Zensical's settings for pages in the folder `sources` and a site in the folder `site`, both beside the file."""
    settings = (Path(__file__).parent / "zensical.toml").read_text(encoding="utf-8")
    sections = [
        f"  {{ {json.dumps(title)} = [{', '.join(f'{{ {json.dumps(page.title)} = {json.dumps(page.name)} }}' for page in section)}] }},"
        for title, section in pages().items()
    ]
    navigation = "\n".join(["nav = [", *sections, "]"])
    for empty, filled in (
        ('docs_dir = ""', f"docs_dir = {json.dumps(sources.name)}"),
        ('site_dir = ""', f"site_dir = {json.dumps(site.name)}"),
        ("nav = []", navigation),
    ):
        if empty not in settings:
            raise LookupError(f"zensical.toml has no line {empty}")
        settings = settings.replace(empty, filled)
    path.write_text(settings, encoding="utf-8")
