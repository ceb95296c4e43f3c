"""A command as a job of a Ray cluster: submitted with the code it needs, followed, listed, stopped and submitted again.

Through Ray's Jobs API. The driver runs on the cluster (`cli/in_job.py` is where it starts), so the terminal that submitted it may go.
Runs go on where they stopped; therefore to resume a job is to submit its command anew.
"""

import asyncio
import json
import logging
import re
import shlex
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import ray
from ray.job_submission import JobDetails, JobSubmissionClient

from vwl.cluster.package import Package, make_package, pinned_packages, project_root
from vwl.config.versions import commit
from vwl.engine.address import check_jobs_url, jobs_url, without_addresses
from vwl.errors import VwlError, did_you_mean

ENDED = frozenset({"stopped", "succeeded", "failed"})
STOPPED_EXIT_CODE = 130
"""Of a job that was stopped, as of an interrupted command."""
_STOP_SECONDS = 150
"""What a stopped driver gets to save and leave; trainings take up to 120."""
_PATIENCE = 60.0
_POLL = 1.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_METADATA = "vwl"


@dataclass(frozen=True)
class Request:
    """What is submitted.

    Attributes:
        words: of the command, without `vwl`.
        files: texts that lie in the driver's working folder, by name (recipes).
        python: the interpreter on the cluster's nodes.
        packages: install the pinned packages first.
        env: environment variables of driver and workers.
    """

    words: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    python: str = "python"
    packages: bool = False
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    def entrypoint(self) -> str:
        """Return the shell command that the cluster's head runs."""
        return f"exec {shlex.quote(self.python)} -m vwl.cli.in_job {shlex.join(self.words)}"

    def package(self) -> Package:
        """Return the code and files as one zip."""
        return make_package(project_root(), self.files)

    def runtime_env(self) -> dict[str, Any]:
        """Return the runtime environment but for the package."""
        found: dict[str, Any] = {
            "env_vars": {
                "VWL_COMMIT": commit(),
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_JOB_STOP_SIGNAL": "SIGINT",  # at SIGTERM Ray's own handler prints a native stack first
                "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS),
                **self.env,
            }
        }
        if self.packages:
            found["uv"] = pinned_packages(project_root())
        return found


