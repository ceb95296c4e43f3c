"""Grids: aligned columns, and files that are the same each time."""

import io

import numpy as np
import pytest
from PIL import Image

from vwl.report.figures.grid import Grid, GridRow, draw_grid, render
from vwl.report.sheets import Colour


def image(height, width):
    return np.full((height, width, 3), 128, np.uint8)


GRID = Grid(
    ["Image", "A $ <b>", "Truth"],
    [GridRow("one_$x", [image(60, 90), image(60, 90), None]), GridRow("two", [image(90, 60)] * 3)],
    [Colour("cat", (255, 0, 0)), Colour("_dog $", (0, 255, 0))],
)


def test_columns_are_aligned_and_rows_have_the_height_of_their_images():
    figure = draw_grid(GRID)
    places = np.array([axes.get_position().bounds for axes in figure.axes]).reshape(2, 3, 4)
    assert np.allclose(places[0, :, 0], places[1, :, 0])
    assert np.allclose(places[..., 2], places[0, 0, 2])
    width, height = figure.get_size_inches()
    ratios = places[:, 0, 3] * height / (places[:, 0, 2] * width)
    assert ratios == pytest.approx([60 / 90, 90 / 60])
    assert places[..., 1].min() > 0
    assert (places[..., 0] + places[..., 2]).max() < 1


def test_a_missing_image_leaves_its_place_empty():
    assert [len(axes.images) for axes in draw_grid(GRID).axes] == [1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_equal_grids_give_equal_files(kind):
    assert render(draw_grid(GRID), kind) == render(draw_grid(GRID), kind)


def test_names_are_drawn_as_they_are_written():
    figure = draw_grid(GRID)
    assert {text.get_text() for text in figure.texts} == {"Image", "A $ <b>", "Truth", "one_$x", "two"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cat", "_dog $"]
    assert Image.open(io.BytesIO(render(figure, "png"))).format == "PNG"
    assert render(figure, "svg").startswith(b"<?xml")


def test_a_label_that_is_longer_than_its_row_is_high_keeps_its_end():
    long = "COCO_val2014_000000150700"
    figure = draw_grid(Grid(["Image"], [GridRow(long, [image(30, 90)]), GridRow(long, [image(90, 90)])]))
    low, high, _ = figure.texts
    assert high.get_text() == long
    assert low.get_text() == "…000150700"
    figure.draw_without_rendering()
    assert not low.get_window_extent().overlaps(high.get_window_extent())


@pytest.mark.parametrize("classes", [1, 5, 21])
def test_the_legend_lies_below_the_images(classes):
    legend = [Colour(f"class {i}", (i, i, i)) for i in range(classes)]
    figure = draw_grid(Grid(["Image", "Truth"], [GridRow("one", [image(60, 90)] * 2)], legend))
    figure.draw_without_rendering()
    box, lowest = figure.legends[0].get_window_extent(), min(axes.get_window_extent().y0 for axes in figure.axes)
    assert 0 <= box.y0 <= box.y1 <= lowest
