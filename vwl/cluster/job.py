"""The two sides of a job on a Ray cluster: the `Request` that is submitted, and the `Job` that the cluster reports."""

import json
import re
import shlex
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.job_submission import JobDetails

from vwl.cluster.package import Package, make_package, pinned_packages, project_root
from vwl.config.versions import commit

ENDED = frozenset({"stopped", "succeeded", "failed"})
STOPPED_EXIT_CODE = 130
"""Exit code of a stopped job, as of an interrupted command."""
STOP_SECONDS = 150
"""Time that a stopped driver has to save and end; trainings take up to 120."""
METADATA_KEY = "vwl"
"""Key of a job's metadata that holds the submitted request."""


@dataclass(frozen=True)
class Request:
    """A command to submit.

    Attributes:
        command: arguments of `vwl`.
        files: text files in the driver's working folder, by name (recipes).
        python: interpreter on the cluster's nodes.
        packages: install the pinned packages first.
        env: environment variables of driver and workers.
    """

    command: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    python: str = "python"
    packages: bool = False
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    def entrypoint(self) -> str:
        """Return the shell command that the cluster's head runs."""
        return f"exec {shlex.quote(self.python)} -m vwl.cli.in_job {shlex.join(self.command)}"

    def package(self) -> Package:
        """Return the code and files as one zip."""
        return make_package(project_root(), self.files)

    def runtime_env(self) -> dict[str, Any]:
        """Return the runtime environment without the package."""
        environment: dict[str, Any] = {
            "env_vars": {
                "VWL_COMMIT": commit(),
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_JOB_STOP_SIGNAL": "SIGINT",  # at SIGTERM Ray's own handler prints a native stack first
                "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
                **self.env,
            }
        }
        if self.packages:
            environment["uv"] = pinned_packages(project_root())
        return environment


@dataclass(frozen=True)
class Job:
    """A submitted job.

    Attributes:
        job: its id.
        state: `pending`, `running`, `stopped`, `succeeded` or `failed`.
        command: the submitted command.
        submitted: local time.
        seconds: running time so far, or in total.
        exit_code: of the driver; None while it runs, and if it was stopped.
        message: Ray's message, first line.
    """

    job: str
    state: str
    command: str
    submitted: str | None
    seconds: float | None
    exit_code: int | None
    message: str

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.state in ENDED

    def as_exit_code(self) -> int:
        """Return the exit code with which a command that follows the job ends."""
        if self.state == "succeeded":
            return 0
        if self.state == "stopped":
            return STOPPED_EXIT_CODE
        code = self.exit_code or 1
        return code if code > 0 else 128 - code  # a signal ended it


def advice(job: Job, log: str) -> str:
    """Return what to do if the cluster could not start the command, or an empty string."""
    if job.exit_code == 127 and "not found" in log:
        return "the cluster's head does not have this interpreter; name one that it has: vwl submit --python PATH"
    if job.exit_code is None and job.state == "failed":
        return f"the job ended before its command started: {job.message}"
    return ""


def job_of(details: JobDetails) -> Job:
    """Return a job from the details that Ray's Jobs API returns."""
    request = json.loads((details.metadata or {}).get(METADATA_KEY, "null"))
    command = f"vwl {shlex.join(request['command'])}" if request else details.entrypoint
    start, end = details.start_time or None, details.end_time or None
    return Job(
        job=details.submission_id or details.job_id or "",
        state=str(details.status.value).lower(),
        command=command,
        submitted=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(start / 1000)) if start else None,
        seconds=round(((end / 1000 if end else time.time()) - start / 1000), 1) if start else None,
        exit_code=details.driver_exit_code,
        message=(details.message or "").strip().splitlines()[0] if details.message else "",
    )


def new_name(command: tuple[str, ...]) -> str:
    """Return a unique job name: the first arguments of its command, the time and a random part."""
    verbs = [argument for argument in command[:2] if re.fullmatch(r"[a-z][a-z-]*", argument)]
    return "-".join(["vwl", *verbs, time.strftime("%m%d-%H%M%S"), uuid.uuid4().hex[:4]])
