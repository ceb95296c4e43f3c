"""Options that several commands share, and the run and the layout made from them."""

import functools
import os
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vwl.errors import VwlError

if TYPE_CHECKING:
    from vwl.config.layout import Layout
    from vwl.workflow.run_folder import Run

RunFolder = Annotated[str, typer.Option("--run", help="Run folder: path or URI (s3://...).")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run folder: path or URI (s3://...).")]
Data = Annotated[str | None, typer.Option("--data", help="Index table, made by vwl data prepare. Not needed for an existing run.")]
RecipeName = Annotated[str | None, typer.Option("--recipe", help="Built-in recipe (vwl recipe list) or YAML file.")]
Override = Annotated[list[str] | None, typer.Option("-o", "--override", help="Change one key: section.key=value. Repeatable.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run's recipe; stages that depend on a changed key run again.")]
Workers = Annotated[str, typer.Option(help="Data-parallel training workers: N, or elastic: MIN:MAX.", metavar="N|N:M")]
CpusPerWorker = Annotated[int | None, typer.Option(help="CPU threads of each worker (default: this machine's CPUs / workers).", min=1)]
GpusPerWorker = Annotated[int, typer.Option(help="GPUs of each worker, 0 or 1.", min=0, max=1)]
MicroBatch = Annotated[
    int | None, typer.Option(help="Images that a worker passes through the network at once (default: by device).", min=1)
]
Precision = Annotated[str, typer.Option(help="float32, or bf16 (autocast).")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the network with torch.compile.")]
CheckpointSteps = Annotated[int, typer.Option(help="Training steps between checkpoints.", min=1)]
StartFrom = Annotated[str | None, typer.Option(help="Start from the weights of a whole network (start_from in the recipe).")]
Address = Annotated[str | None, typer.Option(help="Ray cluster (default: RAY_ADDRESS, else a local Ray is started).")]
Backend = Annotated[str, typer.Option(help="ray, or local: in this process, without Ray.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first image that fails, instead of listing it.")]
Crf = Annotated[
    str | None,
    typer.Option("--crf", help="Implementation of the dense CRF: auto, native, torch or pydensecrf (kernels.implementation)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

DEFAULT_RECIPE = "paper-voc"


def open_run(run: str, data: str | None, recipe: str | None, override: Sequence[str] | None, overwrite: bool = False) -> "Run":
    """Open a run folder: an existing one, or a new one made from data and recipe.

    The recipe of an existing run is replaced only while no other command works in the folder.
    """
    from vwl.config.files import load_recipe, overridden
    from vwl.storage.folder import Folder
    from vwl.storage.lock import exclusive_lock
    from vwl.workflow.run_folder import Run
    from vwl.workflow.stages import STAGES

    wanted = None if data is None and recipe is None else load_recipe(recipe or DEFAULT_RECIPE, override or ())
    if data is None:
        existing = Run.open(run)
        if wanted is None and not override:
            return existing
        data = existing.index_path
        wanted = wanted or overridden(existing.recipe, override or ())
    assert wanted is not None
    with ExitStack() as held:
        for stage in STAGES if overwrite and Folder(run).exists("run.json") else ():
            held.enter_context(exclusive_lock(Folder(run), stage))
        return Run.start(run, wanted, data, overwrite)


def with_crf(sections: Sequence[str], crf: str | None, override: Sequence[str] | None) -> Sequence[str] | None:
    """Return the overrides with those of `--crf` for these sections of the recipe."""
    if crf is None:
        return override
    if crf not in {"auto", "native", "torch", "pydensecrf"}:
        raise VwlError(f"--crf {crf} is not one of auto, native, torch, pydensecrf")
    return [*(override or ()), *(f"{section}.kernels.implementation={crf}" for section in sections)]


def layout(
    workers: Workers = "1",
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = 0,
    micro_batch: MicroBatch = None,
    precision: Precision = "float32",
    compile: Compile = False,
    checkpoint_steps: CheckpointSteps = 50,
) -> "Layout":
    """Return the layout of trainings; its parameters are the options of every command that trains (`with_layout`)."""
    from vwl.config.layout import Layout

    smallest, largest = _worker_counts(workers)
    if precision not in {"float32", "bf16"}:
        raise VwlError(f"--precision {precision} is neither float32 nor bf16")
    return Layout(
        workers=largest,
        cpus_per_worker=cpus_per_worker or max(1, (os.cpu_count() or 1) // largest),
        gpus_per_worker=gpus_per_worker,
        micro_batch=micro_batch,
        checkpoint_steps=checkpoint_steps,
        precision=precision,
        compile=compile,
        min_workers=None if smallest == largest else smallest,
    )


def _worker_counts(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    smallest, largest = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= smallest <= largest:
        raise VwlError(f"--workers {text} is neither a number of workers nor MIN:MAX, e.g. 2:4")
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


def run_stages_with_progress(
    run: "Run",
    names: Sequence[str],
    where: "Layout",
    backend: str,
    address: str | None,
    fit_workers: bool = False,
    strict: bool = False,
    streamed: bool = False,
) -> None:
    """Run stages with progress on the terminal; `streamed` runs the stages after CAM while its maps are made."""
    from vwl.cli.console import progress_view, say
    from vwl.engine.base import Engine, open_engine
    from vwl.storage.lock import exclusive_lock
    from vwl.workflow.pipeline import run_stages
    from vwl.workflow.streaming import Streaming

    if backend not in {"ray", "local"}:
        raise VwlError(f"--backend {backend} is neither ray nor local")
    if backend == "local" and where.workers > 1:
        raise VwlError("--backend local is one process; leave --workers out, or use --backend ray")
    with ExitStack() as held:
        for name in names:
            held.enter_context(exclusive_lock(run.folder, name))
        engine, view = held.enter_context(open_engine(backend, address)), held.enter_context(progress_view())
        if streamed:
            engine = Engine(engine.trainer, Streaming(run, engine.shard_runner, strict))
        run_stages(run, names, engine, where, view.update, say, fit_workers, strict)


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


def print_stage_table(run: "Run", as_json: bool) -> None:
    """Print the table of scored stages."""
    from vwl.cli.console import print_json, print_table, say
    from vwl.workflow.scoring import score_table

    lines = [vars(line) for line in score_table(run)]
    if not lines:
        say("nothing was scored: no scored stage is done, or the index has no ground truth")
        if as_json:
            print_json([])
        return
    columns = list(lines[0])
    title = f"{run.folder} · recipe {run.recipe.name} · mIoU over {run.recipe.evaluation.described}"
    print_table(title, columns, [list(line.values()) for line in lines], as_json)
