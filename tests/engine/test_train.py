"""How a training on Ray ends where processes died; real deaths are in test_drills.py and test_death_drills.py."""

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train import WorkerGroupError

from vwl.engine.train import _without_traceback
from vwl.errors import VwlError


@pytest.mark.parametrize(
    ("error", "who"),
    [
        (OutOfMemoryError("a page of numbers"), r"the process that coordinates the workers died \(out of memory\)"),
        (ActorDiedError(), r"the process that coordinates the workers died \(.*\)"),
        (WorkerGroupError("workers", {1: OutOfMemoryError("a page"), 3: ActorDiedError()}), r"worker 1 died \(out of memory\)"),
    ],
)
def test_deaths_are_one_line(error, who):
    line = str(_without_traceback("irnet", error))
    assert "\n" not in line
    with pytest.raises(VwlError, match=rf"^irnet: {who}; start the command again to go on from the last checkpoint$"):
        raise _without_traceback("irnet", error)


@pytest.mark.parametrize("error", [KeyError("images"), WorkerGroupError("workers", {0: OutOfMemoryError("x"), 1: KeyError("images")})])
def test_a_bug_stays_what_it_is(error):
    assert _without_traceback("irnet", error) is error
