"""The CAM stage with LPCAM against its maps written out; classes without prototypes; the CAM stage with ReCAM's weights."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from tests.inference.conftest import IMAGES
from tests.inference.test_cam import bilinear
from vwl.config.recipe import Cam
from vwl.inference.cam import CamStage
from vwl.inference.lpcam import LpcamStage
from vwl.maps.lpcam import direction
from vwl.models.lpcam import PrototypeClassifier
from vwl.models.recam import ReactivatedClassifier

CLUSTERS = 3


def prototype_classifier(classifier, without: int | None = None) -> PrototypeClassifier:
    """The classifier with random prototypes and contexts of all classes but `without`."""
    model = PrototypeClassifier(classifier.settings, 2, CLUSTERS).eval()
    model.load_state_dict(classifier.state_dict(), strict=False)
    generator = torch.Generator().manual_seed(3)
    model.weight_of_maps.copy_(classifier.image_head.weight.detach())
    model.centres.copy_(torch.rand(model.centres.shape, generator=generator))
    model.sizes.fill_(5)
    model.chosen[0, :, :2] = True
    model.chosen[1, :, 1:] = True
    for number in range(2):
        model.directions[number] = direction(model.centres[0, number, :2], model.centres[1, number, 1:])
    if without is not None:
        model.chosen[0, without] = False
        model.directions[without] = 0
    return model


def stage(kind, recipe, index, model, **cam):
    return kind(recipe.model_copy(update={"cam": Cam(**cam)}), index, model)


@torch.inference_mode()
def written_out(model, image, labels, scales, hflip):
    """LPCAM's maps (K, h, w): at each scale the features of both views are added, and compared with each centre by itself."""
    height, width = image.shape[:2]
    grid = -(-height // 4), -(-width // 4)
    total = np.zeros((len(labels), *grid))
    for scale in scales:
        resized = np.asarray(Image.fromarray(image).resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)) / 255
        features = 0
        for turn in (1, -1) if hflip else (1,):
            pixels = ((resized[:, ::turn] - model.backbone.mean) / model.backbone.std).transpose(2, 0, 1).astype(np.float32)
            features = features + model.features(torch.from_numpy(pixels)[None])[0].numpy()[:, :, ::turn]
        for number, label in enumerate(labels):
            cosines = []
            for side, chosen in ((0, slice(0, 2)), (1, slice(1, 3))):
                centres = model.centres[side, label - 1, chosen]
                cosines.append(
                    np.mean([functional.cosine_similarity(torch.tensor(features), c[:, None, None], 0).numpy() for c in centres], 0)
                )
            total[number] += bilinear(np.maximum(cosines[0] - cosines[1], 0), *grid)
    return total / (total.max(axis=(1, 2), keepdims=True) + 1e-5)


@pytest.mark.parametrize(("scales", "hflip"), [((1.0,), False), ((1.0,), True), ((1.0, 0.5, 1.5), True)])
@pytest.mark.parametrize("name", ["even", "odd"])
def test_the_maps_are_the_similarities_written_out(recipe, images, rows, classifier, name, scales, hflip):
    model = prototype_classifier(classifier)
    found = stage(LpcamStage, recipe, images, model, scales=scales, hflip=hflip)(rows[name])
    expected = written_out(model, np.asarray(images.read_image(rows[name])), rows[name].labels, scales, hflip)
    assert expected.max() > 0.9
    np.testing.assert_allclose(found.values.astype(np.float32), expected, atol=5e-3)  # float16 and folded batch norms


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_of_any_size_has_a_map_of_each_label_at_stride_4(recipe, images, rows, classifier, name):
    found = stage(LpcamStage, recipe, images, prototype_classifier(classifier), scales=(1.0, 0.5))(rows[name])
    (height, width), labels = IMAGES[name]
    assert (found.classes, found.values.shape) == (labels, (len(labels), -(-height // 4), -(-width // 4)))
    assert np.isfinite(found.values).all()


@pytest.mark.parametrize("fusion", ["max", "sum"])
def test_a_class_without_prototypes_has_the_map_of_the_weights(recipe, images, rows, classifier, fusion):
    cam = {"scales": (1.0, 0.5), "hflip_fusion": fusion}
    plain = stage(CamStage, recipe, images, classifier, **cam)(rows["even"]).values
    whole = stage(LpcamStage, recipe, images, prototype_classifier(classifier), **cam)(rows["even"]).values
    found = stage(LpcamStage, recipe, images, prototype_classifier(classifier, without=1), **cam)(rows["even"]).values
    assert np.array_equal(found[1], plain[1])
    assert np.array_equal(found[0], whole[0])
    assert not np.array_equal(found[0], plain[0])


def test_the_map_of_a_class_does_not_depend_on_the_other_labels(recipe, images, rows, classifier):
    made = stage(LpcamStage, recipe, images, prototype_classifier(classifier), scales=(1.0,))
    image = np.asarray(images.read_image(rows["even"]))
    assert np.array_equal(made.maps(image, (1, 2))[1], made.maps(image, (2,))[0])


def test_maps_with_recam_are_those_of_a_classifier_with_the_product_of_weights(recipe, images, rows, classifier):
    model = ReactivatedClassifier(classifier.settings, 2).eval()
    model.load_state_dict(classifier.state_dict(), strict=False)
    with torch.no_grad():
        expected = type(classifier)(classifier.settings, 2).eval()
        expected.load_state_dict(classifier.state_dict())
        expected.image_head.weight.mul_(model.recam_head.weight)
    found, wanted = (stage(CamStage, recipe, images, net, scales=(1.0, 0.5))(rows["odd"]) for net in (model, expected))
    assert np.array_equal(found.values, wanted.values)
    assert found.values.max() > 0.9
