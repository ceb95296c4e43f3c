"""Renders the files of one kind of cluster. Those under deploy/ are rendered from deploy/cluster.yaml, so that they cannot differ.

Ray's token authentication is on in all of them.
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
    """Return the files of one kind, by name.

    Raises:
        VwlError: there is no such kind.
    """
    if kind not in RENDERERS:
        raise VwlError(f"vwl renders {', '.join(RENDERERS)}, not '{kind}'{did_you_mean(kind, RENDERERS)}")
    return RENDERERS[kind](deployment)
