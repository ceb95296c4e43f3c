"""Ports, and YAML with a header, for all renderers."""

from typing import Any

import yaml

HEAD_PORT, JOBS_PORT, CLIENT_PORT = 6379, 8265, 10001


def to_yaml(value: Any, about: str) -> str:
    """Return YAML with a comment that says what the file is and how it was made."""
    header = f"# {about}\n# Rendered by vwl deploy render; edit the description, not this file.\n"
    return header + yaml.dump(value, Dumper=_WithoutAliases, sort_keys=False, width=120)


class _WithoutAliases(yaml.SafeDumper):
    """Writes repeated values in full, since people read these files."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
