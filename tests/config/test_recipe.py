"""Recipes: the built-in ones state the settings of the paper and of its code; every key is described; fingerprints differ with values."""

import re

import pytest
import torch

from vwl.config.files import builtin_recipes, differences, load_recipe
from vwl.config.recipe import Irnet, Recipe, Section, fingerprint
from vwl.errors import VwlError
from vwl.models.affinity_loss import pair_affinities


def test_the_paper_its_code_and_each_row_of_its_tables_have_a_recipe():
    assert {
        "paper-voc",
        "paper-voc-m",
        "paper-coco",
        "reference-voc",
        "reference-voc-m",
        "reference-coco",
        "table4-baseline",
        "table4-hp",
        "table4-vwe",
        "table4-vwl-m",
        "table4-vwl-l",
        "fig12-hp-without-gap",
    } <= set(builtin_recipes())


class TestSettingsOfThePaper:
    def test_the_defaults_are_those_of_the_paper(self):
        assert load_recipe("paper-voc") == Recipe()

    def test_section_4_1_classification_network(self):
        classifier = load_recipe("paper-voc").classifier
        assert classifier.backbone.name == "resnet101"
        assert classifier.backbone.weights == "imagenet"
        assert (classifier.epochs, classifier.batch_size) == (6, 16)
        assert classifier.optimiser.learning_rate == 0.01
        assert classifier.optimiser.learning_rate * classifier.optimiser.head_lr_mult == pytest.approx(0.1)
        assert (classifier.optimiser.momentum, classifier.optimiser.power) == (0.9, 0.9)
        assert (classifier.codebook.num_codewords, classifier.gap_weight, classifier.codebook.temperature) == (256, 2, 1)
        assert load_recipe("paper-voc-m").classifier.codebook.momentum == 0.001

    def test_section_4_1_segmentation_network(self):
        segmenter = load_recipe("paper-voc").segmenter
        assert segmenter.backbone.name == "resnet101"
        assert (segmenter.optimiser.learning_rate, segmenter.optimiser.momentum) == (0.001, 0.9)
        assert segmenter.optimiser.weight_decay == 0.0005
        assert (segmenter.batch_size, segmenter.iterations) == (10, 20_000)

    def test_coco_differs_only_in_the_iterations_of_the_segmenter(self):
        assert differences(load_recipe("paper-voc"), load_recipe("paper-coco")) == [
            "name: paper-voc -> paper-coco",
            "segmenter.iterations: 20000 -> 60000",
        ]

    def test_the_codes_settings_for_coco_are_those_for_voc_with_the_papers_iterations(self):
        assert differences(load_recipe("reference-voc"), load_recipe("reference-coco")) == [
            "name: reference-voc -> reference-coco",
            "segmenter.iterations: 20000 -> 60000",
        ]

    @pytest.mark.parametrize(
        ("name", "pooling", "strategy", "decov"),
        [
            ("table4-baseline", "gap", "none", None),
            ("table4-hp", "hybrid", "none", None),
            ("table4-vwe", "hybrid", "learning", "none"),
            ("table4-vwl-m", "hybrid", "memory", None),
            ("table4-vwl-l", "hybrid", "learning", "squared"),
        ],
    )
    def test_rows_of_table_4(self, name, pooling, strategy, decov):
        classifier = load_recipe(name).classifier
        assert (classifier.pooling, classifier.codebook.strategy) == (pooling, strategy)
        if decov is not None:
            assert classifier.codebook.decov == decov
        same = classifier.model_copy(update={"pooling": "hybrid", "codebook": load_recipe("paper-voc").classifier.codebook})
        assert same == load_recipe("paper-voc").classifier

    def test_fig_12_leaves_global_average_pooling_out_of_hybrid_pooling(self):
        assert differences(load_recipe("table4-hp"), load_recipe("fig12-hp-without-gap")) == [
            "classifier.gap_weight: 2.0 -> 0.0",
            "name: table4-hp -> fig12-hp-without-gap",
        ]


def test_the_reference_recipes_differ_from_the_paper_where_its_code_does():
    assert differences(load_recipe("paper-voc"), load_recipe("reference-voc")) == [
        "classifier.codebook.assign_padding: False -> True",
        "classifier.codebook.decov: squared -> unsquared",
        "classifier.codebook.histogram: mean -> sum",
        "classifier.frozen_stages: 1 -> 3",
        "classifier.optimiser.momentum: 0.9 -> 0.0001",
        "irnet.optimiser.momentum: 0.9 -> 0.0001",
        "name: paper-voc -> reference-voc",
        "segment.hflip: True -> False",
        "walk.normalise_at: stride4 -> full_size",
        "walk.pad_to: None -> 512",
    ]
    assert differences(load_recipe("reference-voc"), load_recipe("reference-voc-m")) == [
        "classifier.codebook.init: features -> gaussian",
        "classifier.codebook.strategy: learning -> memory",
        "classifier.codebook.unused_codewords: keep -> decay",
        "classifier.frozen_stages: 3 -> 1",
        "name: reference-voc -> reference-voc-m",
    ]


def test_every_key_has_a_description_for_users():
    undescribed, sections = [], [Recipe()]
    while sections:
        section = sections.pop()
        for name, value in section:
            if isinstance(value, Section):
                sections.append(value)
            elif not (type(section).model_fields[name].description or "").endswith("."):
                undescribed.append(f"{type(section).__name__}.{name}")
    assert undescribed == []


def test_fingerprints_differ_with_values_and_not_with_their_spelling():
    section = load_recipe("paper-voc").classifier
    assert fingerprint(section) == fingerprint(load_recipe("paper-voc", ["classifier.gap_weight=2"]).classifier)
    assert fingerprint(section) != fingerprint(load_recipe("paper-voc", ["classifier.gap_weight=3"]).classifier)
    assert re.fullmatch("[0-9a-f]{16}", fingerprint(section))


@pytest.mark.parametrize("radius", [2, 3, 5, 10])
def test_the_smallest_crop_of_a_radius_is_the_smallest_that_the_affinity_loss_takes(radius):
    smallest = max(16, 8 * (radius - 1) + 1)
    cells = -(-smallest // 4)
    assert Irnet(crop=smallest, radius=radius).crop == smallest
    assert pair_affinities(torch.rand(1, 1, cells, cells), radius).numel() > 0
    if smallest > 16:
        with pytest.raises(ValueError, match=f"set crop to {smallest} or more"):
            Irnet(crop=smallest - 1, radius=radius)
        with pytest.raises(VwlError, match="crop"):
            pair_affinities(torch.rand(1, 1, cells - 1, cells - 1), radius)
