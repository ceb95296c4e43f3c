from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from vwl.data import sampler
from vwl.data.sampler import SHUFFLED, Permutation, generator, global_batch, share, steps_per_epoch

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


def test_the_order_does_not_change_between_versions():
    assert global_batch(0, 7, 20, 4)[1].tolist() == [0, 1, 17, 12]
    assert global_batch(0, 7, SHUFFLED + 1, 4)[1].tolist() == [288147, 486388, 33071, 329777]


@given(sizes, sizes, st.integers(0, 100))
def test_up_to_the_limit_a_batch_is_a_part_of_shuffled_samples(num_samples, batch_size, step):
    epoch, place = divmod(step, steps_per_epoch(num_samples, batch_size))
    orders = [generator(3, "order", epoch, r).permutation(num_samples) for r in range(max(1, -(-batch_size // num_samples)))]
    wanted = np.concatenate(orders)[place * batch_size : (place + 1) * batch_size]
    found = global_batch(3, step, num_samples, batch_size)
    assert (found[0], found[1].tolist()) == (epoch, wanted.tolist())


def test_an_epoch_is_shuffled_once(monkeypatch):
    drawn, true = [], sampler.generator
    monkeypatch.setattr(sampler, "generator", lambda *key: drawn.append(key) or true(*key))
    sampler._shuffled_order.cache_clear()
    for step in range(20):
        global_batch(5, step, 100, 10)
    assert drawn == [(5, "order", 0, 0), (5, "order", 1, 0)]


@given(st.integers(1, 3000), st.integers(0, 5))
def test_a_computed_permutation_has_each_number_once(num, seed):
    assert sorted(Permutation(num, generator(seed)).at(np.arange(num)).tolist()) == [*range(num)]


def test_any_part_of_a_computed_permutation_is_that_of_the_whole():
    positions = np.array([0, 999, 5, 500])
    whole = Permutation(1000, generator(1)).at(np.arange(1000))
    assert Permutation(1000, generator(1)).at(positions).tolist() == whole[positions].tolist()


def counts(pairs, num):
    return np.bincount([num * a + b for a, b in pairs], minlength=num * num)


def test_computed_permutations_are_uniform():
    # 30 numbers: of a place, of neighbouring places and of the distance between neighbours
    num, repeats = 30, 4000
    orders = np.stack([Permutation(num, generator("uniform", r)).at(np.arange(num)) for r in range(repeats)])
    for place in (0, 7, 29):
        assert chisquare(np.bincount(orders[:, place], minlength=num)).pvalue > 1e-3
    for one, other in ((0, 1), (3, 20)):
        pairs = counts(orders[:, [one, other]], num).reshape(num, num)
        assert not pairs.diagonal().any()
        assert chisquare(pairs[~np.eye(num, dtype=bool)]).pvalue > 1e-3


def test_a_large_computed_permutation_has_the_distances_of_a_shuffled_one():
    num = 1_000_003
    order = Permutation(num, generator("large")).at(np.arange(200_000))
    distances = np.diff(order) % num
    assert chisquare(np.bincount(distances * 1000 // num, minlength=1000)).pvalue > 1e-3
    assert chisquare(np.bincount(order * 1000 // num, minlength=1000)).pvalue > 1e-3


def test_above_the_limit_an_epoch_has_each_sample_once_in_an_order_of_its_own():
    num, batch = SHUFFLED + 5, 2**16
    steps = steps_per_epoch(num, batch)
    first, second = ([global_batch(0, epoch * steps + step, num, batch) for step in range(steps)] for epoch in range(2))
    assert ({epoch for epoch, _ in first}, {epoch for epoch, _ in second}) == ({0}, {1})
    for batches in (first, second):
        seen = np.concatenate([numbers for _, numbers in batches])
        assert len(np.unique(seen)) == len(seen) == steps * batch
        assert 0 <= seen.min() <= seen.max() < num
    assert (first[0][1] == second[0][1]).mean() < 0.01


def test_above_the_limit_the_order_of_an_epoch_takes_no_memory_for_its_samples():
    permutation = Permutation(10**9, generator(0))
    assert sum(table.nbytes for table in permutation._tables) < 2.5 * 2**20
    assert len(set(permutation.at(np.arange(10**9 - 1000, 10**9)).tolist())) == 1000
