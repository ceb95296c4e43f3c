"""Check a cluster for `vwl doctor`: nodes, versions of packages, clocks, shared storage, and an all-reduce over all nodes.

The checks of the machine that runs the command are in `machine_checks`; a `probe.Probe` runs on each node.
"""

import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vwl.cluster import probe
from vwl.cluster.machine_checks import Finding, Grade, graded
from vwl.config.node_labels import describe
from vwl.engine.address import check_jobs_url
from vwl.engine.ray_private import draining_nodes
from vwl.engine.session import SAME_VERSIONS, session
from vwl.errors import VwlError
from vwl.storage.folder import Folder

_TIMEOUT = 60.0
_COLLECTIVE_TIMEOUT = 180.0
_JOIN_TIMEOUT = 300.0
_SAME = ("ray", "torch", "torchvision", "timm", "numpy", "pyarrow")
"""Packages that must have one version on all nodes: results depend on them, or they talk to each other."""
_CLOCKS = (1.0, 30.0)
"""Seconds between clocks for a warning (logs confuse), and an error (S3 refuses requests, manifests are out of order)."""
_DISK = (10.0, 1.0)
_MEMORY = (4.0, 1.0)


@dataclass
class _Node:
    name: str
    actor: Any
    gpus: int


def cluster_findings(address: str | None, storage: str | None, nodes: int | None = None) -> Iterator[Finding]:
    """Yield the findings about a cluster.

    Args:
        address: HEAD:6379 or `auto`; None: RAY_ADDRESS. Of an address for submissions (http://...) only the connection is checked:
            a submitted `vwl doctor` checks the nodes.
        storage: folder or URI for runs, which is then read and written from every node.
        nodes: wait until this many nodes have joined, up to five minutes.
    """
    if address is not None and address.startswith(("http://", "https://")):
        yield _submissions(address)
        return
    try:
        with session(address):
            yield Finding("cluster", "ok", f"{ray.get_runtime_context().gcs_address}, Ray {ray.__version__} on both sides")
            if nodes is not None:
                yield _wait_for_nodes(nodes)
            yield from _connected(storage)
    except VwlError as error:
        other_address = "" if SAME_VERSIONS in str(error) else "name HEAD:6379 with --address; vwl submit takes http://HEAD:8265"
        yield Finding("cluster", "error", str(error), other_address)


def _wait_for_nodes(nodes: int) -> Finding:
    deadline = time.monotonic() + _JOIN_TIMEOUT
    while (alive := sum(node["Alive"] for node in ray.nodes())) < nodes and time.monotonic() < deadline:
        time.sleep(1)
    if alive < nodes:
        return Finding(
            "nodes", "error", f"{alive} of {nodes} have joined in {_JOIN_TIMEOUT:.0f} s", "look at the logs of the missing nodes"
        )
    return Finding("nodes", "ok", f"{alive} of {nodes} have joined")


def _submissions(url: str) -> Finding:
    try:
        check_jobs_url(url.rstrip("/"))
    except VwlError as error:
        return Finding("submissions", "error", str(error), "start the cluster, or correct the address or token")
    return Finding("submissions", "ok", f"{url} takes them; to check its nodes: vwl submit --address {url} -- doctor")


def _connected(storage: str | None) -> Iterator[Finding]:
    known = ray.nodes()
    dead = [node for node in known if not node["Alive"]]
    if dead:
        yield Finding("nodes", "warning", f"{len(dead)} of {len(known)} nodes have left the cluster", "look at their logs")
    alive = [node for node in known if node["Alive"]]
    leaving = draining_nodes()
    for node in alive:
        yield _resources(node, leaving)
    if not any(node["Resources"].get("CPU") for node in alive):
        yield Finding("nodes", "error", "no node has CPUs for workers", "start worker nodes: ray start --address HEAD:6379")
    ray.cloudpickle.register_pickle_by_value(probe)
    try:
        nodes = [_Node(_name(node), _probe(node["NodeID"]), int(node["Resources"].get("GPU", 0))) for node in alive]
        answering, findings = _inside(nodes)
        yield from findings
        yield from _clocks(answering)
        if storage is not None:
            yield from _storage(answering, storage)
        yield _collective(answering)
    finally:
        ray.cloudpickle.unregister_pickle_by_value(probe)


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} {node['NodeID'][:6]}"


def _resources(node: dict[str, Any], leaving: Collection[str]) -> Finding:
    has = node["Resources"]
    store = has.get("object_store_memory", 0) / 2**30
    found = f"{has.get('CPU', 0):g} CPUs, {has.get('GPU', 0):g} GPUs, {has.get('memory', 0) / 2**30:.1f} GiB, object store {store:.2f} GiB"
    if labels := describe({key: value for key, value in sorted(node.get("Labels", {}).items()) if not key.startswith("ray.io/")}):
        found += f", labels {labels}"
    if node["NodeID"] in leaving:
        return Finding(f"node {_name(node)}", "warning", f"{found}, is about to leave", "nothing new is started on it")
    if store < 0.05:
        return Finding(f"node {_name(node)}", "warning", found, "give it more: ray start --object-store-memory 1000000000")
    return Finding(f"node {_name(node)}", "ok", found)


def _probe(node_id: str, gpus: int = 0) -> Any:
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0, num_gpus=gpus)(probe.Probe).options(scheduling_strategy=there).remote()


