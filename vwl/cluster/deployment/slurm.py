"""Renders a batch script for Slurm."""

import shlex
from importlib import resources

from vwl.cluster.deployment.schema import SAVE_SECONDS, Deployment


def slurm(deployment: Deployment) -> dict[str, str]:
    """Return a batch script that starts Ray on the allocated nodes and runs a command on them."""
    group = "gpu" if deployment.gpu.count else "cpu"
    s, nodes = deployment.slurm, deployment.gpu if deployment.gpu.count else deployment.cpu
    labels = {"group": group} | nodes.labels
    directives = {
        "job-name": deployment.name,
        "nodes": max(1, nodes.count),
        "ntasks-per-node": 1,
        "cpus-per-task": nodes.cpus,
        "mem": f"{nodes.memory_gib}G",
        **({"gpus-per-node": nodes.gpus} if nodes.gpus else {}),
        "time": s.time,
        **({"partition": s.partition} if s.partition else {}),
        **({"account": s.account} if s.account else {}),
        "output": f"{deployment.name}-%j.log",
        "open-mode": "append",  # a requeued job would empty the log of its earlier starts
        "signal": f"B:USR1@{SAVE_SECONDS}",
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in directives.items()] + ["#SBATCH --requeue"]
    text = resources.files(__package__ or "").joinpath("templates/slurm.sbatch").read_text(encoding="utf-8")
    filled = {
        "directives": "\n".join(lines),
        "venv": shlex.quote(s.venv),
        "gpus": str(nodes.gpus),
        "labels": ",".join(f"{key}={value}" for key, value in labels.items()),
        "shared": deployment.shared,
    }
    for name, value in filled.items():
        text = text.replace(f"%{{{name}}}", value)
    return {"vwl.sbatch": text}
