"""`vwl reproduce`: the published results, stage by stage, each compared with what the publication leads to expect."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vwl.cli.options import Address, Backend, Json, Override, RunFolder, run_with_progress, with_layout
from vwl.errors import VwlError

if TYPE_CHECKING:
    from vwl.data.index import Index


@with_layout
def reproduce(
    result: Annotated[str, typer.Argument(metavar="voc|coco|FILE", help="The result: the paper's on VOC or COCO, or a YAML file.")],
    root: Annotated[str, typer.Option(metavar="FOLDER", help="The data set: VOCdevkit/VOC2012, or the folder of COCO.")],
    run: RunFolder,
    sbd: Annotated[str | None, typer.Option(metavar="FOLDER", help="SBD's folder dataset, for the paper's 10,582 training images.")] = None,
    override: Override = None,
    *,
    where: Any,
    address: Address = None,
    backend: Backend = "ray",
    as_json: Json = False,
) -> None:
    """Check data and weights, run the recipe stage by stage, and compare each score with the publication's.

    It ends with 1 at the first stage that is far outside the expected band, with likely reasons; the same command goes on. The page
    reproduction.md in the run folder holds the scores, settings and versions.

    \b
    Examples:
      vwl reproduce voc --root VOCdevkit/VOC2012 --run runs/voc --workers 2
      vwl reproduce coco --root coco2014 --run runs/coco --address auto
    """
    from dataclasses import asdict

    from vwl.cli.console import print_table, say
    from vwl.config.expectation import load_expectation
    from vwl.data.check import check_index
    from vwl.data.index import write_index
    from vwl.storage.folder import Folder
    from vwl.workflow.reproduction import FAR, PAGE, STEPS, check_images, compare, page

    expected = load_expectation(result)
    folder = Folder(run)
    index_path = folder.uri_of("index.parquet")
    if not folder.exists("run.json"):
        index = _prepare(expected.data, root, sbd)
        check_images(index, expected)
        say(f"opening all {len(index.rows):,} images")
        problems = check_index(index)
        if problems:
            raise VwlError(f"the data set has {len(problems):,} problems, e.g. {problems[0].message}; repair it (vwl data check lists all)")
        write_index(index, index_path)
    classes = [] if expected.classes is None else [f"evaluation.classes=[{','.join(expected.classes)}]"]
    wanted: dict[str, Any] = {"data": index_path, "recipe": expected.recipe, "overrides": [*classes, *(override or ())]}
    comparisons = []
    for stages in STEPS:
        opened = run_with_progress(run, where, backend, **wanted, stages=stages, address=address).run
        wanted = {}
        for comparison in compare(opened, stages[-1], expected):
            comparisons.append(comparison)
            band = f"{comparison.low:g} to {comparison.high:g}"
            say(f"{comparison.stage} on {comparison.split}: {comparison.miou:.1f}, {comparison.verdict} of {band}")
            for number, reason in enumerate(comparison.reasons, 1):
                say(f"  {number}. {reason}")
        folder.write(PAGE, page(opened, expected, comparisons).encode())
        if any(comparison.verdict == FAR for comparison in comparisons):
            break
    rows = [list(asdict(comparison).values())[:-1] for comparison in comparisons]
    print_table(expected.title, ["stage", "split", "paper", "miou", "low", "high", "verdict"], rows, as_json)
    say(f"page: {folder.uri_of(PAGE)}")
    if any(comparison.verdict == FAR for comparison in comparisons):
        raise VwlError(f"{comparisons[-1].stage} is {FAR}; later stages are not run; with the cause removed, use another --run folder")


def _prepare(data: str, root: str, sbd: str | None) -> "Index":
    from vwl.data.coco import prepare_coco
    from vwl.data.voc import prepare_voc

    return prepare_voc(root, sbd)[0] if data == "voc" else prepare_coco(root)[0]
