"""`vwl doctor`: check this machine and a cluster."""

from typing import Annotated

import typer

from vwl.cli.options import Json

MARKS = {"ok": "ok", "warning": "WARNING", "error": "ERROR"}


def doctor(
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Cluster to check: HEAD:6379 or auto (default: RAY_ADDRESS), or http://HEAD:8265."),
    ] = None,
    storage: Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder or URI for runs; read and written from every node.")] = None,
    nodes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Wait until the cluster has this many nodes, up to five minutes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check Python, packages, CRF, disk and memory, and the nodes, clocks, storage and network of a cluster; exit code 1 on errors.

    \b
    Examples:
      vwl doctor
      vwl doctor --address auto --storage /shared/runs --json
    """
    import os
    from dataclasses import asdict

    from vwl.cli.console import print_json, say
    from vwl.cluster.machine_checks import Finding, local_findings

    found: list[Finding] = []

    def show(finding: Finding) -> None:
        found.append(finding)
        if not as_json:
            way_out = f" -> {finding.way_out}" if finding.way_out else ""
            typer.echo(f"{MARKS[finding.grade]:8} {finding.check}: {finding.found}{way_out}")

    for finding in local_findings(storage):
        show(finding)
    if address or os.environ.get("RAY_ADDRESS"):
        from vwl.cluster.cluster_checks import cluster_findings

        for finding in cluster_findings(address, storage, nodes):
            show(finding)
    if as_json:
        print_json([asdict(finding) for finding in found])
    errors, warnings = (sum(finding.grade == grade for finding in found) for grade in ("error", "warning"))
    say(f"{len(found)} checks: {errors} errors, {warnings} warnings")
    if errors:
        raise typer.Exit(1)
