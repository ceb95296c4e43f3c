"""`vwl export`: the result of a run in forms that other programs and people use."""

from typing import Annotated, Literal

import typer

from vwl.cli.export_masks import add_commands
from vwl.cli.options import Json, RunFolder, WithRun

app = typer.Typer(no_args_is_help=True, help="Write the result of a run in other forms.")


@app.callback()
def export() -> None:
    """Write the result of a run in other forms."""


@app.command(cls=WithRun)
def model(
    run: RunFolder,
    out: Annotated[str, typer.Option(metavar="FILE", help="The .safetensors file to write.")] = "model.safetensors",
    stage: Annotated[Literal["segmenter", "classifier"], typer.Option(help="Which network.")] = "segmenter",
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="Line on the terms of use of the weights.")] = None,
    as_json: Json = False,
) -> None:
    """Write a trained network with its description as one file, for vwl predict --model and vwl.load_model.

    \b
    Examples:
      vwl export model --run runs/voc --out voc.safetensors
      vwl export model --run runs/voc --stage classifier --out tags.safetensors
    """
    from vwl.cli.console import print_json, say
    from vwl.model_file.content import encode_model, require_name, write_model
    from vwl.workflow.model_export import describe
    from vwl.workflow.run_folder import Run

    require_name(out)
    description, state = describe(Run.open(run), stage, licence)
    content = encode_model(description, state)
    write_model(out, content)
    if as_json:
        print_json(description.as_json())
    say(f"{description.kind} model of {len(description.classes) - 1} classes written to {out} ({len(content) / 1e6:.1f} MB)")


add_commands(app)
