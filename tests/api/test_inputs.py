"""What users may pass as overrides gives the recipe that the lines of the command line give."""

import pytest

from vwl.api.inputs import layout_of, override_lines
from vwl.config.files import load_recipe
from vwl.config.layout import Layout


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        ({"classifier.epochs": 3}, ["classifier.epochs=3"]),
        ({"classifier": {"epochs": 3, "codebook": {"momentum": 1e-5}}}, ["classifier.epochs=3", "classifier.codebook.momentum=1e-05"]),
        ({"cam.scales": (0.5, 1.0), "segmenter.start_from": None}, ["cam.scales=[0.5, 1.0]", "segmenter.start_from=null"]),
        ({"cam.hflip": False, "cam.background_threshold": "auto"}, ["cam.hflip=false", 'cam.background_threshold="auto"']),
        (["seed=4"], ["seed=4"]),
    ],
)
def test_overrides_of_any_form_are_lines_that_a_recipe_takes(overrides, lines):
    assert override_lines(overrides) == lines
    assert load_recipe("demo", override_lines(overrides)) == load_recipe("demo", lines)


def test_small_numbers_arrive_as_numbers():
    assert load_recipe("demo", override_lines({"classifier.codebook.momentum": 1e-5})).classifier.codebook.momentum == 1e-5


def test_a_number_of_workers_shares_the_cpus_and_a_layout_is_taken_as_it_is(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert layout_of(2, gpus_per_worker=1) == Layout(workers=2, cpus_per_worker=4, gpus_per_worker=1)
    assert layout_of(16).cpus_per_worker == 1
    own = Layout(workers=4, min_workers=2)
    assert layout_of(own) is own
