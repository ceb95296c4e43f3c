"""One typed description of a cluster, and what renders it: KubeRay manifests, `ray up` files, a Slurm script. So they cannot drift apart.

Files under deploy/ are rendered from deploy/cluster.yaml by `vwl deploy render`. Ray's token authentication is on everywhere.
"""

import importlib.metadata
import shlex
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from vwl.errors import VwlError, did_you_mean

HEAD_PORT, JOBS_PORT, CLIENT_PORT = 6379, 8265, 10001
_COMMAND = ("run", "--data", "/shared/voc.parquet", "--recipe", "paper-voc", "--run", "/shared/runs/voc", "--workers", "2")


def _hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(hosts)) < len(hosts):
        raise ValueError("names a host twice")
    return hosts


class Part(BaseModel):
    """A group of settings: unknown keys forbidden, each field documented by the string below it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Nodes(Part):
    """Nodes of one kind."""

    count: int = Field(2, ge=0)
    """How many are started."""
    most: int | None = Field(None, ge=0)
    """How many there may be when work waits (KubeRay and clouds); none: no more."""
    cpus: int = Field(8, ge=1)
    """Of each."""
    memory_gib: int = Field(32, ge=2)
    """Of each."""
    gpus: int = Field(0, ge=0)
    """Of each."""

    @property
    def at_most(self) -> int:
        """The largest number of nodes."""
        return max(self.count, self.most or 0)


class Kubernetes(Part):
    """What KubeRay alone needs."""

    namespace: str = "default"
    claim: str = "vwl-shared"
    """PersistentVolumeClaim that all pods mount; ReadWriteMany."""
    storage_gib: int = Field(200, ge=1)
    """Asked for by the claim."""
    storage_class: str | None = None
    """None: the cluster's default."""
    retries: int = Field(2, ge=0)
    """Of the RayJob with a new cluster; a run goes on where it stopped."""
    keep_seconds: int = Field(600, ge=0)
    """That a RayJob's cluster is kept after its end, for its logs."""


class OnPremise(Part):
    """Hosts that are reached by ssh."""

    head: str = "head.example"
    workers: Annotated[tuple[str, ...], AfterValidator(_hosts)] = ("worker1.example", "worker2.example")
    user: str = "ubuntu"
    key: str = "~/.ssh/id_ed25519"


class Aws(Part):
    """EC2 instances."""

    region: str = "eu-central-1"
    user: str = "ubuntu"
    head: str = "m7i.xlarge"
    gpu: str = "g6.2xlarge"
    cpu: str = "m7i.2xlarge"
    disk_gib: int = Field(200, ge=50)


