"""Renders manifests for KubeRay."""

import shlex
from typing import Any

from vwl.cluster.deployment.common import CLIENT_PORT, HEAD_PORT, JOBS_PORT, to_yaml
from vwl.cluster.deployment.schema import Deployment, Nodes
from vwl.config.versions import ray_version


def kuberay(deployment: Deployment) -> dict[str, str]:
    """Return manifests for KubeRay 1.5.1 and later: the shared volume, a permanent cluster, and a job with a cluster of its own."""
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
        "shared-volume.yaml": to_yaml(volume, "The volume that all pods share, for data, index and run folders."),
        "raycluster.yaml": to_yaml(cluster, "A permanent cluster; send commands to it with vwl submit."),
        "rayjob.yaml": to_yaml(job, "One command on its own cluster, which is deleted afterwards."),
    }


def _cluster_spec(deployment: Deployment) -> dict[str, Any]:
    head = deployment.head
    return {
        "rayVersion": ray_version(),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": any(nodes.at_most > nodes.count for nodes in deployment.groups().values()),
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            # the head only runs drivers and keeps the cluster's state
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},
            "template": _pod(deployment, "ray-head", head, ports={"gcs": HEAD_PORT, "dashboard": JOBS_PORT, "client": CLIENT_PORT}),
        },
        "workerGroupSpecs": [
            {
                "groupName": name,
                "replicas": nodes.count,
                "minReplicas": nodes.count,
                "maxReplicas": nodes.at_most,
                "labels": deployment.labels(name),
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
