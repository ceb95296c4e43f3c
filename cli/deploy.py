"""`vwl deploy`: write the files that start a cluster, all from one description."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vwl.cli.options import Override

app = typer.Typer(no_args_is_help=True, help="Write files that start a Ray cluster: KubeRay manifests, ray up files, a Slurm script.")


@app.callback()
def deploy() -> None:
    """Write files that start a Ray cluster: KubeRay manifests, ray up files, a Slurm script."""


@app.command()
def render(
    kind: Annotated[Literal["kuberay", "ray-up", "slurm"], typer.Argument(metavar="KIND", help="Kind of cluster.")],
    workers: Annotated[int | None, typer.Option(metavar="N", min=0, help="Number of GPU nodes (gpu.count).")] = None,
    gpus: Annotated[int | None, typer.Option(metavar="N", min=0, help="GPUs of each GPU node (gpu.gpus).")] = None,
    cpu_workers: Annotated[int | None, typer.Option(metavar="N", min=0, help="Number of CPU nodes (cpu.count).")] = None,
    image: Annotated[str | None, typer.Option(metavar="IMAGE", help="Container image with vwl.")] = None,
    description: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="YAML file that describes the cluster, like deploy/cluster.yaml.")
    ] = None,
    override: Override = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder for the files (default: print them).")] = None,
) -> None:
    """Write the files of one kind of cluster; deploy/README.md says how to use them.

    \b
    Examples:
      vwl deploy render kuberay --workers 4 --gpus 1 --image registry.example/vwl:1 --out mine
      vwl deploy render slurm --from deploy/cluster.yaml -o slurm.partition=gpu
    """
    from vwl.cli.console import say
    from vwl.cluster.deployment.render import render as rendered
    from vwl.cluster.deployment.schema import load_deployment

    given = {"gpu.count": workers, "gpu.gpus": gpus, "cpu.count": cpu_workers, "image": image}
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
    files = rendered(kind, load_deployment(description, [*overrides, *(override or ())]))
    for name, text in files.items():
        if out is None:
            typer.echo(text)
        else:
            out.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(text, encoding="utf-8")
            say(f"wrote {out / name}")
