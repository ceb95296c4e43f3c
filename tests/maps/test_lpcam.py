"""LPCAM's maps from given prototypes against a direct transcription, and the choice of prototypes."""

import pytest
import torch
from torch.nn import functional

from vwl.maps.lpcam import chosen, class_probabilities, direction, inside, similarity_maps, without_prototypes


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def map_written_out(features: torch.Tensor, prototypes: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """The map (h, w) of features (d, h, w): a cosine for each cell and centre, and their means."""
    height, width = features.shape[1:]
    found = torch.zeros(height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            towards, away = (
                [float(functional.cosine_similarity(features[:, y, x], centre, dim=0)) for centre in centres]
                for centres in (prototypes, context)
            )
            found[y, x] = sum(towards) / len(towards) - (sum(away) / len(away) if away else 0)
    return found.clamp(min=0)


@pytest.mark.parametrize("num_context", [0, 1, 5])
@pytest.mark.parametrize("num_prototypes", [1, 4])
def test_maps_from_given_prototypes_are_those_written_out(num_prototypes, num_context):
    features, prototypes, context = random(2, 8, 5, 6), random(num_prototypes, 8), random(num_context, 8) + 0.3
    other = direction(random(3, 8), random(0, 8))
    found = similarity_maps(features, torch.stack([direction(prototypes, context), other]))
    for image in range(2):
        torch.testing.assert_close(found[image, 0], map_written_out(features[image], prototypes, context), rtol=1e-9, atol=1e-9)


def test_a_cell_without_any_feature_is_like_no_prototype():
    features = random(1, 8, 2, 2)
    features[:, :, 0, 0] = 0
    assert similarity_maps(features, direction(random(3, 8), random(0, 8))[None])[0, 0, 0, 0] == 0


def test_the_length_of_a_feature_does_not_matter():
    features, towards = random(1, 8, 2, 2), direction(random(3, 8), random(2, 8))[None]
    torch.testing.assert_close(similarity_maps(features * 7, towards), similarity_maps(features, towards), rtol=1e-12, atol=1e-12)


def test_probabilities_are_a_softmax_over_all_classes():
    centres, weight = random(4, 8), random(3, 8)
    expected = torch.stack([torch.softmax(torch.stack([centre @ own for own in weight]), 0) for centre in centres])
    torch.testing.assert_close(class_probabilities(centres, weight), expected, rtol=1e-12, atol=1e-12)


def test_clusters_are_chosen_by_probability_and_never_when_empty():
    probabilities = torch.tensor([[0.95, 0.9, 0.97, 0.2], [0.04, 0.05, 0.5, 0.95]])
    sizes = torch.tensor([[3, 3, 0, 3], [3, 3, 3, 3]])
    assert chosen(probabilities, sizes, 0.9, (0.05, 0.9)).tolist() == [[True, False, False, False], [False, False, True, False]]


def test_inside_is_relative_to_the_maximum_of_a_map():
    maps = torch.tensor([[[10.0, 2.0, 0.5]], [[0.1, 0.02, 0.005]], [[0.0, 0.0, 0.0]]])
    assert inside(maps, 0.1).tolist() == [[[True, True, False]], [[True, True, False]], [[False, False, False]]]


def test_classes_without_prototypes_are_named():
    assert without_prototypes([True, True], ["cat", "dog"]) is None
    line = without_prototypes([False, True, False], ["cat", "dog", "cow"])
    assert "cat, cow:" in line
    assert "dog" not in line
