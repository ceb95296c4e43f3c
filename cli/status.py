"""`vwl status`: how far each stage of a run is."""

from vwl.cli.options import Json, RunFolder


def status(run: RunFolder, as_json: Json = False) -> None:
    """Show each stage's state, progress, time and last loss.

    \b
    Examples:
      vwl status --run runs/voc
      vwl status --run runs/voc --json
    """
    from vwl.api.run import open_run
    from vwl.cli.console import print_table

    result = open_run(run)
    lines = [vars(line) for line in result.status]
    print_table(f"{result.run.folder} · recipe {result.recipe.name}", list(lines[0]), [list(line.values()) for line in lines], as_json)
