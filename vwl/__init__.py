"""Weakly-supervised semantic segmentation with visual words and hybrid pooling.

The names of `__all__` are the public API and are imported at first use, so that `import vwl` loads neither torch nor Ray. Everything else
in this package may change between versions.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vwl.config.files import load_recipe
    from vwl.config.recipe import Recipe
    from vwl.data.index import read_index
    from vwl.errors import VwlError
    from vwl.model_file.models import Classifier, SegmentationModel
    from vwl.model_file.prediction import ActivationMaps, Prediction
    from vwl.workflow.model_export import load_model

    __version__: str

__all__ = [
    "ActivationMaps",
    "Classifier",
    "Prediction",
    "Recipe",
    "SegmentationModel",
    "VwlError",
    "__version__",
    "load_model",
    "load_recipe",
    "read_index",
]

_MODULES = {
    "ActivationMaps": "vwl.model_file.prediction",
    "Classifier": "vwl.model_file.models",
    "Prediction": "vwl.model_file.prediction",
    "Recipe": "vwl.config.recipe",
    "SegmentationModel": "vwl.model_file.models",
    "VwlError": "vwl.errors",
    "load_model": "vwl.workflow.model_export",
    "load_recipe": "vwl.config.files",
    "read_index": "vwl.data.index",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("vwl")
    if name not in _MODULES:
        raise AttributeError(f"module 'vwl' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
