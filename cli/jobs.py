"""`vwl jobs`: manage the submitted commands of a cluster."""

from typing import Annotated

import typer

from vwl.cli.options import Json
from vwl.cli.submit import JobsAddress, Wait, follow

app = typer.Typer(no_args_is_help=True, help="List, show, follow, stop and resume submitted commands.")

JobName = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, see vwl jobs list.")]


@app.command("list")
def list_jobs(address: JobsAddress = None, as_json: Json = False) -> None:
    """List the submitted commands, the latest last.

    \b
    Examples:
      vwl jobs list
      vwl jobs list --address http://head:8265 --json
    """
    from vwl.cli.console import print_table, say
    from vwl.cluster.jobs import Jobs

    jobs = Jobs(address)
    found = jobs.all()
    if not found and not as_json:
        say(f"{jobs.url} has no submitted commands")
        return
    columns = ["job", "state", "submitted", "seconds", "exit_code", "command"]
    print_table(f"jobs of {jobs.url}", columns, [[getattr(job, column) for column in columns] for job in found], as_json)


@app.command()
def status(job: JobName, address: JobsAddress = None, as_json: Json = False) -> None:
    """Show one job; for the progress of its run see vwl status.

    \b
    Examples:
      vwl jobs status cams
      vwl jobs status cams --address http://head:8265 --json
    """
    from dataclasses import asdict

    from vwl.cli.console import print_json, print_table
    from vwl.cluster.jobs import Jobs

    found = asdict(Jobs(address).job(job))
    if as_json:
        print_json(found)
    else:
        print_table(job, ["", "value"], [[key, value] for key, value in found.items()])


@app.command()
def logs(
    job: JobName,
    address: JobsAddress = None,
    follow_it: Annotated[
        bool, typer.Option("--follow", metavar="", help="Follow the output until the job ends, and end with its exit code.")
    ] = False,
) -> None:
    """Print the output of a job.

    \b
    Examples:
      vwl jobs logs cams
      vwl jobs logs cams --follow --address http://head:8265
    """
    from vwl.cli.console import tables
    from vwl.cluster.jobs import Jobs

    jobs = Jobs(address)
    if follow_it:
        follow(jobs, job)
    else:
        tables.file.write(jobs.logs(job))


@app.command()
def stop(job: JobName, address: JobsAddress = None) -> None:
    """Stop a job, which saves its work before it ends.

    \b
    Examples:
      vwl jobs stop cams
      vwl jobs stop cams --address http://head:8265
    """
    from vwl.cli.console import say
    from vwl.cluster.jobs import Jobs

    jobs = Jobs(address)
    say(f"{job} {jobs.stop(job).state}; resume it with: vwl jobs resume {job} --address {jobs.url}")


@app.command()
def resume(job: JobName, address: JobsAddress = None, wait: Wait = True) -> None:
    """Submit the command of a stopped or failed job again; its run continues where it stopped.

    \b
    Examples:
      vwl jobs resume cams
      vwl jobs resume cams --detach --address http://head:8265
    """
    from vwl.cli.submit import report_submitted
    from vwl.cluster.jobs import Jobs

    jobs = Jobs(address)
    report_submitted(jobs, jobs.resume(job), wait)
