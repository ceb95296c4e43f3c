"""The board between driver and workers: progress, stop requests, and when starts without progress end a training."""

import pytest

from vwl.engine.board import MAX_IDLE_STARTS, Board, Leaving


def start(board: Board) -> str:
    """Let two workers begin and return what the first is told."""
    told = board.begin(1, "10.0.0.2 bbbbbb")
    assert board.begin(0, "10.0.0.1 aaaaaa") == board.error()
    return told


def test_starts_without_progress_end_the_training_and_name_the_silent_worker():
    board = Board("irnet")
    for _ in range(MAX_IDLE_STARTS):
        assert start(board) == ""
        board.failed(0, "gloo: timed out", True)
    assert start(board) == (
        "irnet: 4 starts in a row ended before step 1 was finished (worker 1 on node 10.0.0.2 bbbbbb died or hung; "
        "worker 0 on node 10.0.0.1 aaaaaa: gloo: timed out); is there enough memory on the nodes, and does their network work (vwl doctor)?"
    )


def test_a_step_ends_the_row():
    board = Board("irnet")
    for number in range(5 * MAX_IDLE_STARTS):
        assert start(board) == ""
        if number % (MAX_IDLE_STARTS - 1) == 0:
            board.post(number + 1, 1000, {})


def test_a_bug_is_left_to_ray_which_shows_its_traceback():
    board = Board("irnet")
    for _ in range(3 * MAX_IDLE_STARTS):
        assert start(board) == ""
        board.failed(0, "gloo: connection closed by peer", True)
        board.failed(1, "KeyError: 'images'", False)


def test_the_first_error_stays():
    board = Board("irnet")
    board.set_error("first")
    board.set_error("second")
    assert board.error() == board.begin(0, "node") == "first"


def test_progress_is_drained_once_and_a_stop_request_answers_it():
    board = Board("irnet")
    assert board.post(1, 10, {"loss": 2.0}) is False
    board.stop()
    assert board.post(2, 10, {"loss": 1.0}) is True
    assert board.drain() == [(1, 10, {"loss": 2.0}), (2, 10, {"loss": 1.0})]
    assert board.drain() == []


@pytest.mark.parametrize("stopped", [False, True])
def test_workers_start_again_after_a_preemption_unless_the_user_has_stopped_them(stopped):
    board, leaving = Board("irnet"), Leaving(("ab12",), 1e9)
    board.leave(leaving)
    if stopped:
        board.stop()
    assert board.take_leaving() == (None if stopped else leaving)
    assert board.take_leaving() is None


def test_starts_after_a_preemption_are_no_failures():
    board = Board("irnet")
    for _ in range(3 * MAX_IDLE_STARTS):
        assert start(board) == ""
        board.leave(Leaving(("ab12",), None))
        board.take_leaving()
