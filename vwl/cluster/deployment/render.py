"""Render the files of one kind of cluster: the entry of `vwl deploy render`. The files under deploy/ are rendered from
deploy/cluster.yaml. All of them turn Ray's token authentication on.
"""

from collections.abc import Callable

from vwl.cluster.deployment.kuberay import kuberay
from vwl.cluster.deployment.ray_up import ray_up
from vwl.cluster.deployment.schema import Deployment
from vwl.cluster.deployment.slurm import slurm
from vwl.errors import VwlError, did_you_mean

RENDERERS: dict[str, Callable[[Deployment], dict[str, str]]] = {"kuberay": kuberay, "ray-up": ray_up, "slurm": slurm}
"""Renderers by name; also the names of the folders in deploy/."""


def render(kind: str, deployment: Deployment) -> dict[str, str]:
    """Return the texts of the files for one kind of cluster, by file name.

    Raises:
        VwlError: no renderer has this name.
    """
    if kind not in RENDERERS:
        raise VwlError(f"unknown kind of cluster '{kind}', choose from {', '.join(RENDERERS)}{did_you_mean(kind, RENDERERS)}")
    return RENDERERS[kind](deployment)
