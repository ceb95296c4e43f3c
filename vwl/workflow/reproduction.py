"""Compares the scores of a run with those that its publication leads to expect, and says what may be wrong; for `vwl reproduce`."""

from collections.abc import Iterator
from dataclasses import dataclass

from vwl.config.expectation import Expectation, ExpectedScore
from vwl.config.files import differences, load_recipe
from vwl.config.versions import versions
from vwl.data.index import Index
from vwl.data.summary import summarise
from vwl.errors import VwlError
from vwl.training.linear_probe import below_probe
from vwl.workflow.manifest import StageScore
from vwl.workflow.run_folder import Run

PAGE = "reproduction.md"
STEPS = (("classifier", "cam"), ("crf",), ("irnet-labels", "irnet", "walk"), ("masks", "segmenter", "segment"))
"""The stages in groups that end with a scored one."""
FAR = "far outside the band"
_FAILED_SHARE = 0.01
_THRESHOLD_LOSS = 2.0
_GENERAL = {
    "cam": (
        "the ImageNet weights are others than torchvision's IMAGENET1K_V1 (classifier.backbone.weights)",
        "the background threshold does not suit the maps: vwl evaluate --stage cam --curve shows the mIoU at every threshold",
        "the image labels of the index are not those of the masks: vwl data check",
    ),
    "crf": (
        "the dense CRF's background score does not suit the maps (crf.background)",
        "the maps are scaled otherwise: vwl evaluate --stage cam shows precision and recall of each class",
        "images and maps have another size than the masks: vwl data check",
    ),
    "walk": (
        "the labels for IRNet are too few or wrong: look at pictures/ and at irnet_labels.foreground_threshold and background_threshold",
        "IRNet's training did not converge: irnet/metrics.jsonl has its losses",
        "the background threshold of the walked maps does not suit them (walk.background_threshold)",
    ),
    "segment": (
        "the segmentation model starts from other weights (segmenter.backbone.weights; the paper's DeepLabV2 has Caffe's or COCO's)",
        "fewer iterations or a smaller batch than the recipe's (segmenter.iterations, segmenter.batch_size)",
        "the pseudo masks are worse than their score on train says: vwl evaluate --stage walk --split train",
    ),
}
"""General reasons by stage, the most likely first."""


@dataclass(frozen=True)
class Comparison:
    """A score beside what was expected.

    Attributes:
        stage, split: what was scored.
        paper: mIoU of the publication; none if it has none.
        miou: ours, percent.
        low, high: the expected band.
        verdict: of `ExpectedScore.verdict`.
        reasons: three reasons for a score outside the band, the most likely first.
    """

    stage: str
    split: str
    paper: float | None
    miou: float
    low: float
    high: float
    verdict: str
    reasons: tuple[str, ...] = ()


def check_images(index: Index, expected: Expectation) -> None:
    """Check the number of images of each split.

    Raises:
        VwlError: it is another one; the message says which split, and what to do.
    """
    found = {split.split: split.images for split in summarise(index)}
    for split, images in expected.images.items():
        if found.get(split, 0) != images:
            way_out = "; pass --sbd with SBD's dataset folder" if split == "aug" else "; is the data set complete?"
            raise VwlError(f"split {split} has {found.get(split, 0):,} images, and {expected.title} has {images:,}{way_out}")


def compare(run: Run, stage: str, expected: Expectation) -> list[Comparison]:
    """Return the comparisons of a finished stage with its expected scores.

    Raises:
        VwlError: the stage has no score on a split that has an expected one.
    """
    manifest = run.manifest(stage)
    scores = {score.split: score for score in manifest.scores} if manifest is not None else {}
    result = []
    for wanted in (wanted for wanted in expected.scores if wanted.stage == stage):
        if wanted.split not in scores:
            raise VwlError(f"{run.folder} has no score of {stage} on {wanted.split}, so it cannot be compared")
        score = scores[wanted.split]
        verdict = wanted.verdict(score.miou)
        reasons = () if verdict == "as expected" else tuple(_reasons(run, wanted, score, expected.recipe))[:3]
        result.append(Comparison(stage, wanted.split, wanted.paper, score.miou, *wanted.band, verdict, reasons))
    return result


def _reasons(run: Run, wanted: ExpectedScore, score: StageScore, recipe: str) -> Iterator[str]:
    """Yield reasons: first what the run's own records show, then what is generally likely at this stage."""
    changed = [line for line in differences(load_recipe(recipe), run.recipe) if not line.startswith(("name:", "seed:", "evaluation."))]
    if changed:
        yield f"the run's recipe is not {recipe}: {'; '.join(changed[:5])}" + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
    trained = run.manifest("classifier")
    if trained is not None:
        if line := below_probe(trained.training_scores or {}):
            yield f"the classifier's {line}"
        if not trained.pretrained:
            yield "the classifier started from random weights (classifier.backbone.weights)"
    for stage in ("cam", "crf", "irnet-labels", "walk", "masks", "segment"):
        manifest = run.manifest(stage)
        if manifest is not None and len(manifest.failed) > _FAILED_SHARE * (manifest.images or 1):
            yield f"{len(manifest.failed)} images failed in stage {stage}: {stage}/manifest.json says why"
    best = score.best_miou_with_ground_truth
    if best is not None and best - score.miou > _THRESHOLD_LOSS:
        yield (
            f"the background threshold {score.threshold} ({score.threshold_chosen}) does not suit the maps: ground truth would choose "
            f"{score.best_threshold_with_ground_truth}, with mIoU {best}"
        )
    yield from _GENERAL[wanted.stage]


def page(run: Run, expected: Expectation, comparisons: list[Comparison]) -> str:
    """Return a Markdown page on the reproduction: scores, what differs, settings, data and versions."""
    lines = [
        f"# {expected.title}",
        "",
        f"Recipe `{expected.recipe}`, seed {run.recipe.seed}, {run.index.source}; mIoU in percent over {run.recipe.evaluation.described}.",
        "",
        "| stage | split | paper | here | expected | verdict |",
        "|---|---|--:|--:|---|---|",
    ]
    for c in comparisons:
        paper = "-" if c.paper is None else f"{c.paper:.1f}"
        lines.append(f"| {c.stage} | {c.split} | {paper} | {c.miou:.1f} | {c.low:.1f} to {c.high:.1f} | {c.verdict} |")
    for c in comparisons:
        if c.reasons:
            lines += ["", f"`{c.stage}` on {c.split} is {c.verdict}. Likely reasons:", "", *(f"1. {reason}" for reason in c.reasons)]
    changed = [line for line in differences(load_recipe(expected.recipe), run.recipe) if not line.startswith("name:")]
    lines += ["", "Settings that differ from the recipe: " + ("; ".join(f"`{line}`" for line in changed) or "none") + "."]
    lines += [
        "Data: fingerprint `" + run.index.fingerprint() + "`, " + ", ".join(f"{s.split} {s.images:,}" for s in summarise(run.index)) + "."
    ]
    lines += ["Versions: " + ", ".join(f"{name} {version}" for name, version in versions().items() if version) + ".", ""]
    return "\n".join(lines)
