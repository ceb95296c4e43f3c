"""The report of a run as one HTML file, `vwl report --run RUN`. The report of a search is `vwl.tuning.html_report`."""

from collections.abc import Mapping, Sequence

from vwl.report.html.page import Page, Section, render
from vwl.report.html.sections.classes import classes_section
from vwl.report.html.sections.confusion import confusion_section
from vwl.report.html.sections.curves import curves_section
from vwl.report.html.sections.gallery import gallery_section
from vwl.report.html.sections.settings import failures_section, settings_section, versions_section
from vwl.report.html.sections.stored import stored_scores
from vwl.report.html.sections.summary import summary_section
from vwl.report.html.sections.thresholds import thresholds_section
from vwl.report.html.sections.words import words_section
from vwl.storage.folder import Folder, split_path
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import SPLITS, scored_rows

NAME = "report.html"
NUM_FULL = 40
"""Images with a large picture, if not given."""


def run_report(run: Run, num_full: int = NUM_FULL) -> bytes:
    """Return the report of a run, which need not be finished.

    Args:
        run: the run.
        num_full: images with a large picture.

    Raises:
        VwlError: a file of the run is missing or damaged.
    """
    gallery, _ = gallery_section(run, num_full)
    sections = [summary_section(run), *_score_sections(run), gallery, words_section(run)]
    sections.insert(1, curves_section(run))
    sections += [failures_section(run), settings_section(run), versions_section(run)]
    title = run.folder.uri.partition("?")[0].rstrip("/").rpartition("/")[2] or run.folder.uri
    return render(Page(title, "Run", f"{run.index.source} · recipe {run.recipe.name}", sections))


def write_html(page: bytes, folder: Folder, out: str | None) -> str:
    """Write a report to `out`, a path or URI, or to `report.html` in a folder; return its path or URI."""
    target, name = (folder, NAME) if out is None else split_path(out)
    target.write(name, page)
    return target.uri_of(name)


def _score_sections(run: Run) -> list[Section]:
    scores = stored_scores(run)
    if not scores:
        return []
    sections = [
        classes_section(run.index.classes, scores, _images_by_class(run), run.recipe.evaluation.classes),
        confusion_section(run.index.classes, scores),
    ]
    thresholds = thresholds_section(scores)
    return [thresholds, *sections] if any(score.curve for score in scores) else sections


def _images_by_class(run: Run) -> Mapping[str, Sequence[int]]:
    """Return the number of scored images by class id, for each split; all of them have background."""
    counts: dict[str, list[int]] = {}
    for split in SPLITS:
        rows = scored_rows(run.index, split)
        counts[split] = [len(rows), *rows.label_counts(run.index.num_objects)[1:].tolist()]
    return counts
