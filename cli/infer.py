"""`vwl infer`: one inference stage of a run, or the first three together."""

from collections.abc import Sequence

import typer

from vwl.cli.options import (
    Address,
    Backend,
    BackendName,
    Crf,
    CrfName,
    Override,
    Overwrite,
    RunFolder,
    Strict,
    WithRun,
    end_with_failures,
    layout,
    plan_start,
    run_stages_with_progress,
    with_crf,
)

app = typer.Typer(no_args_is_help=True, help="Run one inference stage of a run; finished images are kept.")

_ABOUT = {
    "cam": "Class activation maps of the trained classifier (Eq. 1), as stride-4 score maps.",
    "crf": "Masks of the class activation maps refined by a dense CRF.",
    "irnet-labels": "Confident labels for the boundary network, from two thresholds and a dense CRF.",
    "walk": "The maps after a random walk along the learned boundaries.",
    "masks": "Pseudo masks: the walk's maps cut at the background threshold.",
    "segment": "Masks of the segmentation model, multi-scale with horizontal flip and CRF.",
    "stream": """CAM, CRF and IRNet's labels in one pass: CPUs refine finished maps while the network makes the others.

    The results are those of one stage after the other. It saves time where networks run on GPUs and leave CPUs free.
    The CRF takes part only if crf.background is a number: auto needs all maps.""",
}


_REFINED = ("crf", "irnet-labels", "segment", "stream")
"""Stages with a dense CRF."""


def _infer(
    name: str,
    run: str,
    override: Sequence[str] | None,
    address: str | None,
    backend: BackendName,
    overwrite: bool,
    strict: bool,
    crf: CrfName | None = None,
) -> None:
    from vwl.workflow.streaming import STREAMED

    stages = STREAMED if name == "stream" else (name,)
    refined = [stage.replace("-", "_") for stage in stages if stage in _REFINED]
    start = plan_start(run, None, None, with_crf(refined, crf, override), overwrite)
    opened = run_stages_with_progress(start, stages, layout(), backend, address, strict=strict, streamed=name == "stream")
    end_with_failures(opened, stages)


def _add(name: str) -> None:
    def infer(
        run: RunFolder,
        override: Override = None,
        address: Address = None,
        backend: Backend = "ray",
        overwrite: Overwrite = False,
        strict: Strict = False,
    ) -> None:
        _infer(name, run, override, address, backend, overwrite, strict)

    def infer_refined(
        run: RunFolder,
        override: Override = None,
        crf: Crf = None,
        address: Address = None,
        backend: Backend = "ray",
        overwrite: Overwrite = False,
        strict: Strict = False,
    ) -> None:
        _infer(name, run, override, address, backend, overwrite, strict, crf)

    command = infer_refined if name in _REFINED else infer
    command.__doc__ = f"""{_ABOUT[name]}

    \b
    Examples:
      vwl infer {name} --run runs/voc
      vwl infer {name} --run runs/voc --address auto
    """
    app.command(name, cls=WithRun)(command)


for _name in _ABOUT:
    _add(_name)