class Slurm(Part):
    """What Slurm alone needs."""

    time: str = Field("24:00:00", pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$")
    """Limit; the run is asked to save before, and put back into the queue."""
    partition: str | None = None
    account: str | None = None
    venv: str = "/shared/vwl/.venv"
    """Environment with vwl, where all nodes see it."""


class Deployment(Part):
    """A cluster."""

    name: str = Field("vwl", pattern=r"^[a-z][a-z0-9-]{0,40}$")
    image: str = "vwl:latest"
    """Container image, of deploy/Dockerfile."""
    shared: str = Field("/shared", pattern="^/")
    """Folder that all nodes see under this path: data, index, run folders."""
    head: Nodes = Nodes(count=1, cpus=2, memory_gib=8)
    """Runs drivers, and no work."""
    gpu: Nodes = Nodes(count=2, cpus=8, memory_gib=32, gpus=1)
    """Trainings and networks."""
    cpu: Nodes = Nodes(count=1, most=4, cpus=8, memory_gib=16)
    """CRF, walks and masks."""
    command: tuple[str, ...] = _COMMAND
    """Of the RayJob."""
    kubernetes: Kubernetes = Kubernetes()
    on_premise: OnPremise = OnPremise()
    aws: Aws = Aws()
    slurm: Slurm = Slurm()

    def groups(self) -> dict[str, Nodes]:
        """Return the kinds of worker nodes of which there may be any."""
        return {name: nodes for name, nodes in (("gpu", self.gpu), ("cpu", self.cpu)) if nodes.at_most}


def load_deployment(path: str | None, overrides: Sequence[str] = ()) -> Deployment:
    """Read a description, or take the defaults, and apply ``section.key=value`` overrides.

    Raises:
        VwlError: the file is not there or no YAML mapping, or has unknown keys or values out of range; all are named.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise VwlError(f"description {path} cannot be read: {' '.join(str(error).split())}") from None
        if not isinstance(values, dict):
            raise VwlError(f"description {path} holds no mapping of sections")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise VwlError(f"override '{override}' is not of the form section.key=value")
        *sections, last = key.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = yaml.safe_load(text)
    try:
        return Deployment.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}{_nearest(item)}" for item in error.errors())
        raise VwlError(f"description {path or 'of the cluster'}: {problems}") from None


def _nearest(item: Any) -> str:
    if item["type"] != "extra_forbidden":
        return ""
    part: Any = Deployment
    for name in item["loc"][:-1]:
        part = part.model_fields[name].annotation
    return did_you_mean(str(item["loc"][-1]), part.model_fields)


def render(kind: str, deployment: Deployment) -> dict[str, str]:
    """Return the files of one kind, by name.

    Raises:
        VwlError: there is no such kind.
    """
    if kind not in RENDERERS:
        raise VwlError(f"vwl renders {', '.join(RENDERERS)}, not '{kind}'{did_you_mean(kind, RENDERERS)}")
    return RENDERERS[kind](deployment)


def ray_version() -> str:
    """Return the version of Ray that nodes must have."""
    return importlib.metadata.version("ray")


def kuberay(deployment: Deployment) -> dict[str, str]:
    """Return manifests for KubeRay 1.5.1 and later: the shared volume, a cluster that stays, and a job with a cluster of its own."""
    k = deployment.kubernetes
    spec = _cluster_spec(deployment)
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": k.claim, "namespace": k.namespace},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": f"{k.storage_gib}Gi"}},
            **({"storageClassName": k.storage_class} if k.storage_class else {}),
        },
    }
    cluster = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": deployment.name, "namespace": k.namespace},
        "spec": spec,
    }
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": f"{deployment.name}-run", "namespace": k.namespace},
        "spec": {
            "entrypoint": shlex.join(["vwl", *deployment.command]),
            "submissionMode": "K8sJobMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": k.keep_seconds,
            "backoffLimit": k.retries,
            "rayClusterSpec": spec,
        },
    }
    return {
        "shared-volume.yaml": _yaml(volume, "The volume that all pods share: data, index and run folders."),
        "raycluster.yaml": _yaml(cluster, "A cluster that stays; commands are sent to it with vwl submit."),
        "rayjob.yaml": _yaml(job, "One command with a cluster of its own, which is taken down after it."),
    }


def _cluster_spec(deployment: Deployment) -> dict[str, Any]:
    head = deployment.head
    return {
        "rayVersion": ray_version(),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": any(nodes.at_most > nodes.count for nodes in deployment.groups().values()),
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            # work is kept off the head: it runs drivers and keeps the cluster's state
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},
            "template": _pod(deployment, "ray-head", head, ports={"gcs": HEAD_PORT, "dashboard": JOBS_PORT, "client": CLIENT_PORT}),
        },
        "workerGroupSpecs": [
            {
                "groupName": name,
                "replicas": nodes.count,
                "minReplicas": nodes.count,
                "maxReplicas": nodes.at_most,
                "rayStartParams": {},
                "template": _pod(deployment, "ray-worker", nodes),
            }
            for name, nodes in deployment.groups().items()
        ],
    }


def _pod(deployment: Deployment, container: str, nodes: Nodes, ports: dict[str, int] | None = None) -> dict[str, Any]:
    amounts = {"cpu": str(nodes.cpus), "memory": f"{nodes.memory_gib}Gi"} | ({"nvidia.com/gpu": str(nodes.gpus)} if nodes.gpus else {})
    spec: dict[str, Any] = {
        "containers": [
            {
                "name": container,
                "image": deployment.image,
                # requests below limits would let Ray promise CPUs that the pod does not get
                "resources": {"requests": amounts, "limits": amounts},
                **({"ports": [{"name": name, "containerPort": port} for name, port in ports.items()]} if ports else {}),
                "volumeMounts": [{"name": "shared", "mountPath": deployment.shared}, {"name": "shm", "mountPath": "/dev/shm"}],
            }
        ],
        "volumes": [
            {"name": "shared", "persistentVolumeClaim": {"claimName": deployment.kubernetes.claim}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{max(1, nodes.memory_gib * 3 // 10)}Gi"}},
        ],
    }
    if nodes.gpus:
        spec["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {"spec": spec}


def ray_up(deployment: Deployment) -> dict[str, str]:
    """Return files for `ray up`: hosts that there are, and EC2."""
    here, cloud = deployment.on_premise, deployment.aws
    docker = {"image": deployment.image, "container_name": deployment.name, "run_options": [f"-v {deployment.shared}:{deployment.shared}"]}
    common = {
        "cluster_name": deployment.name,
        "docker": docker,
        # one token for all nodes and those who submit: ray get-auth-token --generate
        "file_mounts": {"~/.ray/auth_token": "~/.ray/auth_token"},
        "head_start_ray_commands": ["ray stop", _start("--head --autoscaling-config=~/ray_bootstrap_config.yaml", head=True)],
        "worker_start_ray_commands": ["ray stop", _start(f"--address=$RAY_HEAD_IP:{HEAD_PORT}")],
    }
    local = common | {
        "provider": {"type": "local", "head_ip": here.head, "worker_ips": list(here.workers)},
        "auth": {"ssh_user": here.user, "ssh_private_key": here.key},
        "max_workers": len(here.workers),
        "min_workers": len(here.workers),
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
    }
    disk = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": cloud.disk_gib, "VolumeType": "gp3"}}]
    types: dict[str, Any] = {"head": {"resources": {"CPU": 0}, "node_config": {"InstanceType": cloud.head, "BlockDeviceMappings": disk}}}
    for name, nodes in deployment.groups().items():
        types[name] = {
            "min_workers": nodes.count,
            "max_workers": nodes.at_most,
            "resources": {"CPU": nodes.cpus} | ({"GPU": nodes.gpus} if nodes.gpus else {}),
            "node_config": {"InstanceType": getattr(cloud, name), "BlockDeviceMappings": disk},
        }
    aws = common | {
        "provider": {"type": "aws", "region": cloud.region, "cache_stopped_nodes": False},
        "auth": {"ssh_user": cloud.user},
        "max_workers": sum(nodes.at_most for nodes in deployment.groups().values()),
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 10,
        "available_node_types": types,
        "head_node_type": "head",
    }
    return {
        "on-premise.yaml": _yaml(local, "Hosts that there are. Each has Docker, the image and the shared folder; GPUs are found by Ray."),
        "aws.yaml": _yaml(aws, "EC2. Keep runs and data in s3://; the shared folder is each node's own."),
    }


def _start(options: str, head: bool = False) -> str:
    more = " --dashboard-host=0.0.0.0 --num-cpus=0" if head else ""
    port = f" --port={HEAD_PORT}" if head else ""
    return f"ulimit -n 65536; RAY_AUTH_MODE=token ray start {options}{port} --object-manager-port=8076{more}"


def slurm(deployment: Deployment) -> dict[str, str]:
    """Return a batch script that starts Ray on the nodes that Slurm gives, and runs a command on them."""
    s, nodes = deployment.slurm, deployment.gpu if deployment.gpu.count else deployment.cpu
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
        "signal": "B:USR1@300",
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in directives.items()] + ["#SBATCH --requeue"]
    text = resources.files("vwl.cluster").joinpath("templates/slurm.sbatch").read_text(encoding="utf-8")
    filled = {"directives": "\n".join(lines), "venv": shlex.quote(s.venv), "gpus": str(nodes.gpus), "shared": deployment.shared}
    for name, value in filled.items():
        text = text.replace(f"%{{{name}}}", value)
    return {"vwl.sbatch": text}


RENDERERS: dict[str, Callable[[Deployment], dict[str, str]]] = {"kuberay": kuberay, "ray-up": ray_up, "slurm": slurm}
"""What can be rendered, by name; also the names of the folders in deploy/."""


class _Plain(yaml.SafeDumper):
    """Writes what stands in a file twice as it is, twice: people read these files."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(value: Any, about: str) -> str:
    head = f"# {about}\n# Rendered by vwl deploy render; change the description, not this file.\n"
    return head + yaml.dump(value, Dumper=_Plain, sort_keys=False, width=120)
