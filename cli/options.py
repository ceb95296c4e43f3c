"""Options that several commands share, and the run and the layout made from them."""

import functools
import os
import re
import shlex
from collections.abc import Callable, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand
from typer.exceptions import TyperException

from vwl.config.node_labels import parse_selector
from vwl.errors import VwlError, shortened

if TYPE_CHECKING:
    from vwl.api.results import RunResult
    from vwl.config.layout import Layout
    from vwl.workflow.run_folder import Run
    from vwl.workflow.start import Start


def _key_values(pairs: list[str] | None) -> list[str] | None:
    """Refuse overrides that are no KEY=VALUE; which keys and values there are is the recipe's to say."""
    for pair in pairs or ():
        if "=" not in pair:
            raise typer.BadParameter(f"'{shortened(pair)}' is not of the form KEY=VALUE")
    return pairs


def _node_labels(ctx: Any, param: Any, pairs: list[str] | None) -> list[str] | None:
    """Refuse labels of nodes that have another form than KEY=VALUE."""
    try:
        parse_selector(pairs or (), param.opts[0])
    except VwlError as error:
        raise typer.BadParameter(str(error)) from None
    return pairs


RunFolder = Annotated[str, typer.Option("--run", metavar="FOLDER", help="Run folder: path or URI (s3://...).")]
SearchFolder = Annotated[str, typer.Option("--run", metavar="FOLDER", help="Folder of the searches: path or URI (s3://...).")]
Data = Annotated[
    str | None, typer.Option("--data", metavar="INDEX", help="Index table, made by vwl data prepare. Not needed for an existing run.")
]
RecipeName = Annotated[str | None, typer.Option("--recipe", metavar="RECIPE", help="Built-in recipe (vwl recipe list) or YAML file.")]
Override = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", metavar="KEY=VALUE", callback=_key_values, help="Change one key: section.key=value. Repeatable."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", metavar="", help="Replace the run's recipe; stages that depend on a changed key run again.")
]
Reuse = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Another run: its finished stages with the same settings and data are copied. A new run has its recipe and data by default.",
    ),
]
Workers = Annotated[str, typer.Option(help="Data-parallel training workers: N, or elastic: MIN:MAX.", metavar="N|MIN:MAX")]
CpusPerWorker = Annotated[
    int | None, typer.Option(metavar="N", help="CPU threads of each worker (default: this machine's CPUs / workers).", min=1)
]
GpusPerWorker = Annotated[int, typer.Option(metavar="N", help="GPUs of each worker, 0 or 1.", min=0, max=1)]
MicroBatch = Annotated[
    int | None, typer.Option(metavar="N", help="Images that a worker passes through the network at once (default: by device).", min=1)
]
PrecisionName = Literal["float32", "bf16"]
Precision = Annotated[PrecisionName, typer.Option(help="Of the arithmetic; bf16 is autocast.")]
LoaderWorkers = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Processes of each worker that read images; 0: two threads (default: 0; with a GPU its CPUs - 1).", min=0
    ),
]
SyncSteps = Annotated[
    int | None,
    typer.Option(metavar="N", help="Steps after which losses and stop requests are read (default: 1; with a GPU 10).", min=1),
]
Tf32Name = Literal["none", "convolutions", "all"]
Tf32 = Annotated[Tf32Name, typer.Option(help="Arithmetic of a GPU that uses TF32 in place of float32; all: matrix products too.")]
CudnnName = Literal["heuristics", "benchmark", "deterministic"]
Cudnn = Annotated[CudnnName, typer.Option(help="How cuDNN chooses its algorithms; benchmark times them first.")]
GradientReduceName = Literal["float32", "bf16"]
GradientReduce = Annotated[GradientReduceName, typer.Option(help="In what the workers' gradients are added up; bf16 halves the traffic.")]
Compile = Annotated[bool, typer.Option("--compile", metavar="", help="Compile the network with torch.compile.")]
CheckpointSteps = Annotated[int, typer.Option(metavar="N", help="Training steps between checkpoints.", min=1)]
TrainersOn = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        callback=_node_labels,
        help="Label of the cluster's nodes where training workers run (!VALUE: others). Repeatable.",
    ),
]
InferenceOn = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE", callback=_node_labels, help="Label of the cluster's nodes where inference runs (!VALUE: others). Repeatable."
    ),
]
StartFrom = Annotated[
    str | None, typer.Option(metavar="FILE", help="Start from the weights of a whole network (start_from in the recipe).")
]
Address = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Ray cluster (default: RAY_ADDRESS, else a local Ray is started).")]
BackendName = Literal["ray", "local"]
Backend = Annotated[BackendName, typer.Option(help="Where to compute; local: processes of this machine, without Ray.")]
Strict = Annotated[bool, typer.Option("--strict", metavar="", help="Stop at the first image that fails, instead of listing it.")]
CrfName = Literal["auto", "native", "torch", "pydensecrf"]
Crf = Annotated[
    CrfName | None, typer.Option("--crf", metavar="NAME", help="Implementation of the dense CRF: auto, native, torch or pydensecrf.")
]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON.")]


