"""A text file that is written piece by piece and appears whole: for files that grow with the data set."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pyarrow as pa

from vwl.storage.folder import Folder, storage_error

Write = Callable[[str], None]


@contextmanager
def text_stream(folder: Folder, name: str) -> Iterator[Write]:
    """Give a function that appends text (UTF-8) to a new file; the file gets its name when the block ends without an error.

    Args:
        folder: created if it does not exist.
        name: of a file directly in the folder.

    Raises:
        VwlError: it cannot be written; an earlier version of the file is kept.
    """
    base = folder.path.rstrip("/")
    temporary, what = f"{base}/.part-{uuid.uuid4().hex}-{name}", f"cannot write {folder.uri_of(name)}"
    advice = "; free space or choose another folder"
    try:
        if folder.filesystem.type_name != "s3":  # a bucket has no folders
            folder.filesystem.create_dir(base, recursive=True)
        stream = folder.filesystem.open_output_stream(temporary)
    except (OSError, pa.ArrowInvalid) as error:
        raise storage_error(what, error, advice) from None

    def write(text: str) -> None:
        try:
            stream.write(text.encode())
        except (OSError, pa.ArrowInvalid) as error:
            raise storage_error(what, error, advice) from None

    try:
        yield write
        try:
            stream.close()
            folder.filesystem.move(temporary, f"{base}/{name}")
        except (OSError, pa.ArrowInvalid) as error:
            raise storage_error(what, error, advice) from None
    except BaseException:
        with suppress(OSError, pa.ArrowInvalid):
            stream.close()
        with suppress(OSError, pa.ArrowInvalid):
            folder.filesystem.delete_file(temporary)
        raise
