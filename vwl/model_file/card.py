"""The model card: a model's description as a text for people, the README.md of its repository on the Hugging Face Hub."""

from vwl.model_file.description import Description, ModelScore

_HEADER = """---
library_name: vwl
pipeline_tag: {tag}
license: other
license_name: see-the-card
tags:
- weakly-supervised
- model_hub_mixin
---
"""


def model_card(description: Description) -> str:
    """Return the model card (Markdown with the Hub's header) of a model: its use, scores, thresholds, training and limits."""
    is_segmentation = description.kind == "segmentation"
    objects = description.classes[1:]
    use = 'model.predict("image.jpg").save("masks")' if is_segmentation else f'model.cam("image.jpg", ["{objects[0]}"]).full_size()'
    lines = [
        _HEADER.format(tag="image-segmentation" if is_segmentation else "image-classification"),
        f"# {'Segmentation model' if is_segmentation else 'Classifier'} trained from image labels",
        "",
        "Trained by `vwl`, which implements *Weakly-Supervised Semantic Segmentation with Visual Words Learning and Hybrid Pooling*",
        f"(IJCV 2022), with the recipe `{description.recipe}`. The training used image labels and no masks drawn by people; the weights",
        "that it started from may have.",
        "",
        f"Classes ({len(objects)}, and the background): {', '.join(objects)}.",
        "",
        "```python",
        "import vwl",
        "",
        'model = vwl.load_model("model.safetensors")',
        use,
        "```",
        "",
        "## Scores",
        "",
        *_scores(description),
        "",
        "## Background thresholds",
        "",
        *_thresholds(description),
        "",
        "## Training",
        "",
        f"- recipe `{description.recipe}`, hash `{description.recipe_hash}`; seed {description.seed}: one training, no mean over seeds",
        f"- data set `{description.data_fingerprint}`, {_number(description.training_images)} training images",
        f"- versions: {', '.join(f'{name} {version}' for name, version in sorted(description.versions.items()) if version)}",
        "",
        "## Limits",
        "",
        "- It learned from image labels: borders are less exact, and what always occurs with a class (rails with trains, water with boats)",
        "  can be taken for it.",
        f"- It knows the classes above only, and gives every pixel one of them{'' if is_segmentation else '; maps need the right labels'}.",
        "- The scores hold for images like those of the data set, which each split is a part of.",
        f"- The scores are of one run with seed {description.seed}; another seed gives others.",
        "- Masks are the same bit for bit on the same device, with the same packages and number of threads, and nearly the same elsewhere.",
        "",
        "## Licence",
        "",
        description.licence,
        "",
    ]
    return "\n".join(lines)


def _scores(description: Description) -> list[str]:
    if not description.scores:
        return ["The run had no ground truth, so nothing was scored."]
    rows = [
        f"| `{score.stage}` | {score.split} | {score.images} | {_number(score.miou)} | {_number(score.threshold)} "
        f"| {score.threshold_chosen or '-'} | {_best(score)} |"
        for score in description.scores
    ]
    scored = description.scored_classes
    classes = "all classes in the ground truth" if scored is None else ", ".join(("background", *scored))
    return [
        f"mIoU in percent, over {classes}. The best threshold is chosen with ground truth, for comparison only.",
        "",
        "| stage | split | images | mIoU | threshold | how it was chosen | mIoU at the best threshold |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]


def _thresholds(description: Description) -> list[str]:
    if not description.thresholds:
        return ["None."]
    lines = []
    for threshold in description.thresholds:
        own = ", ".join(f"{name} {value:g}" for name, value in sorted(threshold.by_class.items()))
        lines.append(f"- `{threshold.stage}`: {threshold.threshold:g} ({threshold.chosen}){f'; by class: {own}' if own else ''}")
    return lines


def _best(score: ModelScore) -> str:
    if score.best_miou_with_ground_truth is None:
        return "-"
    return f"{score.best_miou_with_ground_truth:g} at {_number(score.best_threshold_with_ground_truth)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
