"""Renders cluster files for `ray up`."""

from typing import Any

from vwl.cluster.deployment.common import HEAD_PORT, to_yaml
from vwl.cluster.deployment.schema import Deployment


def ray_up(deployment: Deployment) -> dict[str, str]:
    """Return files for `ray up`: existing hosts, and EC2."""
    hosts, cloud = deployment.on_premise, deployment.aws
    docker = {"image": deployment.image, "container_name": deployment.name, "run_options": [f"-v {deployment.shared}:{deployment.shared}"]}
    common = {
        "cluster_name": deployment.name,
        "docker": docker,
        # one token for all nodes and all users who submit: ray get-auth-token --generate
        "file_mounts": {"~/.ray/auth_token": "~/.ray/auth_token"},
        "head_start_ray_commands": ["ray stop", _start("--head --autoscaling-config=~/ray_bootstrap_config.yaml", head=True)],
        "worker_start_ray_commands": ["ray stop", _start(f"--address=$RAY_HEAD_IP:{HEAD_PORT}")],
    }
    local = common | {
        "provider": {"type": "local", "head_ip": hosts.head, "worker_ips": list(hosts.workers)},
        "auth": {"ssh_user": hosts.user, "ssh_private_key": hosts.key},
        "max_workers": len(hosts.workers),
        "min_workers": len(hosts.workers),
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
    }
    disk = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": cloud.disk_gib, "VolumeType": "gp3"}}]
    types: dict[str, Any] = {"head": {"resources": {"CPU": 0}, "node_config": {"InstanceType": cloud.head, "BlockDeviceMappings": disk}}}
    for name, nodes in deployment.groups().items():
        types[name] = {
            "min_workers": nodes.count,
            "max_workers": nodes.at_most,
            "labels": deployment.labels(name),
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
        "on-premise.yaml": to_yaml(local, "Existing hosts. Each needs Docker, the image and the shared folder; Ray detects GPUs."),
        "aws.yaml": to_yaml(aws, "EC2. Keep runs and data in s3://: the folder /shared is not shared between nodes."),
    }


def _start(options: str, head: bool = False) -> str:
    more = " --dashboard-host=0.0.0.0 --num-cpus=0" if head else ""
    port = f" --port={HEAD_PORT}" if head else ""
    return f"ulimit -n 65536; RAY_AUTH_MODE=token ray start {options}{port} --object-manager-port=8076{more}"
