"""The files that other services read are valid: workflows, templates, CITATION.cff, the hooks; workflows call targets that exist."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from vwl.config.files import RENAMED

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.github-issue-forms": [ROOT / ".github/ISSUE_TEMPLATE" / name for name in ("bug.yml", "feature.yml")],
    "vendor.github-issue-config": [ROOT / ".github/ISSUE_TEMPLATE/config.yml"],
    "vendor.citation-file-format": [ROOT / "CITATION.cff"],
}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def schema_errors(schema: str, files: list[Path]) -> str:
    """Validate files against a schema that comes with check-jsonschema; empty if they are valid."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_files_agree_with_their_schema(schema):
    assert schema_errors(schema, SCHEMAS[schema]) == ""


def test_a_wrong_workflow_does_not_agree_with_the_schema(tmp_path):
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text(encoding="utf-8").replace("runs-on", "run-on"), encoding="utf-8")
    assert "run-on" in schema_errors("vendor.github-workflows", [wrong])


@pytest.mark.skipif(not shutil.which("actionlint"), reason="actionlint is not installed; the job `workflows` of CI runs it")
def test_actionlint_finds_nothing():
    done = subprocess.run(["actionlint", *map(str, WORKFLOWS)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_workflows_and_hooks_call_targets_that_exist():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    commands = [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]]
    for path in WORKFLOWS:
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
        commands += [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    called = {target for command in commands for target in re.findall(r"^make ([a-z]+)", command, re.MULTILINE)}
    assert called <= TARGETS
    assert called >= {"test", "wheel", "drill", "coverage", "check", "format"}


def test_every_target_is_phony_and_listed_by_make_help():
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())
    assert phony == TARGETS
    assert set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE)) == TARGETS - {"pydensecrf"}


def test_ci_tests_every_supported_python():
    matrix = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]["test"]["strategy"]["matrix"]
    assert PYPROJECT["project"]["requires-python"] == ">=3.11,<3.13"
    assert matrix["python"] == ["3.11", "3.12"]


def test_citation_and_changelog_name_the_version_of_the_package():
    version = PYPROJECT["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", changelog, re.MULTILINE)[0] == "[Unreleased]"


def test_the_changelog_names_every_renamed_recipe_key():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    shared = ("irnet.optimiser.head_factor", "segmenter.optimiser.head_factor")  # in the classifier's line
    assert [
        (old, new)
        for old, new in RENAMED.items()
        if old not in shared and not {f"`{old}`", f"`{new}`"} <= set(re.findall(r"`[^`]+`", changelog))
    ] == []
