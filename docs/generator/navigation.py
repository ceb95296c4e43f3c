"""The pages of the site, in their order."""

from pathlib import Path
from posixpath import relpath
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class Page(NamedTuple):
    """A page: its title in the navigation, its name on the site, its file in the repository, and what it is about."""

    title: str
    name: str
    file: str
    about: str = ""


def _page(title: str, name: str, about: str = "") -> Page:
    return Page(title, name, f"docs/{name}", about)


SECTIONS: dict[str, tuple[Page, ...]] = {
    "Start": (
        _page("vwl", "index.md"),
        _page("Start in one minute", "start.md", "install, the demo, what it writes"),
        _page("From a folder to masks", "folder-to-masks.md", "20 images, their labels, and masks"),
        _page("Try an image", "try.md", "the untrained baseline on any picture"),
    ),
    "Use": (
        _page("Your own images", "your-own-images.md", "label files, masks, images without objects"),
        _page("Reading the report", "report.md"),
        _page("Segment images", "predict.md"),
        _page("Model file", "model-file.md", "one file with the model; Hugging Face Hub, ONNX"),
        _page("Python API", "python-api.md"),
        _page("Review and correct", "review.md"),
        _page("Annotation formats", "annotation-formats.md"),
        _page("Troubleshooting", "troubleshooting.md", "which mIoU, thresholds, CRF, memory, several GPUs"),
        Page("Notebook: from a folder to a model", "notebooks/folder_to_model.md", "examples/folder_to_model.ipynb"),
        Page("Notebook: compare poolings", "notebooks/compare_pooling.md", "examples/compare_pooling.ipynb"),
    ),
    "Research": (
        _page("The method in the code", "method.md", "each equation beside its lines"),
        _page("Reproduce the paper", "reproduce.md", "which recipe, what each stage should score, what to do when it does not"),
        _page("Recipes", "recipes.md", "the recipes and every setting"),
        _page("Searches", "searches.md", "tables over seeds on Ray Tune"),
        _page("Seeds of other methods", "seeds.md", "score maps of IRN, PSA, SEAM, CLIP-ES ..."),
        _page("Other class activation maps", "cam-methods.md", "ReCAM, LPCAM and AdvCAM on the same classifier"),
        _page("Scores", "scores.md", "the paper's figures and what was measured here"),
    ),
    "Results": (
        _page("Searches on one small machine", "results/README.md", "what the tables support"),
        _page("Table 4", "results/table4.md"),
        _page("Table 5 (a), number of words", "results/table5a.md"),
        _page("Table 5 (b), gamma", "results/table5b.md"),
        _page("Table 5 (c), tau", "results/table5c.md"),
        _page("Table 5 (d), rho", "results/table5d.md"),
        _page("Figure 12, without global average", "results/fig12.md"),
        _page("Joint search", "results/joint12.md"),
        _page("Positive control", "results/positive_control.md", "do hybrid pooling and visual words cover whole objects?"),
        _page("Images without objects", "results/negatives.md"),
        _page("Review queue", "results/review.md"),
    ),
    "Operate": (
        _page("Clusters", "clusters.md", "several machines, jobs, S3"),
        Page("Cluster files", "deploy.md", "deploy/README.md"),
        _page("Monitoring", "monitoring.md", "metrics for Prometheus and Grafana"),
        _page("Performance", "performance.md", "what takes how long, and what makes it faster"),
        _page("What COCO costs", "coco-cost.md"),
        Page("Security", "security.md", "SECURITY.md"),
    ),
    "Reference": (
        _page("Commands", "commands.md", "every command and option"),
        _page("API", "api.md", "the public names of the package"),
        _page("Files", "files.md", "index table, run folder, score maps, masks, model file"),
        _page("Architecture", "design.md"),
        Page("Contributing", "contributing.md", "CONTRIBUTING.md"),
        Page("Changes", "changelog.md", "CHANGELOG.md"),
        Page("Licence", "licence.md", "LICENSE"),
    ),
}
"""A page whose file does not exist is left out."""


def pages() -> dict[str, tuple[Page, ...]]:
    """Return the sections with the pages that exist."""
    there = {title: tuple(page for page in section if (ROOT / page.file).is_file()) for title, section in SECTIONS.items()}
    return {title: section for title, section in there.items() if section}


def contents() -> str:
    """Return the sections as Markdown, with a link to each page, for a page in docs/."""
    lines = []
    for title, section in pages().items():
        listed = [page for page in section if page.name != "index.md"]
        links = [f"[{page.title}]({relpath(page.file, 'docs')})" + (f" ({page.about})" if page.about else "") for page in listed]
        lines.append(f"- **{title}.** " + " · ".join(links))
    return "\n".join(lines)
