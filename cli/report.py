"""`vwl report`: a run or a search as one HTML file, to be looked at in a browser."""

from typing import Annotated

import typer

from vwl.cli.options import Json
from vwl.errors import VwlError


def report(
    run: Annotated[str, typer.Option("--run", metavar="FOLDER", help="Run folder or search folder: path or URI (s3://...).")],
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="HTML file to write: path or URI (default: report.html in the folder).")
    ] = None,
    images: Annotated[
        int | None, typer.Option(metavar="N", help="Images in full size (default: 40); all others are thumbnails.", min=0, max=1000)
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", metavar="", help="Open the report in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Write the report of a run or search: one HTML file with tables, curves, and images at every stage.

    \b
    Examples:
      vwl report --run runs/voc --open
      vwl report --run runs/tables --out s3://bucket/tables.html
    """
    from vwl.cli.console import print_table, say
    from vwl.report.html.report import NUM_FULL, run_report, write_html
    from vwl.storage.folder import Folder, split_path
    from vwl.tuning.html_report import search_report
    from vwl.tuning.search import stored_searches
    from vwl.workflow.run_files import is_run
    from vwl.workflow.run_folder import Run

    folder = Folder(run)
    target = folder if out is None else split_path(out)[0]
    if out is not None and not split_path(out)[1]:
        raise VwlError(f"--out {out} names no file; give a file such as report.html")
    if open_it and not target.is_local:
        raise VwlError(f"--open needs a file on this machine, and the report goes to {target}; give --out report.html")
    if is_run(folder):
        page = run_report(Run.open(run), NUM_FULL if images is None else images)
    elif stored_searches(folder):
        page = search_report(folder, out)
    else:
        raise VwlError(f"{run} is neither a run folder (it has no run.json) nor a search folder (it has no searches/)")
    written = write_html(page, folder, out)
    print_table("report", ["report", "megabytes"], [[written, round(len(page) / 1e6, 2)]], as_json)
    if open_it and not _opened(written):
        say(f"no browser was found; open {written} yourself")


def _opened(path: str) -> bool:
    """Open a file in the user's browser; return whether there is one."""
    import webbrowser
    from pathlib import Path

    return webbrowser.open(Path(path).absolute().as_uri())
