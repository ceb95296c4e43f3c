"""Finds model files of the Hugging Face Hub."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from vwl.errors import VwlError

FILE_NAME = "model.safetensors"
"""Name of the model file in a folder of `save_pretrained` and in a repository of the Hub."""
_HTTP_ERRORS = (base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
_ERRORS: tuple[type[Exception], ...] = (OSError, ValueError, HFValidationError, RuntimeError, *_HTTP_ERRORS)
"""What huggingface_hub raises, also where the Hub cannot be reached; its HTTP library is another one since version 2."""
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
    with hub_errors(f"there is no file, folder or run {model_id} here, and the Hub has no {FILE_NAME} of it"):
        return str(hf_hub_download(model_id, FILE_NAME, **options))


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn an error of huggingface_hub into a `VwlError` of one line: `what`, and the reason."""
    try:
        yield
    except _ERRORS as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise VwlError(f"{what}: {reason}") from None
