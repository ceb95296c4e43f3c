"""The steps of deploy/Dockerfile, done in a root of their own: a layer over this machine's, in which nothing of them is there yet.

What cannot be had here is another: the base image (this machine's system and interpreter are its position) and, without the network, packages
that are not in uv's cache, which is therefore left on. The CUDA target is done; that of CPUs differs in where torch comes from.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.drill, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parents[2]
LAYER = """
set -e
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/root"
mount --rbind /dev "$1/root/dev"
mount -t proc proc "$1/root/proc"
exec chroot "$1/root" bash -eux "$1/steps.sh"
"""


def stages() -> dict[str, list[tuple[str, str]]]:
    """Return each stage's instructions, its FROM first."""
    text = re.sub(r"\\\n", "", (ROOT / "deploy/Dockerfile").read_text())
    found: dict[str, list[tuple[str, str]]] = {}
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found[rest.split(" AS ")[1]] = [(word, rest.split(" AS ")[0])]
        elif word and not word.startswith("#"):
            list(found.values())[-1].append((word, rest))
    return found


def steps(target: str) -> Iterator[str]:
    """Yield the shell lines of a target: of the stages that it copies from or builds on, and its own."""
    for word, rest in stages()[target]:
        if word == "FROM" and rest in stages():
            yield from steps(rest)
        elif word == "COPY" and rest.startswith("--from="):
            yield from steps(rest.split()[0].removeprefix("--from="))
        elif word == "COPY":
            *sources, goal = rest.split()
            for source in sources:
                into = f"{goal}/{Path(source).name}" if (ROOT / source).is_dir() and len(sources) > 1 else goal
                yield f"cp -r {shlex.quote(str(ROOT / source))} {into}"
        elif word == "WORKDIR":
            yield f"mkdir -p {rest} && cd {rest}"
        elif word == "ENV":
            yield f"export {rest}"
        elif word == "RUN":
            yield rest.replace("--no-cache ", "")


@pytest.fixture
def layer(tmp_path) -> Path:
    for name in ("upper", "work", "root"):
        (tmp_path / name).mkdir()
    (tmp_path / "steps.sh").write_text("true\n")
    if subprocess.run(["unshare", "--mount", "sh", "-c", LAYER, "sh", tmp_path], check=False).returncode:
        pytest.skip("no layer over the root can be made here")
    return tmp_path


def do(layer: Path, lines: list[str]) -> str:
    (layer / "steps.sh").write_text("\n".join(lines) + "\n")
    shutil.rmtree(layer / "work", ignore_errors=True)
    (layer / "work").mkdir()
    way_to_packages = ("HOME", "UV_", "PIP_", "SSL_", "REQUESTS_")
    kept = {key: value for key, value in os.environ.items() if key.startswith(way_to_packages)}
    environment = kept | {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", LAYER, "sh", layer], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_every_stage_is_known():
    lines = list(steps("cuda"))
    assert sum(line.startswith("apt-get") for line in lines) == 2
    assert lines[-1] != lines[0]
    assert {rest for name in stages() for word, rest in stages()[name] if word == "FROM"} == {
        "python:3.11-slim-bookworm",
        "builder",
        "node",
    }


def test_the_steps_of_the_image_give_a_vwl_that_works_for_its_user(layer):
    python = Path(sys.executable).resolve()
    # What the base image has: its python on the path, for every user, and no user of its own.
    others = "for name in $(getent passwd 1000 | cut -d: -f1); do userdel --force $name; done"
    base = [others, f"export PATH={python.parent}:$PATH", f"chmod o+x {' '.join(map(str, [*python.parents][:-1]))}", "rm -rf /opt/vwl"]
    user = "setpriv --reuid=1000 --regid=1000 --clear-groups"
    check = [
        f"cd / && HOME=/home/vwl {user} /opt/vwl/bin/vwl --help",
        f"HOME=/home/vwl {user} /opt/vwl/bin/vwl recipe list",
        f"HOME=/home/vwl {user} /opt/vwl/bin/ray --version",
        f"HOME=/home/vwl {user} /opt/vwl/bin/python -c 'import vwl, torchvision, optuna; print(vwl.__file__)'",
        "id vwl; command -v wget rsync ps",
    ]
    said = do(layer, [*base, *steps("cuda"), *check])
    assert "paper-voc" in said
    assert "ray, version 2.60" in said
    assert "/opt/vwl/lib/python3." in said  # installed, not the checkout
    assert "uid=1000(vwl)" in said
    assert not (ROOT / "build").exists()
