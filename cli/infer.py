"""`vwl infer`: one inference stage of a run, or the first three together."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from vwl.cli.options import (
    Address,
    Backend,
    BackendName,
    Crf,
    CrfName,
    InferenceOn,
    Override,
    Overwrite,
    RunFolder,
    Strict,
    WithRun,
    end_with_failures,
    layout,
    run_with_progress,
    with_crf,
)

app = typer.Typer(no_args_is_help=True, help="Run one inference stage of a run; finished images are kept.")

_ABOUT = {
    "cam": "Class activation maps of the trained classifier (Eq. 1), as stride-4 score maps.",
    "crf": "Masks of the class activation maps refined by a dense CRF.",
    "irnet-labels": "Confident labels for the boundary network, from two thresholds and a dense CRF.",
    "psa-labels": "Confident labels for PSA's affinity network (refiner: psa), from two background scores and dense CRFs.",
    "walk": "The maps after a random walk along the learned boundaries, or by the learned affinities (refiner: psa).",
    "masks": "Pseudo masks: the refined maps cut at the background threshold.",
    "segment": """Masks of the segmentation model, multi-scale with horizontal flip and CRF.

    Without --split of the images with ground truth (of the training images where there is none) and of test.
    With it also of every image of a split; masks that are there are kept.""",
    "stream": """CAM, CRF and the refiner's labels in one pass: CPUs refine finished maps while the network makes the others.

    The results are those of one stage after the other. It saves time where networks run on GPUs and leave CPUs free.
    The CRF takes part only if crf.background is a number: auto needs all maps.""",
}


class SplitName(StrEnum):
    """A split of an index, or all of them."""

    TRAIN = "train"
    AUG = "aug"
    VAL = "val"
    TEST = "test"
    ALL = "all"


Split = Annotated[
    list[SplitName] | None,
    typer.Option("--split", help="Also segment every image of this split, with or without ground truth. Repeatable."),
]
_REFINED = ("crf", "irnet-labels", "psa-labels", "segment", "stream")
"""Stages with a dense CRF."""


def _infer(
    name: str,
    run: str,
    override: Sequence[str] | None,
    address: str | None,
    inference_on: list[str] | None,
    backend: BackendName,
    overwrite: bool,
    strict: bool,
    crf: CrfName | None = None,
    splits: Sequence[str] = (),
) -> None:
    from vwl.workflow.streaming import STREAMED, streamed

    is_stream = name == "stream"
    refined = [stage.replace("-", "_") for stage in (STREAMED if is_stream else (name,)) if stage in _REFINED]
    result = run_with_progress(
        run,
        layout(inference_on=inference_on),
        backend,
        overrides=with_crf(refined, crf, override) or (),
        stages=None if is_stream else [name],
        address=address,
        overwrite=overwrite,
        strict=strict,
        streamed=is_stream,
        splits=splits,
    )
    end_with_failures(result.run, streamed(result.recipe) if is_stream else [name])


def _add(name: str) -> None:
    def infer(
        run: RunFolder,
        override: Override = None,
        address: Address = None,
        inference_on: InferenceOn = None,
        backend: Backend = "ray",
        overwrite: Overwrite = False,
        strict: Strict = False,
    ) -> None:
        _infer(name, run, override, address, inference_on, backend, overwrite, strict)

    def infer_refined(
        run: RunFolder,
        override: Override = None,
        crf: Crf = None,
        address: Address = None,
        inference_on: InferenceOn = None,
        backend: Backend = "ray",
        overwrite: Overwrite = False,
        strict: Strict = False,
    ) -> None:
        _infer(name, run, override, address, inference_on, backend, overwrite, strict, crf)

    def infer_split(
        run: RunFolder,
        split: Split = None,
        override: Override = None,
        crf: Crf = None,
        address: Address = None,
        inference_on: InferenceOn = None,
        backend: Backend = "ray",
        overwrite: Overwrite = False,
        strict: Strict = False,
    ) -> None:
        _infer(name, run, override, address, inference_on, backend, overwrite, strict, crf, [each.value for each in split or ()])

    command = infer_split if name == "segment" else infer_refined if name in _REFINED else infer
    second = "--split val" if name == "segment" else "--address auto"
    command.__doc__ = f"""{_ABOUT[name]}

    \b
    Examples:
      vwl infer {name} --run runs/voc
      vwl infer {name} --run runs/voc {second}
    """
    app.command(name, cls=WithRun)(command)


for _name in _ABOUT:
    _add(_name)
