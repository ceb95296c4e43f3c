"""Finds model files of the Hugging Face Hub."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError

from vwl.errors import VwlError

FILE_NAME = "model.safetensors"
"""Name of the model file in a folder of `save_pretrained` and in a repository of the Hub."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(text: str) -> bool:
    """Return whether a text can be the name of a model of the Hub, OWNER/NAME, and names no file or folder here."""
    return bool(_HUB_ID.fullmatch(text)) and not text.endswith(".safetensors") and not Path(text).exists()


def hub_file(model_id: str, **options: Any) -> str:
    """Download the model file of a model of the Hub, or find it in the cache, and return its path.

    Args:
        model_id: OWNER/NAME.
        options: of `huggingface_hub.hf_hub_download`.

    Raises:
        VwlError: there is no such model, or the Hub cannot be reached.
    """
    try:
        return str(hf_hub_download(model_id, FILE_NAME, **options))
    except (OSError, ValueError, HFValidationError, RuntimeError) as error:  # its errors, of the network too, derive from these
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise VwlError(f"there is no file, folder or run {model_id} here, and the Hub has no {FILE_NAME} of it: {reason}") from None
