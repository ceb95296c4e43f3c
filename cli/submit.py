"""`vwl submit`: any command, as a job of a Ray cluster."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from vwl.errors import VwlError

if TYPE_CHECKING:
    from vwl.cluster.jobs import Jobs

JobsAddress = Annotated[
    str | None, typer.Option("--address", help="The cluster: http://HEAD:8265 (default: RAY_ADDRESS, else this machine's).")
]
Wait = Annotated[bool, typer.Option("--wait/--detach", help="Follow the job to its end and end with its exit code, or leave it alone.")]


def submit(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="Any vwl command with its options.")],
    address: JobsAddress = None,
    wait: Wait = True,
    name: Annotated[str | None, typer.Option(help="The job's id (default: made from command and time).")] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Environment variable of driver and workers. Repeatable.")
    ] = None,
    python: Annotated[str, typer.Option(help="The interpreter on the cluster's nodes.")] = "python",
    packages: Annotated[bool, typer.Option("--packages", help="Install the pinned packages first; else the nodes must have them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")] = False,
) -> None:
    """Run a command on a cluster: sends this code, not data; index, run folder and images must be where the nodes see them.

    \b
    Examples:
      vwl submit --address http://head:8265 -- run --data /shared/voc.parquet --recipe paper-voc --run /shared/runs/voc --workers 2
      vwl submit --detach --name cams -- infer cam --run s3://bucket/runs/voc
    """
    from vwl.cli.console import print_json, say
    from vwl.cli.forwarding import forwarded
    from vwl.cluster.job import Request
    from vwl.cluster.jobs import Jobs

    found = forwarded(command)
    request = Request(tuple(found.command), found.files, python, packages, _environment(env or []))
    package = request.package()
    for old, new in found.moved.items():
        say(f"{old} is taken as {new}, which the cluster's nodes must see")
    if dry_run:
        shown = request.runtime_env()
        shown["env_vars"] = sorted(shown["env_vars"])  # their values may be secret
        print_json({"command": request.entrypoint(), "package": str(package), "files": [name for name, _ in package.files], **shown})
        return
    jobs = Jobs(address)
    say(f"sending {package} of code to {jobs.url}")
    begun(jobs, jobs.submit(request, name), wait)


def begun(jobs: "Jobs", job: str, wait: bool) -> None:
    """Say that a job is submitted, and wait for it if asked to."""
    from vwl.cli.console import say

    say(f"submitted as {job}")
    if not wait:
        say(f"follow it with: vwl jobs logs {job} --follow --address {jobs.url}")
        return
    follow(jobs, job)


def follow(jobs: "Jobs", job: str) -> None:
    """Show a job's output to its end and end with its exit code; Ctrl-C asks whether to stop it or leave it alone."""
    from vwl.cli.console import duration, say, tables
    from vwl.cluster.job import advice

    tail, seen = "", 0

    def write(text: str) -> None:
        nonlocal tail, seen
        tail, seen = (tail + text)[-2000:], seen + len(text)
        tables.file.write(text)
        tables.file.flush()

    while True:
        try:
            ended = jobs.follow(job, write, seen)
            break
        except KeyboardInterrupt:
            if not _leave(jobs, job):
                continue
            raise typer.Exit(130) from None
    say(f"{job} {ended.state}" + (f" after {duration(ended.seconds)}" if ended.seconds else ""))
    if way_out := advice(ended, tail):
        say(f"error: {way_out}")
    if code := ended.as_exit_code():
        raise typer.Exit(code)


def _leave(jobs: "Jobs", job: str) -> bool:
    """Stop or leave a job, as the user on the terminal wants; return whether to follow it no more."""
    from vwl.cli.console import say

    answer = "d"
    if sys.stdin.isatty():
        with suppress(typer.Abort, KeyboardInterrupt, EOFError):
            answer = typer.prompt(f"\n{job} runs: s stops it, d leaves it running, c goes on following", default="d").strip().lower()[:1]
    if answer == "c":
        return False
    if answer == "s":
        say(f"stopping {job}")
        say(f"{job} {jobs.stop(job).state}; go on with: vwl jobs resume {job} --address {jobs.url}")
    else:
        say(f"{job} goes on; follow it with: vwl jobs logs {job} --follow --address {jobs.url}")
    return True


def _environment(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise VwlError(f"--env {pair} is not of the form KEY=VALUE")
        found[key] = value
    return found
