"""Build the site into the folder `site`, or the folder that is given."""

import shutil
import subprocess
import sys
from pathlib import Path

from docs.generator.config import write_config
from docs.generator.navigation import ROOT
from docs.generator.staging import stage


def build(folder: Path) -> Path:
    """Build the site below a folder and return its start page; a warning is an error.

    Raises:
        subprocess.CalledProcessError: Zensical found a mistake; it has printed it.
    """
    sources, site = folder / "pages", folder / "html"
    shutil.rmtree(folder, ignore_errors=True)
    sources.mkdir(parents=True)
    stage(sources)
    write_config(folder / "zensical.toml", sources, site)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", str(folder / "zensical.toml")]
    subprocess.run(command, cwd=ROOT, check=True)
    return site / "index.html"


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site").absolute()))
