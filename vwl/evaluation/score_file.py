"""The shape of a stage's `scores-<split>.json`, as `vwl.evaluation.scoring.Score.as_dict` writes it and reports and commands read it."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class ScoreFile(BaseModel):
    """The fields that are read again; `Score` explains them. Fractions are percentages, tables are by class name."""

    model_config = ConfigDict(strict=True)

    miou: float
    iou: dict[str, float]
    precision: dict[str, float]
    recall: dict[str, float]
    confusion: list[list[int]]
    curve: list[list[float]] | None = None


def is_score_file(content: Any, classes: Sequence[str]) -> bool:
    """Return whether a file's content is a score over these classes: all fields there, of their types and sizes."""
    try:
        score = ScoreFile.model_validate(content)
    except ValidationError:
        return False
    tables = (score.iou, score.precision, score.recall)
    return (
        all(set(table) <= set(classes) for table in tables)
        and [len(row) for row in score.confusion] == [len(classes)] * len(classes)
        and all(len(point) == 2 for point in score.curve or ())
    )
