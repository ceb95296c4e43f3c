"""Digests of files, and JSON files that hold a checksum of their own content: damage that leaves valid JSON is noticed, too."""

import hashlib
import json
from typing import Any

from vwl.errors import Damaged
from vwl.storage.folder import Folder

_KEY = "checksum"


def digest(data: bytes) -> str:
    """Return 16 hex digits of a hash of the data."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def write_checked(folder: Folder, name: str, value: dict[str, Any]) -> None:
    """Write a JSON object with its checksum, atomically; equal objects give equal bytes."""
    folder.write(name, checked_bytes(value))


def checked_bytes(value: dict[str, Any]) -> bytes:
    """Return the content of the file that `write_checked` writes."""
    return (json.dumps({**value, _KEY: _checksum(value)}, indent=2) + "\n").encode()


def read_checked(folder: Folder, name: str, required: bool = False) -> dict[str, Any]:
    """Return a JSON object without its checksum; files without one, of earlier versions, are accepted unless it is `required`.

    Raises:
        Damaged: the file is not a JSON object, or its content was changed.
        VwlError: it does not exist or cannot be read.
    """
    return parse_checked(folder.read(name), folder.uri_of(name), required)


def parse_checked(data: bytes, source: str, required: bool = False) -> dict[str, Any]:
    """Return the object in the content of a file that `write_checked` has written; `source` is its name in messages.

    Raises:
        Damaged: as `read_checked`.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise Damaged(f"{source} is damaged: it is not JSON") from None
    if not isinstance(value, dict):
        raise Damaged(f"{source} is damaged: it is no JSON object")
    checksum = value.pop(_KEY, None)
    if (required or checksum is not None) and checksum != _checksum(value):
        raise Damaged(f"{source} is damaged: its content does not fit its checksum")
    return value


def _checksum(value: dict[str, Any]) -> str:
    return digest(json.dumps(value, sort_keys=True).encode())