class WithRun(TyperCommand):
    """A command that names its run by --run; a run named without it is refused with the line that is right."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and explain a missing --run where the first argument looks like one."""
        try:
            return super().parse_args(ctx, list(args))
        except TyperException:
            if not args or args[0].startswith("-") or "--run" in args:
                raise
            raise typer.BadParameter(f"name the run with --run: {command_line(ctx)} --run {shlex.join(args)}", ctx=ctx) from None


def command_line(ctx: Any) -> str:
    """Return the words that call a command: `vwl`, whatever the process is named, and its names."""
    return " ".join(["vwl", *ctx.command_path.split()[1:]])


def plan_start(run: str, data: str | None, recipe: str | None, override: Sequence[str] | None, overwrite: bool = False) -> "Start":
    """Read what `vwl seeds import` starts, and say which recipe a new run takes where none was given."""
    from vwl.cli.console import say
    from vwl.workflow.start import Start

    start = Start.plan(run, data, recipe, override or (), overwrite)
    if start.is_new and recipe is None:
        say(f"recipe: {start.run.recipe.name}, the default (vwl recipe list shows others, --recipe takes one)")
    return start


def with_crf(sections: Sequence[str], crf: CrfName | None, override: Sequence[str] | None) -> Sequence[str] | None:
    """Return the overrides with those of `--crf` for these sections of the recipe."""
    if crf is None:
        return override
    return [*(override or ()), *(f"{section}.kernels.implementation={crf}" for section in sections)]


def layout(
    workers: Workers = "1",
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = 0,
    micro_batch: MicroBatch = None,
    precision: Precision = "float32",
    compile: Compile = False,
    checkpoint_steps: CheckpointSteps = 50,
    trainers_on: TrainersOn = None,
    inference_on: InferenceOn = None,
    loader_workers: LoaderWorkers = None,
    sync_steps: SyncSteps = None,
    tf32: Tf32 = "convolutions",
    cudnn: Cudnn = "heuristics",
    gradient_reduce: GradientReduce = "float32",
) -> "Layout":
    """Return the layout of trainings; its parameters are the options of every command that trains (`with_layout`)."""
    from vwl.config.layout import Layout

    smallest, largest = _worker_counts(workers)
    return Layout(
        workers=largest,
        cpus_per_worker=cpus_per_worker or max(1, (os.cpu_count() or 1) // largest),
        gpus_per_worker=gpus_per_worker,
        micro_batch=micro_batch,
        checkpoint_steps=checkpoint_steps,
        precision=precision,
        compile=compile,
        min_workers=None if smallest == largest else smallest,
        trainers_on=parse_selector(trainers_on or (), "--trainers-on"),
        inference_on=parse_selector(inference_on or (), "--inference-on"),
        loader_workers=loader_workers,
        sync_steps=sync_steps,
        tf32=tf32,
        cudnn=cudnn,
        gradient_reduce=gradient_reduce,
    )


def _worker_counts(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    smallest, largest = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= smallest <= largest:
        raise typer.BadParameter(f"'{text}' is neither a number of workers nor MIN:MAX, e.g. 2:4", param_hint="'--workers'")
    return smallest, largest


def with_layout(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's parameter `where` by the options of `layout`, and pass it the layout."""
    own, options = signature(command), signature(layout).parameters

    @functools.wraps(command)
    def called(**given: Any) -> None:
        where = layout(**{name: given.pop(name) for name in options if name in given})
        command(where=where, **given)

    parameters = [p for own_p in own.parameters.values() for p in (options.values() if own_p.name == "where" else (own_p,))]
    called.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    return called


def run_with_progress(run: str, where: "Layout", backend: BackendName, **arguments: Any) -> "RunResult":
    """Call `vwl.run` with progress on the terminal; `arguments` are others of it."""
    from vwl.api.run import run as run_stages
    from vwl.cli.run_view import run_view

    if backend == "local" and where.min_workers is not None:
        raise typer.BadParameter("elastic workers need --backend ray; give one number of workers", param_hint="'--workers'")
    with run_view() as view:
        return run_stages(out=run, workers=where, backend=backend, on_progress=view.update, on_metrics=view.scores, **arguments)


def end_with_failures(run: "Run", names: Sequence[str]) -> None:
    """If images failed in the named stages, say how many and end with exit code 1."""
    from vwl.cli.console import say
    from vwl.workflow.inputs import failures_to_report

    failed = {name: images for name in names if (images := failures_to_report(run, name))}
    if failed:
        number = len({image_id for images in failed.values() for image_id in images})
        where = ", ".join(f"{run.folder}/{name}/manifest.json" for name in failed)
        say(f"{number} image{'s' if number > 1 else ''} failed, see {where}")
        raise typer.Exit(1)


def print_stage_table(result: "RunResult", as_json: bool) -> None:
    """Print the table of scored stages.

    Raises:
        VwlError: nothing was scored; says why. With `as_json` an empty list is printed before.
    """
    from vwl.api.evaluation import evaluate
    from vwl.cli.console import print_json, print_table

    try:
        lines = [vars(line) for line in evaluate(result)]
    except VwlError:
        if as_json:
            print_json([])
        raise
    columns = list(lines[0])
    title = f"{result.run.folder} · recipe {result.recipe.name} · mIoU over {result.recipe.evaluation.described}"
    print_table(title, columns, [list(line.values()) for line in lines], as_json)