def _inside(nodes: Sequence[_Node]) -> tuple[list[_Node], list[Finding]]:
    """Look at each node's versions, disk and memory; return the nodes that answer, and what was found."""
    asked = [(node, node.actor.about.remote(list(_SAME))) for node in nodes]
    answers: list[tuple[_Node, dict[str, Any]]] = []
    found = []
    for node, answer in asked:
        try:
            answers.append((node, ray.get(answer, timeout=_TIMEOUT)))
        except (GetTimeoutError, RayError) as error:
            found.append(Finding(f"node {node.name}", "error", f"does not answer ({type(error).__name__})", "look at its logs in /tmp/ray"))
    for node, about in answers:
        found.append(_versions(node, about))
        (free, total), (room, size) = about["memory"], about["disk"]
        found.append(graded(f"disk of {node.name}", room, size, _DISK, "free space where Ray has its session (/tmp, or RAY_TMPDIR)"))
        found.append(graded(f"memory of {node.name}", free, total, _MEMORY, "end other programs there, or use fewer workers a node"))
    return [node for node, _ in answers], found


def _versions(node: _Node, about: dict[str, Any]) -> Finding:
    from importlib import metadata

    theirs = about["versions"]
    ours = {name: metadata.version(name) for name in _SAME}
    check, way_out = f"packages of {node.name}", "give every node the same image (deploy/Dockerfile) or make setup"
    missing = [name for name in _SAME if theirs[name] is None]
    if missing:
        return Finding(check, "error", f"no {', '.join(missing)}", f"{way_out}; or vwl submit --packages")
    if not about["vwl"]:
        return Finding(check, "error", "vwl cannot be imported", f"{way_out}; or submit the command: vwl submit sends the code along")
    other = [f"{name} {theirs[name]} (here {ours[name]})" for name in _SAME if theirs[name] != ours[name]]
    if other:
        return Finding(check, "warning", ", ".join(other), way_out)
    return Finding(check, "ok", f"{about['host']}: " + ", ".join(f"{name} {theirs[name]}" for name in ("torch", "torchvision", "ray")))


def _clocks(nodes: Sequence[_Node]) -> Iterator[Finding]:
    offsets = {}
    for node in nodes:
        seen = []
        for _ in range(5):
            before = time.time()
            there = ray.get(node.actor.now.remote(), timeout=_TIMEOUT)
            seen.append(there - (before + time.time()) / 2)
        offsets[node.name] = median(seen)
    if not offsets:
        return
    name, worst = max(offsets.items(), key=lambda entry: abs(entry[1]))
    grade: Grade = "error" if abs(worst) > _CLOCKS[1] else "warning" if abs(worst) > _CLOCKS[0] else "ok"
    shown = f"at most {abs(worst):.3f} s from this machine's" + ("" if grade == "ok" else f" ({name})")
    yield Finding("clocks", grade, shown, "" if grade == "ok" else "start a time service (chrony, ntpd) on every node")


def _storage(nodes: Sequence[_Node], storage: str) -> Iterator[Finding]:
    """Write a file here and read it on every node, and the other way round."""
    folder = Folder(storage)
    name = f".vwl-doctor-{uuid.uuid4().hex}"
    written = [name]
    try:
        folder.write(name, name.encode())
        for number, node in enumerate(nodes):
            check, own = f"storage from {node.name}", f"{name}-{number}"
            written.append(own)
            try:
                there = ray.get(node.actor.read_and_write.remote(str(folder), name, own), timeout=_TIMEOUT)
                same = there == name and folder.read(own).decode() == own
                yield Finding(
                    check, "ok" if same else "error", f"{folder} is one folder" if same else "reads other bytes than were written"
                )
            except (VwlError, RayError) as error:
                reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1][:160]
                yield Finding(
                    check, "error", f"{folder}: {reason}", "mount one folder on all nodes under one path (NFS), or use s3:// or gs://"
                )
    except VwlError as error:
        yield Finding("storage", "error", str(error), "name a folder that can be written")
    finally:
        for each in written:
            folder.delete(each)


def _collective(nodes: Sequence[_Node]) -> Finding:
    """Sum a number over all GPUs, or over all nodes where there is no GPU."""
    gpus = sum(node.gpus for node in nodes)
    free = int(ray.available_resources().get("GPU", 0))
    if gpus and free < gpus:
        return Finding("collective", "warning", f"not tried: {gpus - free} of {gpus} GPUs are in use", "run vwl doctor when they are free")
    backend, check = ("nccl", "GPU collective") if gpus else ("gloo", "CPU collective")
    actors = [ray.remote(num_cpus=0, num_gpus=1)(probe.Probe).remote() for _ in range(gpus)] or [node.actor for node in nodes]
    world = len(actors)
    try:
        rendezvous = ray.get(actors[0].free_address.remote(), timeout=_TIMEOUT)
        sums = ray.get(
            [actor.all_reduce.remote(rank, world, rendezvous, backend) for rank, actor in enumerate(actors)], timeout=_COLLECTIVE_TIMEOUT
        )
    except (GetTimeoutError, RayError) as error:
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1][:160]
        way_out = "open the ports between the nodes; name the right network in NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME"
        return Finding(check, "error", f"{backend} over {world}: {reason}", way_out)
    if any(total != world * (world + 1) / 2 for total, _ in sums):
        return Finding(check, "error", f"{backend} over {world} returns wrong sums", "look at drivers and network of the nodes")
    slowest = max(seconds for _, seconds in sums)
    return Finding(check, "ok", f"{backend} over {world} {'GPUs' if gpus else 'nodes'}, 16 MiB in {slowest * 1000:.0f} ms")
