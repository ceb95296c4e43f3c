"""`vwl submit`: run any command as a job on a Ray cluster."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vwl.cluster.jobs import Jobs

JobsAddress = Annotated[
    str | None,
    typer.Option("--address", metavar="ADDRESS", help="Cluster: http://HEAD:8265 (default: RAY_ADDRESS, else one on this machine)."),
]
Wait = Annotated[bool, typer.Option("--wait/--detach", metavar="", help="Follow the job and end with its exit code, or return at once.")]


def submit(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="Any vwl command with its options.")],
    address: JobsAddress = None,
    wait: Wait = True,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The job's id (default: made from command and time).")] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Environment variable for driver and workers. Repeatable.")
    ] = None,
    python: Annotated[str, typer.Option(metavar="PATH", help="Python interpreter on the cluster's nodes.")] = "python",
    packages: Annotated[
        bool, typer.Option("--packages", metavar="", help="Install the pinned packages first (default: the nodes have them).")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Show what would be sent, without sending it.")] = False,
) -> None:
    """Run a command on a cluster. Code is sent, data is not: the nodes must be able to read index, images and run folder.

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
        say(f"{old} becomes {new}, a path that the cluster's nodes must see")
    if dry_run:
        shown = request.runtime_env()
        shown["env_vars"] = sorted(shown["env_vars"])  # their values may be secret
        print_json({"command": request.entrypoint(), "package": str(package), "files": [name for name, _ in package.files], **shown})
        return
    jobs = Jobs(address)
    say(f"sending {package} of code to {jobs.url}")
    report_submitted(jobs, jobs.submit(request, name), wait)


def report_submitted(jobs: "Jobs", job: str, wait: bool) -> None:
    """Print the id of a submitted job, and with `wait` follow it."""
    from vwl.cli.console import say

    say(f"submitted as {job}")
    if not wait:
        say(f"follow it with: vwl jobs logs {job} --follow --address {jobs.url}")
        return
    follow(jobs, job)


def follow(jobs: "Jobs", job: str) -> None:
    """Show a job's output to its end and end with its exit code; Ctrl-C asks whether to stop the job."""
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
    """Ask the user whether to stop, leave or follow a job; return False to go on following."""
    from vwl.cli.console import say

    answer = "d"
    if sys.stdin.isatty():
        with suppress(typer.Abort, KeyboardInterrupt, EOFError):
            answer = (
                typer.prompt(f"\n{job} is running: s to stop it, d to detach, c to continue following", default="d").strip().lower()[:1]
            )
    if answer == "c":
        return False
    if answer == "s":
        say(f"stopping {job}")
        say(f"{job} {jobs.stop(job).state}; resume it with: vwl jobs resume {job} --address {jobs.url}")
    else:
        say(f"{job} keeps running; follow it with: vwl jobs logs {job} --follow --address {jobs.url}")
    return True


def _environment(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"'{pair}' is not of the form KEY=VALUE", param_hint="'--env'")
        found[key] = value
    return found
