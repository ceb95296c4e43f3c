"""`vwl status`: how far each stage of a run is."""

from vwl.cli.options import Json, RunFolder


def status(run: RunFolder, as_json: Json = False) -> None:
    """Show each stage's state, progress, time and last loss.

    \b
    Examples:
      vwl status --run runs/voc
      vwl status --run runs/voc --json
    """
    from vwl.cli.console import print_table
    from vwl.workflow.run_folder import Run
    from vwl.workflow.stages import stages_of
    from vwl.workflow.status import stage_status

    opened = Run.open(run)
    lines = [vars(stage_status(opened, stage)) for stage in stages_of(opened.recipe)]
    print_table(f"{opened.folder} · recipe {opened.recipe.name}", list(lines[0]), [list(line.values()) for line in lines], as_json)
