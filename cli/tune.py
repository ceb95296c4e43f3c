"""`vwl tune`: searches over recipes, as the paper's tables, on Ray Tune."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from vwl.cli.options import DEFAULT_RECIPE, Address, Data, Json, MicroBatch, Override, RecipeName, RunArgument
from vwl.errors import VwlError

if TYPE_CHECKING:
    from vwl.storage.folder import Folder
    from vwl.tuning.runner import Places
    from vwl.tuning.table import Table


class SpaceFirst(TyperGroup):
    """`vwl tune SPACE ...` is `vwl tune run SPACE ...`, and so is `vwl tune --resume RUN`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the command that is left out."""
        return list(super().parse_args(ctx, self._with_command(args)))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the command and the arguments that are left for it."""
        return super().resolve_command(ctx, self._with_command(args))

    def _with_command(self, args: list[str]) -> list[str]:
        if not args or args[0] in {*self.commands, "--help", "-h"}:
            return args
        return ["run", *args]


app = typer.Typer(
    cls=SpaceFirst,
    no_args_is_help=True,
    help="Compare recipes over seeds: the paper's tables, your own, or a joint search. vwl tune SPACE is vwl tune run SPACE.",
)


@app.command()
def run(
    space: Annotated[str | None, typer.Argument(help="Built-in space (vwl tune spaces) or YAML file. Not needed with --resume.")] = None,
    recipe: RecipeName = None,
    data: Data = None,
    run: Annotated[str | None, typer.Option("--run", help="Folder of the search, which may hold several: path or URI.")] = None,
    resume: Annotated[
        str | None,
        typer.Option(help="Go on with the searches in this folder, as they were started; --data says where their data set is now."),
    ] = None,
    override: Override = None,
    seeds: Annotated[
        int | None, typer.Option(help="Trainings of each setting (default: 1), with seeds from the recipe's on.", min=1)
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(help="Background threshold of each trial: auto (default) or auto-by-class (no ground truth), recipe, or a number."),
    ] = None,
    workers_per_trial: Annotated[int | None, typer.Option(help="Data-parallel training workers of a trial (default: 1).", min=1)] = None,
    cpus_per_worker: Annotated[int | None, typer.Option(help="CPU threads of each (default: 1).", min=1)] = None,
    gpus_per_worker: Annotated[int | None, typer.Option(help="GPUs of each, 0 (default) or 1.", min=0, max=1)] = None,
    micro_batch: MicroBatch = None,
    precision: Annotated[str | None, typer.Option(help="float32 (default), or bf16 (autocast).")] = None,
    checkpoint_steps: Annotated[int | None, typer.Option(help="Training steps between checkpoints (default: 25).", min=1)] = None,
    concurrent: Annotated[str | None, typer.Option(help="Trials at a time: a number, or auto (default): as many as fit.")] = None,
    address: Address = None,
) -> None:
    """Train and score every setting of a space with several seeds; what is finished in the folder is not done again.

    \b
    Examples:
      vwl tune run table5a --recipe small --data voc.parquet --run runs/tables --seeds 3
      vwl tune run --resume runs/tables
    """
    from vwl.cli.console import say
    from vwl.cli.trials import trials_view
    from vwl.storage.folder import Folder
    from vwl.storage.lock import exclusive_lock
    from vwl.tuning.report import tables, write_all
    from vwl.tuning.results import PARQUET, trial_rows
    from vwl.tuning.runner import PLACES, run_search
    from vwl.tuning.search import open_searches
    from vwl.tuning.trials import FAILED

    if (resume is None) == (run is None):
        raise VwlError("say either --run FOLDER with a SPACE, or --resume FOLDER")
    root = Folder(resume or run or "")
    asked: dict[str, Any] = {"workers": workers_per_trial, "cpus": cpus_per_worker, "gpus": gpus_per_worker, "micro_batch": micro_batch}
    asked |= {"precision": precision, "checkpoint_steps": checkpoint_steps, "concurrent": concurrent, "address": address}
    given = {key: value for key, value in asked.items() if value is not None}
    if resume is not None:
        what = {"--recipe": recipe, "--override": override, "--seeds": seeds, "--threshold": threshold}
        others = [option for option, value in what.items() if value]
        if others:
            raise VwlError(f"--resume goes on as it was started; for other {', '.join(others)} say the whole command, with --run {resume}")
        searches = open_searches(root, space, None if data is None else _place(data))
        known = root.read_json(PLACES) if root.exists(PLACES) else {}
    else:
        if space is None:
            raise VwlError("say which SPACE to search (vwl tune spaces), or --resume FOLDER")
        searches = [_planned(space, recipe, data, override, seeds or 1, threshold or "auto")]
        known = {}
    places = [_places(known.get(search.space.name, {}) | given) for search in searches]
    with exclusive_lock(root, "search"):
        for search, where in zip(searches, places, strict=True):
            with trials_view() as view:
                run_search(search, root, where, view, say, lambda: _keep(root))
        write_all(root)
    for search in searches:
        (found,) = tables(root, search.space.name)
        show(found)
    say(f"tables and plots: {root / 'tables'}, all trials: {root}/{PARQUET}")
    done = [found for search in searches for found in open_searches(root, search.space.name)]  # with what they have drawn
    if any(row["state"] == FAILED for row in trial_rows(root, done)):
        raise typer.Exit(1)


