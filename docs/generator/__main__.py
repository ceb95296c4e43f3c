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
        SystemExit: Zensical found a mistake; it has been printed.
        LookupError: a page names something that does not exist.
    """
    sources, site = folder / "pages", folder / "html"
    shutil.rmtree(folder, ignore_errors=True)
    sources.mkdir(parents=True)
    stage(sources)
    write_config(folder / "zensical.toml", sources, site)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", str(folder / "zensical.toml")]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout, end="")
    if done.returncode != 0 or "griffe:" in done.stdout:  # griffe reads the docstrings; its warnings do not fail the build
        raise SystemExit("error: the site has warnings")
    return site / "index.html"


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "site").absolute()))
