"""How long a run will take from now on, from estimates of its stages and the pace measured so far."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass
class _Pace:
    """The work on one stage: share done when it was first seen and last seen, and when, s."""

    first_share: float
    share: float
    began: float
    seen: float
    ended: bool = False


class RemainingTime:
    """Scales the estimates of stages by measured over estimated time of the work that was seen."""

    def __init__(
        self,
        estimates: Mapping[str, float],
        earlier: tuple[float, float] = (0.0, 0.0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare for the stages of a call.

        Args:
            estimates: seconds of each stage that is not done; only their ratios matter.
            earlier: measured and estimated seconds of stages that were done before.
            clock: seconds.
        """
        self._estimates, self._earlier, self._clock = dict(estimates), earlier, clock
        self._paces: dict[str, _Pace] = {}

    def observe(self, stage: str, done: int, total: int) -> None:
        """Note how far a stage is now."""
        now, share = self._clock(), done / total if total else 1.0
        pace = self._paces.setdefault(stage, _Pace(share, share, now, now))
        if share > pace.share:  # a restarted worker repeats steps
            pace.share, pace.seen = share, now

    def end(self, stage: str) -> None:
        """Note that a stage has ended, or was skipped."""
        now = self._clock()
        pace = self._paces.setdefault(stage, _Pace(1.0, 1.0, now, now))
        if not pace.ended:
            pace.share, pace.seen, pace.ended = 1.0, now, True

    def seconds_left(self) -> float | None:
        """Return the estimate for all stages that have not ended; none before any work was measured."""
        ratio = self._ratio()
        if ratio is None:
            return None
        return sum(self._of_stage(stage, estimate, ratio) for stage, estimate in self._estimates.items())

    def _of_stage(self, stage: str, estimate: float, ratio: float) -> float:
        pace = self._paces.get(stage)
        if pace is None:
            return estimate * ratio
        if pace.ended:
            return 0.0
        if pace.share > pace.first_share:
            since = self._clock() - pace.seen
            return max(0.0, (pace.seen - pace.began) / (pace.share - pace.first_share) * (1 - pace.share) - since)
        return estimate * ratio * (1 - pace.share)

    def _ratio(self) -> float | None:
        """Return measured over estimated time of all work that was seen, and of what was done before."""
        seconds, expected = self._earlier
        for stage, pace in self._paces.items():
            if pace.share > pace.first_share:
                seconds += pace.seen - pace.began
                expected += (pace.share - pace.first_share) * self._estimates.get(stage, 0.0)
        return seconds / expected if seconds > 0 and expected > 0 else None
