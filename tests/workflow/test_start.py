from dataclasses import replace

import pytest

from tests.helpers import tiny_scenes
from vwl.data.index import write_index
from vwl.workflow.start import Start, default_recipe


@pytest.mark.parametrize(
    ("source", "recipe"), [("MS COCO 2014", "reference-coco"), ("PASCAL VOC 2012", "reference-voc"), ("folder x", "reference-voc")]
)
def test_the_default_recipe_is_the_one_of_the_published_figures(tmp_path, source, recipe):
    index = replace(tiny_scenes(tmp_path / "scenes"), source=source)
    assert default_recipe(index) == recipe
    write_index(index, tmp_path / "index.parquet")
    start = Start.plan(str(tmp_path / "run"), str(tmp_path / "index.parquet"), None, ["seed=3"])
    assert (start.run.recipe.name, start.run.recipe.seed) == (recipe, 3)
    assert not (tmp_path / "run").exists()
