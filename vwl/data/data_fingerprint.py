"""The fingerprint of a data set in two parts: what the stages up to the walk see of it, and the corrected masks that later stages see.

A run on an index with corrected masks therefore keeps the results of the earlier stages of a run without them.
"""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class DataFingerprint:
    """Hashes of the parts of a data set; as text `data`, or `data+training:held_out` where masks are corrected.

    Attributes:
        data: of images, labels, masks of the data set, splits and classes.
        training: of the corrected masks of training images; empty if there are none.
        held_out: of those of other images; empty if there are none.
    """

    data: str
    training: str = ""
    held_out: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the parts of a fingerprint's text."""
        data, _, corrections = text.partition("+")
        training, _, held_out = corrections.partition(":")
        return cls(data, training, held_out)

    def __str__(self) -> str:
        return f"{self.data}+{self.corrections}" if self.corrections else self.data

    @property
    def corrections(self) -> str:
        """The part of the corrected masks; empty if there are none."""
        return f"{self.training}:{self.held_out}" if self.training or self.held_out else ""
