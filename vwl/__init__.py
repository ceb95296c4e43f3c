"""Weakly-supervised semantic segmentation with visual words and hybrid pooling.

The names of `__all__` are the public API and are imported at first use, so that `import vwl` loads neither torch nor Ray. Everything else
in this package may change between versions.
"""

import logging
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vwl.api.data import prepare_any, prepare_coco, prepare_folder, prepare_scenes, prepare_voc
    from vwl.api.evaluation import StageEvaluation, evaluate
    from vwl.api.events import Metrics, RunProgress
    from vwl.api.results import Masks, RunResult
    from vwl.api.run import open_run, run
    from vwl.api.tune import TrialProgress, TrialResources, TuneResult, open_tune, resume_tune, tune
    from vwl.config.files import load_recipe
    from vwl.config.layout import Layout
    from vwl.config.recipe import Recipe
    from vwl.data.index import Index, read_index, write_index
    from vwl.errors import Interrupted, VwlError
    from vwl.model_file.models import Classifier, SegmentationModel
    from vwl.model_file.prediction import ActivationMaps, Prediction
    from vwl.workflow.model_export import load_model

    __version__: str

__all__ = [
    "ActivationMaps",
    "Classifier",
    "Index",
    "Interrupted",
    "Layout",
    "Masks",
    "Metrics",
    "Prediction",
    "Recipe",
    "RunProgress",
    "RunResult",
    "SegmentationModel",
    "StageEvaluation",
    "TrialProgress",
    "TrialResources",
    "TuneResult",
    "VwlError",
    "__version__",
    "evaluate",
    "load_model",
    "load_recipe",
    "open_run",
    "open_tune",
    "prepare_any",
    "prepare_coco",
    "prepare_folder",
    "prepare_scenes",
    "prepare_voc",
    "read_index",
    "resume_tune",
    "run",
    "tune",
    "write_index",
]

_MODULES = {
    "ActivationMaps": "vwl.model_file.prediction",
    "Classifier": "vwl.model_file.models",
    "Index": "vwl.data.index",
    "Interrupted": "vwl.errors",
    "Layout": "vwl.config.layout",
    "Masks": "vwl.api.results",
    "Metrics": "vwl.api.events",
    "Prediction": "vwl.model_file.prediction",
    "Recipe": "vwl.config.recipe",
    "RunProgress": "vwl.api.events",
    "RunResult": "vwl.api.results",
    "SegmentationModel": "vwl.model_file.models",
    "StageEvaluation": "vwl.api.evaluation",
    "TrialProgress": "vwl.api.tune",
    "TrialResources": "vwl.api.tune",
    "TuneResult": "vwl.api.tune",
    "VwlError": "vwl.errors",
    "evaluate": "vwl.api.evaluation",
    "load_model": "vwl.workflow.model_export",
    "load_recipe": "vwl.config.files",
    "open_run": "vwl.api.run",
    "open_tune": "vwl.api.tune",
    "prepare_coco": "vwl.api.data",
    "prepare_any": "vwl.api.data",
    "prepare_folder": "vwl.api.data",
    "prepare_scenes": "vwl.api.data",
    "prepare_voc": "vwl.api.data",
    "read_index": "vwl.data.index",
    "resume_tune": "vwl.api.tune",
    "run": "vwl.api.run",
    "tune": "vwl.api.tune",
    "write_index": "vwl.data.index",
}

logging.getLogger("vwl").addHandler(logging.NullHandler())  # the program that imports vwl decides what is shown


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("vwl")
    if name not in _MODULES:
        raise AttributeError(f"module 'vwl' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
