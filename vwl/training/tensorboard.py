"""TensorBoard event files: the lines of metrics.jsonl as scalars, written at each checkpoint to any file system."""

import struct
import time
from typing import Any

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from vwl.storage.folder import Folder


class TensorBoard:
    """The event file of one start of a training. It holds steps up to the last checkpoint, so that a resumed training repeats none."""

    def __init__(self, folder: Folder, first_step: int) -> None:
        """Prepare a new file in `folder`/tensorboard; nothing is written yet."""
        self._folder = folder / "tensorboard"
        self._name = f"events.out.tfevents.{int(time.time()):010d}.step{first_step:08d}"
        self._records = _record(Event(wall_time=time.time(), step=first_step, file_version="brain.Event:2"))

    def add(self, line: dict[str, Any]) -> None:
        """Add a line of metrics: every number in it becomes a scalar at its `step`."""
        values = [
            Summary.Value(tag=name.replace("loss_", "loss/"), simple_value=float(value))
            for name, value in line.items()
            if name not in {"step", "num_steps"}
        ]
        self._records += _record(Event(wall_time=time.time(), step=line["step"], summary=Summary(value=values)))

    def save(self) -> None:
        """Write all lines added so far, atomically.

        Raises:
            VwlError: the folder cannot be written.
        """
        self._folder.write(self._name, self._records)


def _record(event: Event) -> bytes:
    """Return an event framed as a TFRecord: length, its checksum, data, its checksum."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
