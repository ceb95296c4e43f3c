"""The typed description of a cluster, which all renderers read, and its YAML file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from vwl.config.node_labels import is_label
from vwl.config.strict import StrictModel, describe_errors
from vwl.config.yaml_text import apply_overrides, parse_yaml
from vwl.errors import VwlError

SAVE_SECONDS = 300
"""Time before the limit of a Slurm job at which its run is asked to save."""
_COMMAND = ("run", "--data", "/shared/voc.parquet", "--recipe", "paper-voc", "--run", "/shared/runs/voc", "--workers", "2")


def _time_limit(limit: str) -> str:
    days, _, clock = limit.rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    if ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds < 2 * SAVE_SECONDS:
        raise ValueError(f"must be {2 * SAVE_SECONDS // 60} minutes or more; the run is asked to save {SAVE_SECONDS // 60} before its end")
    return limit


def _hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(hosts)) < len(hosts):
        raise ValueError("must not name a host twice")
    return hosts


def _labels(labels: dict[str, str]) -> dict[str, str]:
    if wrong := next((f"{key}: {value}" for key, value in labels.items() if not is_label(key, value)), None):
        raise ValueError(f"must be labels that Ray takes, which '{wrong}' is not (letters, digits, -, _ and .)")
    return labels


class Nodes(StrictModel):
    """Nodes of one kind."""

    count: int = Field(2, ge=0)
    """Number of nodes at the start."""
    most: int | None = Field(None, ge=0)
    """Largest number of nodes when work is waiting (KubeRay and clouds); None: `count`."""
    cpus: int = Field(8, ge=1)
    """CPUs of each node."""
    memory_gib: int = Field(32, ge=2)
    """Memory of each node."""
    gpus: int = Field(0, ge=0)
    """GPUs of each node."""
    labels: Annotated[dict[str, str], AfterValidator(_labels)] = Field(default_factory=dict)
    """Labels of the nodes for `--trainers-on` and `--inference-on`, e.g. market: spot; each also has `group` (gpu or cpu)."""

    @property
    def at_most(self) -> int:
        """The largest number of nodes."""
        return max(self.count, self.most or 0)


class Kubernetes(StrictModel):
    """Settings of KubeRay."""

    namespace: str = "default"
    claim: str = "vwl-shared"
    """PersistentVolumeClaim that all pods mount; ReadWriteMany."""
    storage_gib: int = Field(200, ge=1)
    """Size that the claim requests."""
    storage_class: str | None = None
    """None: the cluster's default."""
    retries: int = Field(2, ge=0)
    """Number of retries of a RayJob, each on a new cluster; the run resumes."""
    keep_seconds: int = Field(600, ge=0)
    """Seconds that a RayJob's cluster is kept after its end, for its logs."""


class OnPremise(StrictModel):
    """Existing hosts that are reached by ssh."""

    head: str = "head.example"
    workers: Annotated[tuple[str, ...], AfterValidator(_hosts)] = ("worker1.example", "worker2.example")
    user: str = "ubuntu"
    key: str = "~/.ssh/id_ed25519"


class Aws(StrictModel):
    """EC2 instances."""

    region: str = "eu-central-1"
    user: str = "ubuntu"
    head: str = "m7i.xlarge"
    gpu: str = "g6.2xlarge"
    cpu: str = "m7i.2xlarge"
    disk_gib: int = Field(200, ge=50)


class Slurm(StrictModel):
    """Settings of Slurm."""

    time: Annotated[str, Field(pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$"), AfterValidator(_time_limit)] = "24:00:00"
    """Time limit, 10 minutes or more; 5 minutes before it, the run saves and the job is requeued."""
    partition: str | None = None
    account: str | None = None
    venv: str = "/shared/vwl/.venv"
    """Virtual environment with vwl, on a file system that all nodes see."""


class Deployment(StrictModel):
    """Description of a cluster."""

    name: str = Field("vwl", pattern=r"^[a-z][a-z0-9-]{0,40}$")
    image: str = "vwl:latest"
    """Container image built from deploy/Dockerfile."""
    shared: str = Field("/shared", pattern="^/")
    """Folder that all nodes see under this path: data, index, run folders."""
    head: Nodes = Nodes(count=1, cpus=2, memory_gib=8)
    """Runs drivers only."""
    gpu: Nodes = Nodes(count=2, cpus=8, memory_gib=32, gpus=1)
    """Run trainings and networks."""
    cpu: Nodes = Nodes(count=1, most=4, cpus=8, memory_gib=16)
    """Run CRF, walk and masks."""
    command: tuple[str, ...] = _COMMAND
    """Command of the RayJob, without `vwl`."""
    kubernetes: Kubernetes = Kubernetes()
    on_premise: OnPremise = OnPremise()
    aws: Aws = Aws()
    slurm: Slurm = Slurm()

    def groups(self) -> dict[str, Nodes]:
        """Return the kinds of worker nodes that the cluster can have."""
        return {name: nodes for name, nodes in (("gpu", self.gpu), ("cpu", self.cpu)) if nodes.at_most}

    def labels(self, group: str) -> dict[str, str]:
        """Return the labels of the nodes of a kind."""
        return {"group": group} | self.groups()[group].labels


def load_deployment(path: str | None, overrides: Sequence[str] = ()) -> Deployment:
    """Read a description, or take the defaults, and apply ``section.key=value`` overrides.

    Raises:
        VwlError: the file cannot be read or is not a YAML mapping, or has unknown keys or values out of range; the message names all of
            them.
    """
    values: Any = {}
    if path is not None:
        try:
            values = parse_yaml(Path(path).read_text(encoding="utf-8"), f"description {path}") or {}
        except (OSError, UnicodeDecodeError) as error:
            raise VwlError(f"description {path} cannot be read: {error}") from None
        if not isinstance(values, dict):
            raise VwlError(f"description {path} is not a mapping of sections")
    apply_overrides(values, overrides)
    try:
        return Deployment.model_validate(values)
    except ValidationError as error:
        raise VwlError(f"description {path or 'of the cluster'}: {describe_errors(error, Deployment)}") from None
