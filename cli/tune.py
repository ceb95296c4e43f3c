"""`vwl tune`: searches over recipes on Ray Tune, and their tables: the paper's or a user's own."""

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from vwl.cli.options import Address, Data, Json, MicroBatch, Override, PrecisionName, RecipeName, SearchFolder, WithRun
from vwl.errors import VwlError

if TYPE_CHECKING:
    from vwl.api.tune import TrialProgress
    from vwl.tuning.table import Table


class SpaceFirst(TyperGroup):
    """`vwl tune SPACE ...` is `vwl tune run SPACE ...`, and so is `vwl tune --resume RUN`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the command `run` where it is left out, and parse."""
        return list(super().parse_args(ctx, self._with_command(args)))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command's name, the command and its arguments."""
        return super().resolve_command(ctx, self._with_command(args))

    def _with_command(self, args: list[str]) -> list[str]:
        if not args or args[0] in {*self.commands, "--help", "-h"}:
            return args
        return ["run", *args]


app = typer.Typer(
    cls=SpaceFirst,
    no_args_is_help=True,
    help="Compare recipes over seeds: the paper's tables, your own, or a joint search. vwl tune SPACE is short for vwl tune run SPACE.",
)


def _threshold(given: str | None) -> str | None:
    """Refuse a threshold that is neither a rule nor a number from 0 to 1."""
    with suppress(ValueError):
        if given in {None, "auto", "auto-by-class", "recipe"} or 0 <= float(str(given)) <= 1:
            return given
    raise typer.BadParameter(f"'{given}' is neither auto, auto-by-class, recipe nor a number from 0 to 1")


@app.command()
def run(
    space: Annotated[
        str | None, typer.Argument(metavar="SPACE", help="Built-in space (vwl tune spaces) or YAML file. Not needed with --resume.")
    ] = None,
    recipe: RecipeName = None,
    data: Data = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="FOLDER", help="Folder of the search (path or URI); it can hold several.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Resume the searches in this folder with the options they were started with; --data gives a new path of their data set.",
        ),
    ] = None,
    override: Override = None,
    seeds: Annotated[
        int | None, typer.Option(metavar="N", help="Seeds of each setting (default: 1), counted up from the recipe's seed.", min=1)
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="RULE|NUMBER",
            callback=_threshold,
            help="Background threshold: auto (default) or auto-by-class, both without ground truth, recipe (the recipe's), or a number.",
        ),
    ] = None,
    workers_per_trial: Annotated[
        int | None, typer.Option(metavar="N", help="Data-parallel training workers of a trial (default: 1).", min=1)
    ] = None,
    cpus_per_worker: Annotated[int | None, typer.Option(metavar="N", help="CPU threads of each worker (default: 1).", min=1)] = None,
    gpus_per_worker: Annotated[int | None, typer.Option(metavar="N", help="GPUs of each worker: 0 (default) or 1.", min=0, max=1)] = None,
    micro_batch: MicroBatch = None,
    precision: Annotated[PrecisionName | None, typer.Option(help="Of the arithmetic (default: float32); bf16 is autocast.")] = None,
    checkpoint_steps: Annotated[
        int | None, typer.Option(metavar="N", help="Training steps between checkpoints (default: 25).", min=1)
    ] = None,
    concurrent: Annotated[str | None, typer.Option(metavar="N|auto", help="Trials at a time (default: auto, as many as fit).")] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option(
            "--import", metavar="NAME=FOLDER", help="One more row: maps of another method, as vwl seeds import reads them. Repeatable."
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Weights that rows of the space take by name; rows without them are left out. Repeatable."),
    ] = None,
    backend: Annotated[
        Literal["ray", "local"] | None,
        typer.Option(help="Where to compute (default: ray); local is one trial after the other in this process."),
    ] = None,
    address: Address = None,
) -> None:
    """Train and score every setting of a space with several seeds. Trials that the folder holds already are not run again.

    \b
    Examples:
      vwl tune run table5a --data voc.parquet --run runs/tables --seeds 3
      vwl tune run --resume runs/tables
      vwl tune run table1 --data voc.parquet --run runs/t1 --import IRN=irn/cam
      vwl tune run table2 --data voc.parquet --run runs/t2 --weights coco=coco.pth
    """
    from vwl.api.tune import TrialResources, resume_tune
    from vwl.api.tune import tune as run_tune
    from vwl.cli.console import say
    from vwl.cli.trials import trials_view
    from vwl.storage.folder import Folder
    from vwl.tuning.results import PARQUET

    if (resume is None) == (run is None):
        raise VwlError("give either a SPACE with --run FOLDER, or --resume FOLDER")
    fixed = {"--recipe": recipe, "--override": override, "--seeds": seeds, "--threshold": threshold}
    fixed |= {"--import": maps, "--weights": weights}
    if resume is not None and (changed := [option for option, value in fixed.items() if value]):
        raise VwlError(f"--resume cannot change {', '.join(changed)}; give the SPACE with all options and --run {resume} instead")
    if resume is None and space is None:
        raise VwlError("give a SPACE (vwl tune spaces lists them), or --resume FOLDER")
    if resume is None and data is None:
        raise VwlError("give --data INDEX, the table that vwl data prepare writes")
    resources = TrialResources(
        workers_per_trial, cpus_per_worker, gpus_per_worker, micro_batch, precision, checkpoint_steps, _concurrent(concurrent), backend
    )
    common: dict[str, Any] = {"resources": resources, "address": address}
    with trials_view() as view:

        def show_trial(trial: "TrialProgress") -> None:
            view.show_trial(trial.trial, trial.state, trial.text, trial.done, trial.total)

        if resume is not None:
            result = resume_tune(resume, space, data, **common, on_trial=show_trial)
        else:
            plan: dict[str, Any] = {"overrides": override or (), "seeds": seeds or 1, "threshold": threshold or "auto"}
            plan |= {"maps": _pairs("--import", maps), "weights": _pairs("--weights", weights)}
            result = run_tune(str(space), str(data), recipe, run, **plan, **common, on_trial=show_trial)
    for finished in result.tables:
        show(finished)
    root = Folder(result.folder)
    say(f"tables and plots: {root / 'tables'}, all trials: {root}/{PARQUET}")
    if result.failed:
        raise typer.Exit(1)


