"""`vwl export`: the result of a run in forms that other programs and people use."""

from typing import Annotated, Literal

import typer

from vwl.cli.export_masks import add_commands
from vwl.cli.options import Json, RunFolder, WithRun
from vwl.errors import VwlError

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


@app.command(cls=WithRun)
def onnx(
    run: Annotated[str | None, typer.Option("--run", metavar="FOLDER", help="Run folder: path or URI (s3://...).")] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="FILE", help="Model file (vwl export model) or OWNER/NAME on Hugging Face.")
    ] = None,
    out: Annotated[str, typer.Option(metavar="FILE", help="The .onnx file to write.")] = "model.onnx",
    as_json: Json = False,
) -> None:
    """Write a segmentation model as an ONNX file: pixels in, probabilities and mask out, without the dense CRF.

    \b
    Examples:
      vwl export onnx --run runs/voc --out voc.onnx
      vwl export onnx --model dogs.safetensors --out dogs.onnx
    """
    from vwl.cli.console import print_json, say
    from vwl.model_file.models import SegmentationModel
    from vwl.model_file.onnx_export import onnx_content, require_onnx_name, write_onnx
    from vwl.workflow.model_export import load_model, model_of_run
    from vwl.workflow.run_folder import Run

    if (run is None) == (model is None):
        raise typer.BadParameter("name the run with --run FOLDER, or a model file with --model FILE, and not both")
    require_onnx_name(out)
    loaded = load_model(model, device="cpu") if model is not None else model_of_run(Run.open(str(run)), device="cpu")
    if not isinstance(loaded, SegmentationModel):
        raise VwlError(f"{model} is a classifier; export the segmentation model with: vwl export onnx --run RUN")
    content = onnx_content(loaded)
    write_onnx(out, content)
    if as_json:
        print_json({"file": out, "bytes": len(content), **loaded.description.as_json()})
    say(f"segmentation model of {len(loaded.classes) - 1} classes written to {out} ({len(content) / 1e6:.1f} MB)")


add_commands(app)
