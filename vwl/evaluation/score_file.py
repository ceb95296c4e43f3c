"""The shape of a stage's `scores-<split>.json`, as `vwl.evaluation.scoring.Score.as_dict` writes it and reports and commands read it."""

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


def is_score_file(content: Any, num_classes: int) -> bool:
    """Return whether a file's content is a score over so many classes, background included: all fields there, of their types and sizes."""
    try:
        score = ScoreFile.model_validate(content)
    except ValidationError:
        return False
    is_square = [len(row) for row in score.confusion] == [num_classes] * num_classes
    return is_square and all(len(point) == 2 for point in score.curve or ())
