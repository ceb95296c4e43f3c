"""What a reproduction of a published result should score after each stage; read from YAML files for `vwl reproduce`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from vwl.config.named_files import names_in, read_named
from vwl.config.sections import Section, ordered
from vwl.config.strict import describe_errors
from vwl.config.yaml_text import parse_yaml
from vwl.errors import VwlError

_PACKAGE = "vwl.config.expectations"
Percent = Annotated[float, Field(ge=0, le=100)]


class ExpectedScore(Section):
    """The mIoU of a stage on a split."""

    stage: Literal["cam", "crf", "walk", "segment"]
    """The stage."""
    split: Literal["train", "val"]
    """The split."""
    band: Annotated[tuple[Percent, Percent], AfterValidator(ordered)]
    """Lowest and highest mIoU that is as expected, percent."""
    paper: Percent | None = None
    """mIoU of the publication, percent."""
    source: str = ""
    """Where the publication has it."""

    def verdict(self, miou: float) -> Literal["as expected", "outside the band", "far outside the band"]:
        """Compare an mIoU in percent; far outside is farther from the band than the band is wide."""
        low, high = self.band
        distance = max(low - miou, miou - high)
        return "as expected" if distance <= 0 else "outside the band" if distance <= high - low else "far outside the band"


class Expectation(Section):
    """A published result and what its reproduction should score."""

    title: str
    """What is reproduced."""
    data: Literal["voc", "coco"]
    """How the data set is indexed."""
    recipe: str
    """Recipe of the reproduction."""
    images: dict[Literal["train", "aug", "val", "test"], int]
    """Number of images of each split."""
    scores: Annotated[tuple[ExpectedScore, ...], Field(min_length=1)]
    """The expected scores, in the order of the stages."""
    classes: tuple[str, ...] | None = None
    """Classes that the mean is over, as `evaluation.classes` of a recipe."""


def load_expectation(name_or_path: str) -> Expectation:
    """Read an expectation: a built-in one by name, or a YAML file.

    Raises:
        VwlError: there is none, or it is not valid; the message names the key.
    """
    text = read_named(name_or_path, "expectation", _PACKAGE, f"built in: {', '.join(names_in(_PACKAGE))}")
    values = parse_yaml(text, f"expectation {name_or_path}")
    try:
        return Expectation.model_validate(values)
    except ValidationError as error:
        raise VwlError(f"expectation {name_or_path}: {describe_errors(error, Expectation)}") from None
