"""Charts as values: what is thinned, what JSON can say, and what a screen reader is told."""

import json

from vwl.report.html.charts import MAX_POINTS, Chart, Series, chart_data


def chart(*series):
    return Chart("key", "Loss", "step", "loss", series)


def test_long_series_are_thinned_and_keep_their_ends():
    length = 7 * MAX_POINTS + 3
    (series,) = chart_data([chart(Series("a", list(range(length)), [float(i) for i in range(length)]))])["key"]["series"]
    assert len(series["x"]) <= MAX_POINTS + 1
    assert (series["x"][0], series["x"][-1]) == (0, length - 1)
    assert series["x"] == series["y"]


def test_short_series_stay_and_numbers_that_json_lacks_are_gaps():
    data = chart_data([chart(Series("a", [1, 2, 3], [0.5, float("nan"), float("inf")]))])
    assert json.loads(json.dumps(data, allow_nan=False))["key"]["series"][0]["y"] == [0.5, None, None]


def test_the_description_has_the_ends_of_each_series():
    shown = chart(Series("total", [1, 2], [1.0, 0.25]), Series("best", [2], [0.125]), Series("none", [], []))
    assert shown.described == "Loss: total from 1 to 0.25; best 0.125"
    assert chart(Series("none", [], [])).described == "Loss: no values"
