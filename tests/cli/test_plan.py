"""`vwl plan` and `vwl doctor` on this machine: tables, JSON and exit codes."""

import json

from typer.testing import CliRunner, Result

from tests.stages import STAGES
from vwl.cli.main import app


def vwl(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_plan_is_a_table_with_a_sum(tiny_run):
    result = vwl("plan", "--data", tiny_run.index_path, "--recipe", "demo", "--cpus-per-worker", 1)
    assert result.exit_code == 0, result.output
    assert all(f"\n{name} " in result.stdout for name in STAGES)
    assert "\nin all " in result.stdout
    assert "estimates may be off by a factor of 3" in result.stderr


def test_a_plan_as_json_adds_up(tiny_run):
    arguments = ("--data", tiny_run.index_path, "--recipe", "demo", "--from", tiny_run.folder, "--from-cpus", 1, "--cpus-per-worker", 1)
    result = vwl("plan", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["where"] == "this machine"
    assert found["hours"] == sum(stage["hours"] for stage in found["stages"])
    seconds = {name: tiny_run.manifest(name).seconds for name in STAGES}  # in tenths: the quickest stage may have taken none
    assert seconds["classifier"] > 0
    assert {stage["stage"]: stage["source"] for stage in found["stages"]} == {
        name: "measured" if seconds[name] or name in {"classifier", "irnet", "segmenter"} else "estimate" for name in STAGES
    }
    assert result.stderr == ""


def test_a_plan_that_does_not_fit_ends_with_exit_code_1(tiny_run):
    result = vwl("plan", "--data", tiny_run.index_path, "--recipe", "demo", "--workers", 2, "--cpus-per-worker", 4096)
    assert result.exit_code == 1
    assert "error: CPUs: 2 workers need 8192, and this machine has " in result.stderr


def test_the_doctor_prints_a_line_a_check_and_the_same_as_json(tmp_path):
    lines = vwl("doctor", "--storage", tmp_path)
    as_json = vwl("doctor", "--storage", tmp_path, "--json")
    found = json.loads(as_json.stdout)
    assert len(lines.stdout.splitlines()) == len(found)
    assert all(finding["check"] in line for finding, line in zip(found, lines.stdout.splitlines(), strict=True))
    assert as_json.exit_code == any(finding["grade"] == "error" for finding in found)
    assert f"{len(found)} checks: " in as_json.stderr


def test_the_doctor_ends_with_exit_code_1_where_a_storage_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = vwl("doctor", "--storage", tmp_path / "file/runs")
    assert result.exit_code == 1
    assert "ERROR    storage " in result.stdout
