"""The installed ImageNet classifier: its names, what it sees in real photographs, and maps by the code of the CAM stage."""

import numpy as np
import pytest

from vwl.errors import VwlError
from vwl.maps.cam import upsample
from vwl.model_file.imagenet import ImageNetClassifier


@pytest.fixture(scope="module")
def classifier():
    return ImageNetClassifier()


def photograph(name: str) -> np.ndarray:
    return getattr(pytest.importorskip("skimage.data"), name)()


def test_there_are_a_thousand_different_names(classifier):
    assert len(set(classifier.classes)) == 1000


@pytest.mark.parametrize(
    ("label", "number"),
    [("tabby", 281), ("Tabby Cat", 281), ("space shuttle", 812), ("crane", 517), ("crane bird", 134), ("Tinca tinca", 0)],
)
def test_a_class_is_found_by_its_name_or_a_synonym_in_any_case(classifier, label, number):
    assert classifier.named(label) == number


@pytest.mark.parametrize(
    ("label", "suggested"),
    [("tabbi cat", "'tabby cat'"), ("space shutle", "'space shuttle'"), ("cat", "'tiger cat', 'Persian cat'"), ("Elefant", "elephant")],
)
def test_an_unknown_label_suggests_names(classifier, label, suggested):
    with pytest.raises(VwlError, match=f"ImageNet has no class '{label}'; did you mean ") as raised:
        classifier.named(label)
    assert suggested in str(raised.value)


@pytest.mark.parametrize("label", ["", "?" * 100_000, "a\nb"])
def test_a_label_that_is_like_none_is_one_short_line(classifier, label):
    with pytest.raises(VwlError, match="ImageNet has no class") as raised:
        classifier.named(label)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("name", "seen"), [("chelsea", {"Egyptian cat", "tabby", "tiger cat"}), ("coffee", {"espresso", "cup", "coffee mug"})]
)
def test_the_classes_of_a_photograph_are_among_the_five_most_probable(classifier, name, seen):
    guesses = classifier.guesses(photograph(name))
    assert guesses[0].name in seen
    assert len(seen & {guess.name for guess in guesses}) >= 2
    probabilities = [guess.probability for guess in guesses]
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0 < sum(probabilities) <= 1


def test_all_probabilities_add_up_to_one(classifier):
    assert sum(guess.probability for guess in classifier.guesses(photograph("chelsea"), 1000)) == pytest.approx(1, abs=1e-4)


def test_the_map_of_a_coffee_cup_lies_on_the_cup(classifier):
    image = photograph("coffee")
    cup = np.zeros(image.shape[:2], bool)
    cup[20:260, 170:420] = True  # the cup's bounding box, a quarter of the image
    (scores,) = upsample(classifier.cam(image, [classifier.named("espresso")]), *image.shape[:2])
    assert scores[cup].mean() > 3 * scores[~cup].mean()


def test_a_map_does_not_depend_on_the_other_labels(classifier):
    image = photograph("chelsea")
    both = classifier.cam(image, [281, 812])
    np.testing.assert_array_equal(both[0], classifier.cam(image, [281])[0])