@dataclass(frozen=True)
class Job:
    """A job as the cluster knows it.

    Attributes:
        job: its id.
        state: `pending`, `running`, `stopped`, `succeeded` or `failed`.
        command: what was submitted.
        submitted: local time.
        seconds: so far, or in all.
        exit_code: of the driver; none while it runs, and when it was stopped.
        message: Ray's, in one line.
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
        """Whether it runs no more."""
        return self.state in ENDED

    def as_exit_code(self) -> int:
        """Return the exit code for a terminal that waited for it."""
        if self.state == "succeeded":
            return 0
        if self.state == "stopped":
            return STOPPED_EXIT_CODE
        code = self.exit_code or 1
        return code if code > 0 else 128 - code  # a signal ended it


class Jobs:
    """The jobs of one cluster.

    Attributes:
        url: where the cluster takes submissions.
    """

    def __init__(self, address: str | None) -> None:
        """Connect.

        Raises:
            VwlError: nothing answers, or it is not for us (token, version).
        """
        self.url = jobs_url(address)
        check_jobs_url(self.url)
        for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(name).setLevel(logging.ERROR)
        with without_addresses():
            self._client = JobSubmissionClient(self.url)

    def submit(self, request: Request, name: str | None = None) -> str:
        """Submit a command and return the job's id: its name, or one made from the command.

        Raises:
            VwlError: the package is over the limit, or there is a job of that name.
        """
        there = [details.submission_id for details in self._client.list_jobs()]
        job = name or _new_name(request.words)
        if not _NAME.fullmatch(job):
            raise VwlError(f"--name {job}: a job's name has letters, digits, dots, dashes and underscores")
        if job in there:
            raise VwlError(f"there is a job named {job} on the cluster; choose another --name (vwl jobs list)")
        about = {key: value for key, value in asdict(request).items() if key != "env"}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "code.zip")
            path.write_bytes(request.package().data)
            return self._ask(
                lambda: self._client.submit_job(
                    entrypoint=request.entrypoint(),
                    submission_id=job,
                    runtime_env={"working_dir": str(path), **request.runtime_env()},
                    metadata={_METADATA: json.dumps(about)},
                )
            )

    def all(self) -> list[Job]:
        """Return the jobs that were submitted by `vwl`, the latest last."""
        ours = [details for details in self._client.list_jobs() if _METADATA in (details.metadata or {})]
        return [_job(details) for details in sorted(ours, key=lambda details: details.start_time or 0)]

    def job(self, job: str) -> Job:
        """Return one job.

        Raises:
            VwlError: there is none of that id.
        """
        return _job(self._details(job))

    def logs(self, job: str) -> str:
        """Return all that a job's driver has printed."""
        self._details(job)
        return str(self._ask(lambda: self._client.get_job_logs(job)))

    def follow(self, job: str, write: Callable[[str], None], seen: int = 0) -> Job:
        """Hand what a job's driver has printed and prints to `write` until it ends; return it as it ended.

        The first `seen` characters are left out. A connection that breaks is made anew, and goes on where it broke.

        Raises:
            VwlError: there is no such job, or the cluster has not answered for a minute.
        """
        self._details(job)
        since = time.monotonic()
        while True:
            try:
                seen = asyncio.run(self._tail(job, seen, write))
                found = _job(self._client.get_job_info(job))
                if found.ended:
                    return found
                since = time.monotonic()
            except _Broken as broken:
                since = time.monotonic() if broken.seen > seen else since
                seen = broken.seen
            except (OSError, RuntimeError):
                pass
            if time.monotonic() - since > _PATIENCE:
                raise VwlError(f"the cluster at {self.url} answers no more; the job may go on: vwl jobs logs {job} --follow")
            time.sleep(_POLL)

    async def _tail(self, job: str, seen: int, write: Callable[[str], None]) -> int:
        """Write what comes after the first `seen` characters; each connection is told everything from the start."""
        position = 0
        try:
            async for text in self._client.tail_job_logs(job):
                new = text[max(0, seen - position) :]
                position += len(text)
                if new:
                    write(new)
                    seen = position
        except (OSError, RuntimeError, aiohttp.ClientError):
            raise _Broken(seen) from None
        return seen

    def stop(self, job: str) -> Job:
        """Stop a job: its driver saves and leaves; return it as it ended.

        Raises:
            VwlError: there is none of that id, or it has ended.
        """
        found = self.job(job)
        if found.ended:
            raise VwlError(f"the job {job} has ended before ({found.state})")
        self._ask(lambda: self._client.stop_job(job))
        deadline = time.monotonic() + _STOP_SECONDS + _PATIENCE
        while not found.ended:
            if time.monotonic() > deadline:
                raise VwlError(f"the job {job} was asked to stop and has not; look at vwl jobs logs {job}")
            time.sleep(_POLL)
            found = self.job(job)
        return found

    def resume(self, job: str) -> str:
        """Submit the command of a job that was stopped or failed anew, with the code of now; return the new job's id.

        Raises:
            VwlError: it runs, has succeeded, or was not submitted by `vwl`.
        """
        details = self._details(job)
        found = _job(details)
        if not found.ended:
            raise VwlError(f"the job {job} is {found.state}; follow it: vwl jobs logs {job} --follow")
        if found.state == "succeeded":
            raise VwlError(f"the job {job} has succeeded, there is nothing to resume")
        about = json.loads((details.metadata or {}).get(_METADATA, "null"))
        if about is None:
            raise VwlError(f"the job {job} was not submitted by vwl; submit its command anew")
        env = dict((details.runtime_env or {}).get("env_vars", {}))
        request = Request(tuple(about["words"]), about["files"], about["python"], about["packages"], env)
        there = {details.submission_id for details in self._client.list_jobs()}
        base = re.sub(r"-again\d*$", "", job)
        names = (f"{base}-again{number if number > 1 else ''}" for number in range(1, len(there) + 2))
        return self.submit(request, next(name for name in names if name not in there))

    def _details(self, job: str) -> JobDetails:
        try:
            return self._client.get_job_info(job)
        except RuntimeError as error:
            if "404" not in str(error):
                raise VwlError(_line(error)) from None
        known = [found.job for found in self.all()]
        raise VwlError(f"the cluster at {self.url} has no job {job}{did_you_mean(job, known)} (vwl jobs list)")

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except RuntimeError as error:
            raise VwlError(f"the cluster at {self.url} refuses: {_line(error)}") from None


class _Broken(Exception):
    """The connection to a log broke after `seen` characters."""

    def __init__(self, seen: int) -> None:
        self.seen = seen


def advice(found: Job, log: str) -> str:
    """Return the way out of a failure that lies in the cluster and not in the command, or an empty string."""
    if found.exit_code == 127 and "not found" in log:
        return "the cluster's head has no such interpreter; name one that it has: vwl submit --python PATH"
    if found.exit_code is None and found.state == "failed":
        return f"the job ended before its command: {found.message}"
    return ""


def _job(details: JobDetails) -> Job:
    about = json.loads((details.metadata or {}).get(_METADATA, "null"))
    command = f"vwl {shlex.join(about['words'])}" if about else details.entrypoint
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


def _new_name(words: tuple[str, ...]) -> str:
    verbs = [word for word in words[:2] if re.fullmatch(r"[a-z][a-z-]*", word)]
    return "-".join(["vwl", *verbs, time.strftime("%m%d-%H%M%S"), uuid.uuid4().hex[:4]])


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def ray_version() -> str:
    """Return the version of Ray here."""
    return str(ray.__version__)
