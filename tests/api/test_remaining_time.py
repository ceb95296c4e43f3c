"""The time left of a run: estimates, scaled by the pace of the work so far."""

import pytest

from vwl.api.remaining_time import RemainingTime


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def at(clock, seconds, remaining, stage, done, total):
    clock.now = seconds
    remaining.observe(stage, done, total)
    return remaining.seconds_left()


def test_nothing_is_known_before_work_is_measured(clock):
    remaining = RemainingTime({"classifier": 10, "cam": 30}, clock=clock)
    assert remaining.seconds_left() is None
    assert at(clock, 5, remaining, "classifier", 0, 100) is None


def test_the_running_stage_has_its_own_pace_and_later_ones_its_ratio_to_their_estimates(clock):
    remaining = RemainingTime({"classifier": 10, "cam": 30}, clock=clock)
    at(clock, 0, remaining, "classifier", 0, 100)
    # a quarter took 5 s instead of 2.5: 15 s are left of this stage and 60 s of the next
    assert at(clock, 5, remaining, "classifier", 25, 100) == pytest.approx(75)


def test_time_passes_between_events(clock):
    remaining = RemainingTime({"cam": 30}, clock=clock)
    at(clock, 0, remaining, "cam", 0, 10)
    at(clock, 10, remaining, "cam", 5, 10)
    clock.now = 14
    assert remaining.seconds_left() == pytest.approx(6)
    clock.now = 60
    assert remaining.seconds_left() == 0


def test_steps_of_an_earlier_start_do_not_count_as_speed(clock):
    remaining = RemainingTime({"classifier": 100}, clock=clock)
    at(clock, 0, remaining, "classifier", 90, 100)
    assert at(clock, 8, remaining, "classifier", 94, 100) == pytest.approx(12)


def test_stages_that_were_done_before_scale_the_others_from_the_start(clock):
    remaining = RemainingTime({"walk": 20, "segmenter": 40}, earlier=(30.0, 10.0), clock=clock)
    assert remaining.seconds_left() == pytest.approx(180)


def test_a_stage_that_has_ended_takes_no_time_and_counts_for_the_others(clock):
    remaining = RemainingTime({"classifier": 10, "cam": 30}, clock=clock)
    at(clock, 0, remaining, "classifier", 0, 2)
    clock.now = 20
    remaining.end("classifier")
    assert remaining.seconds_left() == pytest.approx(60)
    remaining.end("cam")
    assert remaining.seconds_left() == 0


def test_a_restarted_training_that_repeats_steps_does_not_count_backwards(clock):
    remaining = RemainingTime({"classifier": 10}, clock=clock)
    at(clock, 0, remaining, "classifier", 0, 10)
    before = at(clock, 10, remaining, "classifier", 5, 10)
    assert at(clock, 11, remaining, "classifier", 3, 10) == pytest.approx(before - 1)


def test_a_stage_without_steps_is_done(clock):
    remaining = RemainingTime({"crf": 10, "walk": 10}, earlier=(1, 1), clock=clock)
    assert at(clock, 0, remaining, "crf", 0, 0) == pytest.approx(10)
    remaining.end("crf")
    assert remaining.seconds_left() == pytest.approx(10)
