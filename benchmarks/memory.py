"""Memory: `vwl infer cam` over more and more images; the peak of all its processes must stay where it is.

The command runs as it does for a user, with two plain processes (or on Ray: `--backend ray`), on images of 500 x 375 pixels that
are repeated under new ids, with a network made for tests. The peak is that of the command's processes together, looked at every tenth of a
second; of pages that they share each counts its part. Parity: all images are there, and those of one image have the same maps.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _paired import Line, show
from _runs import NUM_IMAGES, cam_run

from vwl.config.files import load_recipe
from vwl.storage.score_maps import MapReader

KEYS = [
    "cam.scales=[1.0, 0.5]",
    "cam.long_side=160",
    "classifier.backbone.name=timm:test_resnet",
    "classifier.backbone.weights=none",
]
GROWN = (250, 1000, 4000)
FEW, MANY = 400, 4000
PAUSE = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="local", choices=["local", "ray"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {num: measured(Path(folder, str(num)), num, options.backend) for num in sorted({*GROWN, FEW, MANY})}
    right = all(same for *_, same in found.values())
    parity = "same maps" if right else "NOT the same maps"

    def line(few: int, many: int, wanted: str) -> tuple[Line, Line]:
        (little, slow, _), (much, quick, _) = found[few], found[many]
        what = f"infer cam, {options.backend}: {few:,}, {many:,} images"
        return (
            Line(f"{what}, peak", f"{little:,.0f} MiB", f"{much:,.0f} MiB", much / little, wanted, parity),
            Line(f"{what}, speed", f"{slow:.0f} images/s", f"{quick:.0f} images/s", quick / slow, "", parity),
        )

    lines = [*line(FEW, MANY, "under 1.2"), *(one for num in GROWN[1:] for one in line(GROWN[0], num, ""))]
    show("Memory and speed as the number of images grows", lines, right)


def measured(folder: Path, num_images: int, backend: str) -> tuple[float, float, bool]:
    """Return the peak in MiB, images a second with start and end, and whether the maps are right."""
    run = cam_run(folder, load_recipe("demo", KEYS), num_images)
    command = [sys.executable, "-m", "vwl.cli.main", "infer", "cam", "--run", str(run.folder), "--backend", backend]
    began, peak = time.monotonic(), 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, sum(memory(pid) for pid in family(process.pid)))
            time.sleep(PAUSE)
    seconds = time.monotonic() - began
    maps = MapReader(run.stage_folder("cam"))
    same = process.returncode == 0 and len(maps) == num_images
    for number in range(0, num_images, 37) if same else ():
        first = maps.read(f"{number % NUM_IMAGES:05d}").values
        same = same and np.array_equal(maps.read(f"{number:05d}").values, first)
    return peak / 2**20, num_images / seconds, same


def family(pid: int) -> list[int]:
    """A process and all that descend from it; Ray's are children of the driver too."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # ended meanwhile
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def memory(pid: int) -> float:
    """Bytes of a process, of shared pages its part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0.0)


if __name__ == "__main__":
    main()
