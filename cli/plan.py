"""`vwl plan`: estimate the hours and disk of a run before it starts."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vwl.cli.options import Json, Override, with_layout

if TYPE_CHECKING:
    from vwl.cluster.plan import Resources
    from vwl.config.layout import Layout


@with_layout
def plan(
    data: Annotated[str, typer.Option("--data", metavar="INDEX", help="Index table, made by vwl data prepare.")],
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="RECIPE", help="Built-in recipe (vwl recipe list) or YAML file (default: as vwl run).")
    ] = None,
    override: Override = None,
    *,
    where: Any,
    run: Annotated[str, typer.Option("--run", metavar="FOLDER", help="Folder of the run, whose free disk is checked.")] = ".",
    from_run: Annotated[
        str | None, typer.Option("--from", metavar="FOLDER", help="Earlier run on such machines, from whose times hours are scaled.")
    ] = None,
    from_cpus: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="CPUs that the run of --from used (default: all of this machine).")
    ] = None,
    from_gpus: Annotated[int, typer.Option(metavar="N", min=0, help="GPUs that the run of --from used.")] = 0,
    address: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Ray cluster (default: RAY_ADDRESS, else this machine).")] = None,
    as_json: Json = False,
) -> None:
    """Show images, hours and disk of each stage, and check that this machine or a cluster has enough resources.

    \b
    Examples:
      vwl plan --recipe paper-voc --data voc.parquet --workers 4 --address auto
      vwl plan --recipe small --data images.parquet --from runs/first --json
    """
    import os
    from dataclasses import asdict

    from vwl.cli.console import print_json, print_table, say
    from vwl.cluster.plan import calibrate, checks
    from vwl.cluster.plan import plan as planned
    from vwl.config.files import load_recipe
    from vwl.data.index import read_index
    from vwl.workflow.run_folder import Run
    from vwl.workflow.start import default_recipe

    resources = _resources(address, run, where)
    index = read_index(data)
    wanted = load_recipe(recipe or default_recipe(index), override or ())
    calibration = calibrate(Run.open(from_run), from_cpus or os.cpu_count() or 1, from_gpus) if from_run else None
    stages = planned(wanted, index, where, resources, calibration)
    found = list(checks(wanted, index, where, resources, stages))
    hours, disk = sum(stage.hours for stage in stages), sum(stage.disk_gib for stage in stages)
    if as_json:
        print_json(
            {
                "recipe": wanted.name,
                "where": resources.where,
                "stages": [asdict(stage) for stage in stages],
                "hours": hours,
                "disk_gib": disk,
                "checks": [asdict(finding) for finding in found],
            }
        )
    else:
        rows = [list(asdict(stage).values()) for stage in stages]
        columns = list(asdict(stages[0]))
        print_table(f"{wanted.name} on {resources.where}", columns, [*rows, ["in all", None, None, hours, "", disk]])
        for finding in found:
            say(f"{finding.grade}: {finding.check}: {finding.found}" + (f" -> {finding.way_out}" if finding.way_out else ""))
        if any(stage.source == "estimate" for stage in stages):
            say("estimates may be off by a factor of 3; for better ones, name an earlier run on such machines with --from")
    if any(finding.grade == "error" for finding in found):
        raise typer.Exit(1)


def _resources(address: str | None, run: str, where: "Layout") -> "Resources":
    """Return the resources of the cluster's nodes with the layout's labels, or of this machine if no cluster is named."""
    import os
    from dataclasses import replace

    from vwl.cluster.plan import this_machine
    from vwl.storage.folder import Folder

    here = this_machine(Folder(run))
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        return here
    from vwl.engine.nodes import check_selected
    from vwl.engine.session import cluster_cpus, cluster_gpus, cluster_memory, session

    trainers, inference = where.trainers_on, where.inference_on
    with session(address):
        check_selected(trainers, "--trainers-on")
        check_selected(inference, "--inference-on")
        return replace(
            here,
            where=f"the cluster at {address}",
            cpus=cluster_cpus(inference),
            gpus=cluster_gpus(inference),
            memory=cluster_memory(),
            for_training=(cluster_cpus(trainers), cluster_gpus(trainers)),
        )
