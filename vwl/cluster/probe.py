"""The actor that `vwl doctor` runs on each node of a cluster (`cluster_checks`).

It is pickled by value, so that it also works on nodes where vwl or its packages are not installed.
"""

import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any


class Probe:
    """Ray actor that reports on the node it runs on."""

    def now(self) -> float:
        """Return this node's clock, seconds since 1970."""
        return time.time()

    def about(self, packages: list[str]) -> dict[str, Any]:
        """Return this node's name, versions of packages (none where missing), whether vwl can be imported, disk and memory, bytes."""
        from importlib import metadata, util

        versions: dict[str, str | None] = {}
        for name in packages:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                versions[name] = None
        memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free, total = (int(memory[key].split()[0]) * 1024 for key in ("MemAvailable", "MemTotal"))
        disk = shutil.disk_usage(os.environ.get("RAY_TMPDIR") or "/tmp")
        return {
            "host": socket.gethostname(),
            "versions": versions,
            "vwl": util.find_spec("vwl") is not None,
            "memory": (free, total),
            "disk": (disk.free, disk.total),
        }

    def read_and_write(self, folder: str, name: str, own: str) -> str:
        """Read the file `name` in a folder or URI and write the file `own`; return what was read."""
        from pyarrow import fs

        system, path = fs.FileSystem.from_uri(folder) if "://" in folder else (fs.LocalFileSystem(), folder)
        with system.open_output_stream(f"{path.rstrip('/')}/{own}") as stream:
            stream.write(own.encode())
        with system.open_input_stream(f"{path.rstrip('/')}/{name}") as stream:
            return bytes(stream.read()).decode()

    def free_address(self) -> tuple[str, int]:
        """Return this node's IP address and a free port."""
        import ray

        with socket.socket() as found:
            found.bind(("", 0))
            return ray.util.get_node_ip_address(), int(found.getsockname()[1])

    def all_reduce(self, rank: int, world: int, rendezvous: tuple[str, int], backend: str) -> tuple[float, float]:
        """All-reduce (rank + 1) over the workers, which meet at an address and port; return the sum, and the seconds that 16 MiB take."""
        from datetime import timedelta

        import torch
        from torch import distributed as dist

        device = "cuda" if backend == "nccl" else "cpu"
        address = f"[{rendezvous[0]}]" if ":" in rendezvous[0] else rendezvous[0]
        dist.init_process_group(backend, f"tcp://{address}:{rendezvous[1]}", timedelta(seconds=60), world, rank)
        try:
            value = torch.full((1,), float(rank + 1), device=device)
            dist.all_reduce(value)
            block = torch.zeros(4 * 2**20, device=device)
            dist.all_reduce(block)
            began = time.perf_counter()
            dist.all_reduce(block)
            block[0].item()  # on a GPU the sum is under way until it is asked for
            return value.item(), time.perf_counter() - began
        finally:
            dist.destroy_process_group()