def _keep(root: "Folder") -> None:
    """Write the table of trials while others run, which do not end for it."""
    from vwl.cli.console import say
    from vwl.tuning.results import write_parquet

    try:
        write_parquet(root)
    except VwlError as error:
        say(f"the table of trials is not up to date: {error}")


_WORKERS: dict[str, Any] = {"workers": 1, "cpus": 1, "gpus": 0, "micro_batch": None, "precision": "float32", "checkpoint_steps": 25}
_DEFAULTS: dict[str, Any] = {**_WORKERS, "concurrent": "auto", "address": None}


def _places(given: dict[str, Any]) -> "Places":
    """Return where trials run."""
    from vwl.cli.options import layout
    from vwl.tuning.runner import Places

    how = _DEFAULTS | given
    concurrent = None if how["concurrent"] == "auto" else str(how["concurrent"])
    if concurrent is not None and not (concurrent.isdecimal() and int(concurrent) > 0):
        raise VwlError(f"--concurrent {concurrent} is neither auto nor a number of trials")
    where = layout(
        str(how["workers"]), how["cpus"], how["gpus"], how["micro_batch"], how["precision"], checkpoint_steps=how["checkpoint_steps"]
    )
    return Places(where, int(concurrent) if concurrent else None, how["address"], how)


def _place(data: str) -> str:
    """Return an index's path as it is stored."""
    from vwl.storage.folder import Folder

    return data if "://" in data else Folder(data).uri


def _planned(space: str, recipe: str | None, data: str | None, override: list[str] | None, seeds: int, threshold: str) -> Any:
    from vwl.config.files import load_recipe
    from vwl.data.index import read_index
    from vwl.tuning.search import Search
    from vwl.tuning.space import load_space

    loaded = load_space(space)
    if data is None:
        raise VwlError("say --data INDEX, a table made by vwl data prepare")
    where = _place(data)
    return Search.plan(
        loaded, load_recipe(recipe or loaded.recipe or DEFAULT_RECIPE, override or ()), read_index(where), where, seeds, threshold
    )


SpaceName = Annotated[str | None, typer.Option("--space", help="One of the folder's searches (default: all).")]


@app.command()
def table(
    run: RunArgument,
    space: SpaceName = None,
    form: Annotated[str, typer.Option("--format", help="terminal, markdown, latex, csv or json.")] = "terminal",
    out: Annotated[
        str | None, typer.Option(help="Write every format, the plots (PNG, SVG) and the trials (Parquet) into this folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show each search as a table like the paper's: ours over seeds, the paper's, differences and whether they are beyond noise.

    \b
    Examples:
      vwl tune table runs/tables
      vwl tune table runs/tables --space table4 --format latex
      vwl tune table runs/tables --json
    """
    from vwl.cli.console import print_json, say, tables
    from vwl.storage.folder import Folder
    from vwl.tuning import report
    from vwl.tuning.results import PARQUET, write_parquet
    from vwl.tuning.table import FORMATS

    if form not in {"terminal", *FORMATS}:
        raise VwlError(f"--format {form} is none of terminal, {', '.join(FORMATS)}")
    root = Folder(run)
    found = report.tables(root, space)
    write_parquet(root)
    if out is not None:
        report.write_tables(found, Folder(out))
        Folder(out).write(PARQUET, root.read(PARQUET))
    if as_json:
        print_json([json.loads(FORMATS["json"][1](one)) for one in found])
    for one in [] if as_json else found:
        if form == "terminal":
            show(one)
        else:
            tables.print(FORMATS[form][1](one), markup=False, soft_wrap=True, end="")
    if out is not None:
        say(f"tables, plots and {PARQUET} are in {out}")


def show(found: "Table") -> None:
    """Print a table and its notes on stdout."""
    from vwl.cli.console import print_table, tables
    from vwl.tuning.table import header, texts

    print_table(f"{found.name}: {found.title} · recipe {found.recipe}", header(found), texts(found))
    for note in found.notes:
        tables.print(note, markup=False, soft_wrap=True)


@app.command()
def best(
    run: RunArgument,
    space: SpaceName = None,
    split: Annotated[str, typer.Option(help="Whose mIoU decides: train or val.")] = "val",
    out: Annotated[str | None, typer.Option(help="Recipe file to write (default: best.yaml in the folder).")] = None,
    as_json: Json = False,
) -> None:
    """Write the recipe of the best trial: of the setting with the best mean over seeds, the best seed.

    \b
    Examples:
      vwl tune best runs/tables
      vwl tune best runs/tables --space table5a --split train --out k.yaml
    """
    from vwl.cli.console import print_table
    from vwl.config.files import to_yaml
    from vwl.storage.folder import Folder, split_path
    from vwl.tuning import report

    root = Folder(run)
    found = report.best(root, space, split)
    folder, name = (root, "best.yaml") if out is None else split_path(out)
    folder.write(name, to_yaml(found.recipe).encode())
    columns = ["space", "setting", "trial", f"{split} mIoU", "mean over seeds", "seeds", "recipe"]
    row = (found.space, found.setting, found.trial, found.score, found.mean, found.seeds, folder.uri_of(name))
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

    found = [load_space(name) for name in builtin_spaces()]
    rows = [
        [s.name, s.title, s.parameter_name if s.parameter else "", ", ".join(x.label for x in s.settings()) or f"{s.samples} samples"]
        for s in found
    ]
    print_table("search spaces", ["space", "title", "parameter", "settings"], rows, as_json)
