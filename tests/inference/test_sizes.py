"""Images of any size go through every inference stage, and the largest within 8 GiB."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.inference.chain import LABELS, NAMES, through_the_stages
from vwl.constants import map_size
from vwl.storage.score_maps import ScoreMap

GIB_AT_MOST = 8


@pytest.mark.parametrize("size", [(1, 1), (33, 2000), (2000, 33)])
def test_an_image_of_any_size_goes_through_every_stage(tmp_path, size):
    for name, result in through_the_stages(tmp_path, *size).items():
        if isinstance(result, ScoreMap):
            assert result.values.shape == (len(LABELS), *map_size(*size)), name
            assert np.isfinite(result.values).all(), name
        else:
            assert result.shape == size, name
            assert set(np.unique(result)) <= ({0, *LABELS, 255} if name != "segment" else set(range(21)))


@pytest.mark.drill
def test_an_image_of_24_megapixels_goes_through_every_stage_within_8_gib(tmp_path):
    # in a process of its own: the peak of this one may be of an earlier test
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.inference.chain", str(tmp_path), "4000", "6000"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["stage"] for line in lines] == list(NAMES)
    assert max(line["peak_gib"] for line in lines) < GIB_AT_MOST, lines
