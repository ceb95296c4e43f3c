"""AdvCAM (Lee, Kim and Yoon, CVPR 2021): class activation maps summed while the image is changed to look more like its class.

Each step adds to the image the gradient of: the class's logit, minus the logits of all other classes, minus `regularisation` times the
change of the class's map, in absolute value, where the map is high already. Other regions of the object thus become active, while the
first one keeps its score. Pure functions; `vwl.inference.cam` runs them at each scale for each label of an image.

A class's logit is its map, pooled as the classifier pools features: the mean, as published, or hybrid pooling. Visual words have no part
in it, because their heads have none in the maps (Eq. 1). The published code takes the map from Grad-CAM; with a linear head that is Eq. 1
times a factor (`gradcam_factor`), so that no second backward pass is needed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vwl.config.advcam import AdvCam

Activate = Callable[[Tensor], Tensor]
"""From images (B, 3, H, W) to the maps (B, C, h, w) of all classes with ReLU (Eq. 1), differentiable."""
Pool = Callable[[Tensor], Tensor]
"""From maps (B, C, h, w) to logits (B, C)."""
Fuse = Callable[[Tensor], Tensor]
"""From a class's maps (B, h, w) of an image and its flip to one map (h, w)."""
_SMALL_SCALE = 0.5


def steps_at(scale: float, settings: AdvCam) -> int:
    """Return how many maps are summed at a scale: above 0.5 `steps`, else half of them if there are more than 10, and at most 5 if not."""
    if scale > _SMALL_SCALE:
        return settings.steps
    return settings.steps // 2 if settings.steps > 10 else min(settings.steps, 5)


def climbed_map(
    activate: Activate, pool: Pool, fuse: Fuse, images: Tensor, label: int, positive: int, settings: AdvCam, steps: int
) -> Tensor:
    """Return the sum (h, w) of a class's maps over the steps, of which the first is of the images as they are.

    A class that is active nowhere has no gradient: the images stay, and its map is zero.

    Args:
        activate, pool, fuse: the classifier.
        images: (B, 3, H, W), normalised: an image, or an image and its horizontal flip.
        label: position of the class among the maps.
        positive: number of positive weights of the class in the linear head (`gradcam_factor`).
        settings: step size, weight and region of the penalty.
        steps: number of maps, 1 or more.
    """
    initial: Tensor | None = None
    total: Tensor | None = None
    for step in range(1, steps + 1):
        is_last = step == steps
        with torch.set_grad_enabled(not is_last):
            images = images.detach().requires_grad_(not is_last)
            maps = activate(images)
            region = fuse(maps[:, label] * gradcam_factor(maps[:, label].detach(), positive))
            current = region.detach()
            initial = current if initial is None else initial
            total = current if total is None else total + current
            if not is_last:
                gain = objective(pool(maps), label, region, initial, settings)
                (gradient,) = torch.autograd.grad(gain, images)
                images = climb(images.detach(), gradient, settings.step_size)
    assert total is not None
    return total


def gradcam_factor(maps: Tensor, positive: int) -> Tensor:
    """Return the factors (B, 1, 1) between a class's maps of Eq. 1 (B, h, w) and the published Grad-CAM of them.

    The published weight of a channel is the sum of the gradients of the class's summed map over an image's positions, divided by the number
    of positive gradients in the batch: the head's weight, times the image's share of active positions, divided by `positive`.
    """
    active = (maps > 0).sum(dim=(1, 2), keepdim=True)
    return active.to(maps.dtype) / (active.sum() * positive + 1e-12)


def objective(logits: Tensor, label: int, region: Tensor, initial: Tensor, settings: AdvCam) -> Tensor:
    """Return what a step increases, a scalar: 2 logit of the class - all logits - regularisation * sum of |region - initial| where high.

    Args:
        logits: (B, C).
        label: position of the class.
        region, initial: the class's map (h, w) now and at the first step.
        settings: `regularisation`, and `region_threshold` of what is high.
    """
    now = region.detach()
    high = (now > settings.region_threshold * now.max()).to(region.dtype)
    return 2 * logits[:, label].sum() - logits.sum() - settings.regularisation * ((region - initial).abs() * high).sum()


def climb(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    """Return the images a step along the gradient, divided by its largest absolute value, within the images' own range of values."""
    changed = images + step_size * gradient / (gradient.abs().max() + 1e-12)
    return changed.clamp(images.min(), images.max())
