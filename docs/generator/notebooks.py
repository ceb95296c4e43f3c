"""Notebooks as Markdown pages: text, code and the outputs that are stored in the file."""

import base64
import html
import json
from pathlib import Path
from typing import Any


def render(notebook: Path, pictures: Path) -> str:
    """Return a notebook as Markdown; pictures among its outputs are written to the folder `pictures`, beside the page."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    parts = []
    for number, cell in enumerate(content["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(f"```python\n{source}\n```")
            names = [f"{notebook.stem}-{number}-{index}" for index in range(len(cell["outputs"]))]
            shown = [_output(output, name, pictures) for output, name in zip(cell["outputs"], names, strict=True)]
            parts += [text for text in shown if text]
    parts.append(f"The notebook: [{notebook.name}]({notebook.name})")
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any], name: str, pictures: Path) -> str:
    if output["output_type"] == "stream":
        return _preformatted("".join(output["text"]))
    data = output.get("data", {})
    if "image/png" in data:
        pictures.mkdir(parents=True, exist_ok=True)
        (pictures / f"{name}.png").write_bytes(base64.b64decode(data["image/png"]))
        return f"![output of the cell above]({pictures.name}/{name}.png)"
    return _preformatted("".join(data["text/plain"])) if "text/plain" in data else ""


def _preformatted(text: str) -> str:
    return f"<pre>{html.escape(text.strip())}</pre>" if text.strip() else ""
