"""The table's mathematics, against cases computed by hand."""

import math

import pytest

from vwl.tuning.statistics import PAIRED, POOLED, WELCH, differences, mean_and_sd, pooled_variance

# Student's t, 97.5 %, from a printed table
T1, T2, T3, T4 = 12.706, 4.303, 3.182, 2.776


def test_mean_and_sample_standard_deviation():
    # (1 + 2 + 6) / 3 = 3; squares 4 + 1 + 9 = 14, over 2
    assert mean_and_sd([1.0, 2.0, 6.0]) == (3.0, pytest.approx(math.sqrt(7)))


def test_one_value_has_no_spread_and_none_has_no_mean():
    assert mean_and_sd([4.0]) == (4.0, None)
    assert mean_and_sd([]) == (None, None)


def test_two_rows_are_a_paired_t_test():
    rows = {"a": {0: 50.0, 1: 52.0, 2: 54.0}, "b": {0: 51.0, 1: 54.0, 2: 57.0}}
    found = differences(rows, "a")["b"]
    # differences 1, 2, 3: mean 2, variance 1, standard error 1 / sqrt(3)
    assert found.value == pytest.approx(2)
    assert found.half_width == pytest.approx(T2 / math.sqrt(3), rel=1e-3)
    assert found.method == POOLED
    assert found.is_significant is False


def test_the_noise_is_pooled_over_all_rows_of_a_table():
    rows = {"a": {0: 1.0, 1: 3.0}, "b": {0: 4.0, 1: 4.0}, "c": {0: 7.0, 1: 8.0}}
    # rows' means 2, 4, 7.5; seeds' means 4, 5; grand mean 4.5. Residuals: a -0.5 +0.5, b +0.5 -0.5, c 0 0; squares sum to 1
    assert pooled_variance([[1, 3], [4, 4], [7, 8]]) == (pytest.approx(0.5), 2)
    found = differences(rows, "a")
    # variance of a difference of two means of 2: 2 * 0.5 / 2 = 0.5
    assert (found["b"].value, found["c"].value) == (2.0, 5.5)
    assert found["b"].half_width == pytest.approx(T2 * math.sqrt(0.5), rel=1e-3)
    assert (found["b"].is_significant, found["c"].is_significant) == (False, True)


def test_a_seed_that_shifts_all_rows_alike_is_no_noise():
    rows = {"a": {0: 10.0, 1: 30.0}, "b": {0: 11.0, 1: 31.0}}
    assert differences(rows, "a")["b"].half_width == pytest.approx(0, abs=1e-9)


def test_a_row_that_lacks_a_seed_is_compared_on_those_it_shares():
    rows = {"a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": {0: 2.0, 1: 5.0}}
    found = differences(rows, "a")["b"]
    # differences 1, 3: mean 2, variance 2, standard error 1
    assert (found.value, found.method, found.seeds) == (2.0, PAIRED, 2)
    assert found.half_width == pytest.approx(T1, rel=1e-3)


def test_a_row_with_a_missing_seed_does_not_weaken_the_others():
    rows = {"a": {0: 1.0, 1: 3.0}, "b": {0: 4.0, 1: 4.0}, "c": {0: 7.0, 1: 8.0}, "d": {0: 9.0}}
    found = differences(rows, "a")
    assert found["b"].method == POOLED
    assert found["b"].half_width == pytest.approx(T2 * math.sqrt(0.5), rel=1e-3)
    assert (found["d"].half_width, found["d"].is_significant) == (None, None)


def test_other_seeds_are_compared_by_welch():
    rows = {"a": {0: 1.0, 1: 3.0}, "b": {2: 4.0, 3: 6.0}}
    found = differences(rows, "a")["b"]
    # both variances 2 of 2 seeds: parts 1 and 1; freedom (1 + 1)^2 / (1 + 1) = 2
    assert (found.value, found.method) == (3.0, WELCH)
    assert found.half_width == pytest.approx(T2 * math.sqrt(2), rel=1e-3)


def test_one_seed_gives_a_difference_and_no_interval():
    found = differences({"a": {0: 1.0}, "b": {0: 4.0}}, "a")["b"]
    assert (found.value, found.half_width, found.is_significant) == (3.0, None, None)


def test_rows_without_scores_have_no_difference():
    assert differences({"a": {0: 1.0}, "b": {}}, "a") == {}
    assert differences({"a": {}, "b": {0: 1.0}}, "a") == {}


def test_the_interval_of_a_complete_table_of_four_rows_and_two_seeds_has_three_degrees_of_freedom():
    rows = {"a": {0: 1.0, 1: 2.0}, "b": {0: 1.0, 1: 4.0}, "c": {0: 1.0, 1: 2.0}, "d": {0: 1.0, 1: 4.0}}
    # rows' means 1.5, 2.5, 1.5, 2.5; seeds' means 1, 3; every residual 0.5 in size; squares sum to 2, over 3
    assert differences(rows, "a")["b"].half_width == pytest.approx(T3 * math.sqrt(2 / 3), rel=1e-3)
    assert T4 < T3  # a fifth row would narrow it
