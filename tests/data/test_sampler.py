from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vwl.data.sampler import generator, global_batch, share, steps_per_epoch

sizes = st.integers(1, 40)


def test_random_numbers_depend_on_the_key_only():
    assert generator(1, 2, "a").integers(0, 2**62) == generator(1, 2, "a").integers(0, 2**62)
    draws = [generator(*key).integers(0, 2**62) for key in ((1, 2, "a"), (1, 2, "b"), (1, 3, "a"), (2, 2, "a"), (12, "a"), (1, "2a"))]
    assert len(set(draws)) == len(draws)


def test_random_numbers_do_not_change_between_versions():
    assert generator(0, 0, "2007_000032").integers(0, 1000, 4).tolist() == [591, 734, 213, 484]


@given(sizes, sizes)
def test_an_epoch_has_each_sample_at_most_once_and_leaves_out_less_than_a_batch(num_samples, batch_size):
    steps = steps_per_epoch(num_samples, batch_size)
    batches = [global_batch(0, step, num_samples, batch_size) for step in range(steps)]
    assert {epoch for epoch, _ in batches} == {0}
    seen = list(chain.from_iterable(numbers for _, numbers in batches))
    assert len(seen) == steps * batch_size
    assert set(seen) <= set(range(num_samples))
    if batch_size <= num_samples:
        assert len(set(seen)) == len(seen) > num_samples - batch_size
    else:
        times = Counter(int(number) for number in seen)
        assert max(times.values()) - min(times.get(n, 0) for n in range(num_samples)) <= 1


def test_epochs_differ_in_order_and_in_the_samples_left_out():
    epochs = [[*chain.from_iterable(global_batch(0, epoch * 3 + step, 10, 3)[1] for step in range(3))] for epoch in range(30)]
    assert [global_batch(0, step, 10, 3)[0] for step in (0, 2, 3, 8, 9)] == [0, 0, 1, 2, 3]
    assert len({tuple(order) for order in epochs}) > 25
    assert {next(iter(set(range(10)) - set(order))) for order in epochs} == set(range(10))


def test_another_seed_gives_another_order():
    assert global_batch(0, 0, 100, 20)[1].tolist() != global_batch(1, 0, 100, 20)[1].tolist()


@given(st.integers(1, 5), st.integers(0, 20), st.integers(1, 4))
def test_workers_and_micro_batches_split_the_batch_in_order(world_size, more, micro_batch):
    batch = np.arange(100, 100 + world_size + more)
    pieces = [share(batch, rank, world_size, micro_batch) for rank in range(world_size)]
    assert np.concatenate([part for worker in pieces for part in worker]).tolist() == batch.tolist()
    shares = [sum(len(part) for part in worker) for worker in pieces]
    assert 1 <= min(shares) <= max(shares) <= min(shares) + 1
    assert all(len(part) == micro_batch for worker in pieces for part in worker[:-1])
    assert all(1 <= len(worker[-1]) <= micro_batch for worker in pieces)


@pytest.mark.parametrize(("num_samples", "batch_size", "steps"), [(10582, 16, 661), (16, 16, 1), (15, 16, 1), (33, 16, 2)])
def test_steps_per_epoch_counts_full_batches_only(num_samples, batch_size, steps):
    assert steps_per_epoch(num_samples, batch_size) == steps