def _concurrent(given: str | None) -> int | Literal["auto"] | None:
    """Refuse a number of trials that is none."""
    if given is None:
        return None
    if given == "auto":
        return "auto"
    if not (given.isdecimal() and int(given) > 0):
        raise typer.BadParameter(f"'{given}' is neither auto nor a positive number of trials", param_hint="'--concurrent'")
    return int(given)


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """Return the paths of NAME=PATH by name."""
    found: dict[str, str] = {}
    for text in given or ():
        name, equals, path = text.partition("=")
        if not (name.strip() and equals and path):
            raise typer.BadParameter(f"'{text}' is not NAME=PATH", param_hint=f"'{option}'")
        if name.strip() in found:
            raise typer.BadParameter(f"'{name.strip()}' is given twice", param_hint=f"'{option}'")
        found[name.strip()] = path
    return found


SpaceName = Annotated[str | None, typer.Option("--space", metavar="SPACE", help="One of the folder's searches (default: all).")]


@app.command(cls=WithRun)
def table(
    run: SearchFolder,
    space: SpaceName = None,
    form: Annotated[
        Literal["terminal", "markdown", "latex", "csv", "json"], typer.Option("--format", help="Format of the tables.")
    ] = "terminal",
    out: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Write every format, the plots (PNG, SVG) and the trials (Parquet) into this folder."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show each search as a table like the paper's: mIoU over seeds, the paper's mIoU, and differences with their significance.

    \b
    Examples:
      vwl tune table --run runs/tables
      vwl tune table --run runs/tables --space table4 --format latex
      vwl tune table --run runs/tables --json
    """
    from vwl.api.tune import open_tune
    from vwl.cli.console import print_json, say, tables
    from vwl.tuning.formats import FORMATS
    from vwl.tuning.results import PARQUET

    result = open_tune(run, space)
    searched = result.tables
    result.update()
    if out is not None:
        result.write(out)
    if as_json:
        print_json([json.loads(FORMATS["json"].write(one)) for one in searched])
    for one in [] if as_json else searched:
        if form == "terminal":
            show(one)
        else:
            tables.print(FORMATS[form].write(one), markup=False, soft_wrap=True, end="")
    if out is not None:
        say(f"tables, plots and {PARQUET} are in {out}")


def show(shown: "Table") -> None:
    """Print a table and its notes on stdout."""
    from vwl.cli.console import print_table, tables
    from vwl.tuning.formats import header, texts

    print_table(f"{shown.name}: {shown.title} · recipe {shown.recipe}", header(shown), texts(shown))
    for note in shown.notes:
        tables.print(note, markup=False, soft_wrap=True)


@app.command(cls=WithRun)
def best(
    run: SearchFolder,
    space: SpaceName = None,
    split: Annotated[Literal["train", "val"], typer.Option(help="Split whose mIoU is compared.")] = "val",
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Recipe file to write (default: best.yaml in the folder).")] = None,
    as_json: Json = False,
) -> None:
    """Write the recipe of the best trial: the best seed of the setting with the best mean over seeds.

    \b
    Examples:
      vwl tune best --run runs/tables
      vwl tune best --run runs/tables --space table5a --split train --out k.yaml
    """
    from vwl.api.tune import open_tune
    from vwl.cli.console import print_table
    from vwl.config.files import to_yaml
    from vwl.storage.folder import Folder, split_path

    trial = open_tune(run, space).best(split)
    folder, name = (Folder(run), "best.yaml") if out is None else split_path(out)
    folder.write(name, to_yaml(trial.recipe).encode())
    columns = ["space", "setting", "trial", f"{split} mIoU", "mean over seeds", "seeds", "recipe"]
    row = (trial.space, trial.setting, trial.trial, trial.score, trial.mean, trial.seeds, folder.uri_of(name))
    print_table("best trial", columns, [row], as_json)


@app.command()
def spaces(as_json: Json = False) -> None:
    """List the spaces that come with the package.

    \b
    Examples:
      vwl tune spaces
      vwl tune spaces --json
    """
    from vwl.cli.console import print_table
    from vwl.tuning.space import builtin_spaces, load_space

    builtin = [load_space(name) for name in builtin_spaces()]
    rows = [
        [
            s.name,
            s.title,
            s.parameter_name if s.parameter else "",
            ", ".join(dict.fromkeys(x.label for x in s.settings())) or f"{s.samples} samples",
        ]
        for s in builtin
    ]
    print_table("search spaces", ["space", "title", "parameter", "settings"], rows, as_json)
