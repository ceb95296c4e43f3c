"""Writes a segmentation model as an ONNX file: from pixels to class probabilities and mask in one graph, for programs without PyTorch.

The graph is that of `vwl.inference.segment.MaskPredictor.probabilities`: resizing, normalising, scales, horizontal flip and softmax. It has
no dense CRF, and does not cut large images into tiles.
"""

import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vwl.config.recipe import Segment
from vwl.errors import VwlError
from vwl.model_file.description import SegmentationDescription
from vwl.model_file.models import SegmentationModel
from vwl.models.deeplab import DeepLabV2
from vwl.storage.folder import split_path

OPSET = 18
"""Version of ONNX's operators; the first whose Resize can filter when it reduces, as Pillow does."""
INPUT = "image"
OUTPUTS = ("probabilities", "mask")
_RESIZE = "aten::_upsample_bicubic2d_aa"
_PREPROCESSING = (
    "none needed: the graph takes (N, H, W, 3) uint8 RGB, images of one size, upright, and resizes and normalises them itself; "
    "its masks are those of 'vwl predict --no-crf'"
)


class SegmentationGraph(nn.Module):
    """`MaskPredictor.probabilities` for a batch of images, in operations that can be traced with sizes that are not known yet."""

    def __init__(self, settings: Segment, network: DeepLabV2) -> None:
        """Take the network as it predicts (`vwl.models.folding.for_inference`)."""
        super().__init__()
        self.settings, self.network = settings, network
        self.register_buffer("mean", torch.tensor(network.backbone.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(network.backbone.std)[:, None, None])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities (N, C + 1, H, W) float32 and masks (N, H, W) uint8 of images (N, H, W, 3) uint8."""
        pixels = image.permute(0, 3, 1, 2).float()
        # sides as a tensor in float64: Python's own arithmetic of `scaled_size`, and part of the traced graph
        size = torch.stack([torch.as_tensor(side) for side in pixels.shape[2:]]).double()
        base = 1.0 if self.settings.long_side is None else self.settings.long_side / size.max()
        total: Tensor | None = None
        for scale in self.settings.scales:
            height, width = torch.round(size * (base * scale)).clamp(min=1).long()
            # one side after the other, each rounded to 8 bits, as Pillow resizes
            wide = _resize(pixels, pixels.shape[2], width)
            logits = self._fused(_resize(wide, height, width))
            large = F.interpolate(logits, pixels.shape[2:], mode="bilinear", align_corners=False)
            probabilities = torch.softmax(large, dim=1)
            total = probabilities if total is None else total + probabilities
        assert total is not None
        total = total / len(self.settings.scales)
        return total, total.argmax(dim=1).to(torch.uint8)

    def _fused(self, view: Tensor) -> Tensor:
        """Return logits (N, C + 1, h, w) of images (N, 3, h, w), 0 to 255, averaged with those of their horizontal flips."""
        images = (view / 255 - self.mean) / self.std  # type: ignore[operator]
        if not self.settings.hflip:
            return self.network.fused(images)
        return (self.network.fused(images) + self.network.fused(images.flip(3)).flip(3)) / 2


def _resize(pixels: Tensor, height: Any, width: Any) -> Tensor:
    """Return images (N, 3, H, W) resized to (N, 3, height, width), bicubic and rounded to whole levels of 0 to 255."""
    return F.interpolate(pixels, (height, width), mode="bicubic", antialias=True).round().clamp(0, 255)


def onnx_content(model: SegmentationModel) -> bytes:
    """Return the content of an ONNX file of a segmentation model.

    Its input `image` is (N, H, W, 3) uint8 RGB, its outputs are `probabilities` (N, C + 1, H, W) float32 and `mask` (N, H, W) uint8; N, H
    and W are free. The metadata hold classes, palette, recipe, licence and the whole description.

    Raises:
        VwlError: the extra `onnx` is not installed.
    """
    onnx = _onnx()
    graph = SegmentationGraph(model.description.prediction, deepcopy(model.network).cpu()).eval()
    sink = io.BytesIO()
    sides = {0: "batch", 1: "height", 2: "width"}
    with _quiet(), _resize_operator():
        torch.onnx.export(
            graph,
            (torch.zeros(1, 96, 64, 3, dtype=torch.uint8),),
            sink,  # type: ignore[arg-type]
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_axes={INPUT: sides, "mask": sides, "probabilities": {0: "batch", 2: "height", 3: "width"}},
            opset_version=OPSET,
            # torch.export needs 45 s for a small network: at every layer it solves what the sizes are. Tracing needs less than one.
            dynamo=False,
        )
    written = onnx.load_model_from_string(sink.getvalue())
    written.producer_name, written.producer_version = "vwl", metadata.version("vwl")
    onnx.helper.set_model_props(written, _metadata(model.description))
    onnx.checker.check_model(written)
    content: bytes = written.SerializeToString(deterministic=True)
    return content


def write_onnx(path: str | Path, content: bytes) -> None:
    """Write the content of an ONNX file, atomically.

    Raises:
        VwlError: the path names no .onnx file, or it cannot be written.
    """
    require_onnx_name(path)
    folder, name = split_path(path)
    folder.write(name, content)


def require_onnx_name(path: str | Path) -> None:
    """Raise a `VwlError` if a path does not end in .onnx."""
    if not split_path(path)[1].endswith(".onnx"):
        raise VwlError(f"'{path}' is not the name of an ONNX file; choose one that ends in .onnx")


def _metadata(description: SegmentationDescription) -> dict[str, str]:
    """Return what the file says of its model: plain entries for other programs, and the description of the model file."""
    return {
        "classes": json.dumps(description.classes, ensure_ascii=False),
        "palette": json.dumps(description.palette),
        "recipe": description.recipe,
        "recipe_hash": description.recipe_hash,
        "seed": str(description.seed),
        "version": description.versions.get("vwl") or metadata.version("vwl"),
        "licence": description.licence,
        "preprocessing": _PREPROCESSING,
        "vwl": json.dumps(description.as_json(), ensure_ascii=False),
    }


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise VwlError("ONNX files need the package onnx, which is not installed; install it with: pip install 'vwl[onnx]'") from None
    return onnx


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter: that it is the older of two, and that Python values become constants (the choice for tiny images is one)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.onnx")
        yield


@contextmanager
def _resize_operator() -> Iterator[None]:
    """Give torch's exporter the operator that it lacks: bicubic resizing with a filter, Pillow's."""

    def resize(g: Any, pixels: Any, size: Any, align_corners: Any, *scales: Any) -> Any:
        batch = g.op("Slice", g.op("Shape", pixels), *(g.op("Constant", value_t=torch.tensor([number])) for number in (0, 2)))
        unused = g.op("Constant", value_t=torch.tensor([], dtype=torch.float32))
        return g.op(
            "Resize",
            pixels,
            unused,
            unused,
            g.op("Concat", batch, size, axis_i=0),
            mode_s="cubic",
            antialias_i=1,
            cubic_coeff_a_f=-0.5,
            exclude_outside_i=1,
            coordinate_transformation_mode_s="half_pixel",
        )

    torch.onnx.register_custom_op_symbolic(_RESIZE, resize, OPSET)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(_RESIZE, OPSET)  # type: ignore[attr-defined]
