"""Selectors of nodes: their text, and which nodes they select."""

import pytest

from vwl.config.node_labels import describe, matches, parse_selector
from vwl.errors import VwlError


@pytest.mark.parametrize(
    ("wanted", "labels", "selected"),
    [
        ("spot", {"market": "spot"}, True),
        ("spot", {"market": "on-demand"}, False),
        ("spot", {}, False),
        ("!spot", {"market": "on-demand"}, True),
        ("!spot", {"market": "spot"}, False),
        ("!spot", {}, True),  # as Ray has it
        ("in(spot,reserved)", {"market": "reserved"}, True),
        ("in(spot,reserved)", {"market": "on-demand"}, False),
        ("!in(spot,reserved)", {"market": "on-demand"}, True),
        ("!in(spot,reserved)", {"market": "spot"}, False),
    ],
)
def test_a_node_is_selected_by_its_label(wanted, labels, selected):
    assert matches(parse_selector([f"market={wanted}"], "--trainers-on"), labels) is selected


def test_a_node_must_have_all_labels_and_no_selector_takes_every_node():
    selector = parse_selector(["market=spot", "ray.io/zone=eu-1"], "--trainers-on")
    assert selector == {"market": "spot", "ray.io/zone": "eu-1"}
    assert matches(selector, {"market": "spot", "ray.io/zone": "eu-1", "more": "x"})
    assert not matches(selector, {"market": "spot"})
    assert matches({}, {})


@pytest.mark.parametrize(
    "text", ["market", "=spot", "market=", "market=a b", "market=in()", "market=in(a", "-x=y", "a=b=c", "market=!!a", "x" * 70 + "=a"]
)
def test_what_is_no_label_is_one_line(text):
    with pytest.raises(VwlError, match=r"--inference-on '.*' is no label of nodes; write KEY=VALUE"):
        parse_selector([text], "--inference-on")


def test_a_key_that_is_there_twice_is_one_line_that_says_how_to_write_it():
    with pytest.raises(VwlError, match=r"names the label market twice; for one of several values write market=in\(spot,reserved\)"):
        parse_selector(["market=spot", "market=reserved"], "--trainers-on")


def test_a_selector_is_shown_as_it_is_written():
    assert describe({"market": "spot", "zone": "!eu"}) == "market=spot, zone=!eu"
