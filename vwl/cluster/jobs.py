"""The client of Ray's Jobs API: submits, follows, lists, stops and resumes commands on a cluster.

The driver runs on the cluster (it starts in `vwl.cli.in_job`), so the terminal can be closed. A run resumes where it stopped, so to
resume a job is to submit its command again.
"""

import asyncio
import json
import logging
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
from ray.job_submission import JobDetails, JobSubmissionClient

from vwl.cluster.job import METADATA_KEY, STOP_SECONDS, Job, Request, job_of, new_name
from vwl.engine.address import check_jobs_url, jobs_url, without_addresses
from vwl.errors import VwlError, did_you_mean

_TIMEOUT = 60.0
_POLL = 1.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Jobs:
    """The jobs of one cluster.

    Attributes:
        url: URL of the cluster's Jobs API.
    """

    def __init__(self, address: str | None) -> None:
        """Connect to the cluster.

        Raises:
            VwlError: no cluster answers, or it refuses the token, or runs another version of Ray.
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
            VwlError: the code is larger than the limit, or the name is taken or not valid.
        """
        names = {details.submission_id for details in self._client.list_jobs()}
        job = name or new_name(request.command)
        if not _NAME.fullmatch(job):
            raise VwlError(
                f"--name {job}: a job's name may hold letters, digits, dots, dashes and underscores, and starts with a letter or digit"
            )
        if job in names:
            raise VwlError(f"the cluster already has a job named {job}; choose another --name (vwl jobs list)")
        about = {key: value for key, value in asdict(request).items() if key != "env"}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "code.zip")
            path.write_bytes(request.package().data)
            return self._call(
                lambda: self._client.submit_job(
                    entrypoint=request.entrypoint(),
                    submission_id=job,
                    runtime_env={"working_dir": str(path), **request.runtime_env()},
                    metadata={METADATA_KEY: json.dumps(about)},
                )
            )

    def all(self) -> list[Job]:
        """Return the jobs that `vwl submit` made, the latest last."""
        ours = [details for details in self._client.list_jobs() if METADATA_KEY in (details.metadata or {})]
        return [job_of(details) for details in sorted(ours, key=lambda details: details.start_time or 0)]

    def job(self, job: str) -> Job:
        """Return one job.

        Raises:
            VwlError: the cluster has no job of this id.
        """
        return job_of(self._details(job))

    def logs(self, job: str) -> str:
        """Return the output of a job's driver so far."""
        self._details(job)
        return str(self._call(lambda: self._client.get_job_logs(job)))

    def follow(self, job: str, write: Callable[[str], None], seen: int = 0) -> Job:
        """Pass the output of a job's driver to `write` until the job ends; return the ended job.

        A broken connection is opened again, and the output continues where it broke.

        Args:
            job: its id.
            write: called with each piece of output.
            seen: number of characters at the start to leave out.

        Raises:
            VwlError: the cluster has no job of this id, or the cluster has not answered for a minute.
        """
        self._details(job)
        since = time.monotonic()
        while True:
            try:
                seen = asyncio.run(self._tail(job, seen, write))
                found = job_of(self._client.get_job_info(job))
                if found.ended:
                    return found
                since = time.monotonic()
            except _Broken as broken:
                since = time.monotonic() if broken.seen > seen else since
                seen = broken.seen
            except (OSError, RuntimeError):
                pass
            if time.monotonic() - since > _TIMEOUT:
                raise VwlError(
                    f"the cluster at {self.url} no longer answers; the job may still run, follow it with: vwl jobs logs {job} --follow"
                )
            time.sleep(_POLL)

    async def _tail(self, job: str, seen: int, write: Callable[[str], None]) -> int:
        """Write the output after the first `seen` characters; return the characters seen. A new connection sends the log from its start."""
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
        """Stop a job, whose driver saves before it ends; return the ended job.

        Raises:
            VwlError: the cluster has no job of this id, or the job has ended already, or does not end.
        """
        found = self.job(job)
        if found.ended:
            raise VwlError(f"the job {job} has already ended ({found.state})")
        self._call(lambda: self._client.stop_job(job))
        deadline = time.monotonic() + STOP_SECONDS + _TIMEOUT
        while not found.ended:
            if time.monotonic() > deadline:
                raise VwlError(f"the job {job} was told to stop and still runs; see vwl jobs logs {job}")
            time.sleep(_POLL)
            found = self.job(job)
        return found

    def resume(self, job: str) -> str:
        """Submit the command of a stopped or failed job again, with the current code; return the new job's id.

        Raises:
            VwlError: the job runs, has succeeded, or was not made by `vwl submit`.
        """
        details = self._details(job)
        found = job_of(details)
        if not found.ended:
            raise VwlError(f"the job {job} is {found.state}; follow it: vwl jobs logs {job} --follow")
        if found.state == "succeeded":
            raise VwlError(f"the job {job} has succeeded; there is nothing to resume")
        about = json.loads((details.metadata or {}).get(METADATA_KEY, "null"))
        if about is None:
            raise VwlError(f"the job {job} was not made by vwl submit; submit its command with vwl submit")
        env = dict((details.runtime_env or {}).get("env_vars", {}))
        request = Request(tuple(about["command"]), about["files"], about["python"], about["packages"], env)
        taken = {details.submission_id for details in self._client.list_jobs()}
        base = re.sub(r"-again\d*$", "", job)
        names = (f"{base}-again{number if number > 1 else ''}" for number in range(1, len(taken) + 2))
        return self.submit(request, next(name for name in names if name not in taken))

    def _details(self, job: str) -> JobDetails:
        try:
            return self._client.get_job_info(job)
        except RuntimeError as error:
            if "404" not in str(error):
                raise VwlError(_line(error)) from None
        known = [found.job for found in self.all()]
        raise VwlError(f"the cluster at {self.url} has no job {job}{did_you_mean(job, known)} (vwl jobs list)")

    def _call(self, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except RuntimeError as error:
            raise VwlError(f"the cluster at {self.url} refuses the request: {_line(error)}") from None


class _Broken(Exception):
    """The connection to a log broke after `seen` characters."""

    def __init__(self, seen: int) -> None:
        self.seen = seen


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
