"""Which stage of a recipe trains the network of the class activation maps, and how many images each training's step has."""

from typing import Literal

from vwl.config.recipe import Recipe


def classifier_stage(recipe: Recipe) -> Literal["classifier", "recam"]:
    """Return the stage whose weights give the class activation maps of Eq. 1."""
    return "recam" if recipe.recam.epochs else "classifier"


def cam_network(recipe: Recipe) -> Literal["classifier", "recam", "lpcam"]:
    """Return the stage whose network makes the maps of the CAM stage."""
    return "lpcam" if recipe.cam.method == "lpcam" else classifier_stage(recipe)


def batch_size(recipe: Recipe, stage: str) -> int:
    """Return the images per step of a training, which its workers divide.

    LPCAM has no steps; it takes the workers of the classifier's training.
    """
    section = getattr(recipe, "classifier" if stage == "lpcam" else stage)
    return int(section.batch_size)
