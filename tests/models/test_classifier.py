import pytest
import torch

from vwl.config.recipe import Backbone, Codebook
from vwl.config.recipe import Classifier as Settings
from vwl.maps.cam import class_activation
from vwl.models.classifier import Classifier, cells_inside
from vwl.models.hybrid_pooling import global_average, hybrid_pooling

CLASSES, NUM_CODEWORDS = 3, 7


def network(strategy: str = "learning", **settings) -> Classifier:
    torch.manual_seed(0)
    backbone, codebook = Backbone(name="timm:test_resnet", weights="none"), Codebook(strategy=strategy, num_codewords=NUM_CODEWORDS)
    return Classifier(Settings(backbone=backbone, codebook=codebook, **settings), CLASSES)


def images(num: int = 2, height: int = 64, width: int = 80) -> torch.Tensor:
    return torch.randn(num, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("strategy", "heads"),
    [
        ("none", {"image_head.weight"}),
        ("memory", {"image_head.weight", "word_head.weight"}),
        ("learning", {"image_head.weight", "word_head.weight", "word_to_image_head.weight", "codebook.codewords"}),
    ],
)
def test_each_strategy_has_its_heads_and_no_bias(strategy, heads):
    names = {name for name, _ in network(strategy).named_parameters() if not name.startswith("backbone.")}
    assert names == heads


def test_each_image_has_its_row_of_logits():
    output = network()(images())
    assert (output.image_logits.shape, output.word_logits.shape) == ((2, CLASSES), (2, NUM_CODEWORDS))
    assert output.word_to_image_logits.shape == (2, CLASSES)
    assert output.features.shape == (2, 96, 4, 5)
    assert output.encoding.assignments.shape == (2, 4, 5)


def test_the_image_head_sees_the_pooling_of_the_recipe_and_the_word_head_the_average():
    for pooling, pool in (("hybrid", lambda f: hybrid_pooling(f, 3.0)), ("gap", global_average)):
        net = network(pooling=pooling, gap_weight=3.0)
        output = net(images())
        torch.testing.assert_close(output.image_logits, net.image_head(pool(output.features)))
        torch.testing.assert_close(output.word_logits, net.word_head(global_average(output.features)))


def test_activation_maps_are_those_of_the_image_head():
    net = network()
    with torch.no_grad():
        torch.testing.assert_close(net.activation_maps(images()), class_activation(net.features(images()), net.image_head.weight))


def test_a_bias_is_in_the_logits_and_not_in_the_maps():
    with_bias, without = network(image_bias=True), network()
    without.load_state_dict({name: value for name, value in with_bias.state_dict().items() if name != "image_head.bias"})
    with torch.no_grad():
        with_bias.image_head.bias.copy_(torch.tensor([1.0, -2.0, 3.0]))
        torch.testing.assert_close(with_bias(images()).image_logits, without(images()).image_logits + with_bias.image_head.bias)
        assert torch.equal(with_bias.activation_maps(images()), without.activation_maps(images()))


def test_the_word_loss_trains_the_backbone_only_and_the_histogram_the_codebook_only():
    def trained(logits: str) -> set[str]:
        net = network(frozen_stages=3)
        getattr(net(images()), logits).square().sum().backward()
        return {name.partition(".")[0] for name, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}

    assert trained("image_logits") == {"backbone", "image_head"}
    assert trained("word_logits") == {"backbone", "word_head"}
    assert trained("word_to_image_logits") == {"codebook", "word_to_image_head"}


def test_frozen_stages_get_no_gradient():
    net = network(frozen_stages=3)
    net(images()).image_logits.sum().backward()
    frozen = {name for level in net.backbone.levels[:3] for name in level}
    for name, parameter in net.backbone.net.named_parameters():
        inside = any(name.startswith(f"{module}.") for module in frozen)
        assert (parameter.grad is None) == inside, name


def test_a_cell_is_inside_if_half_of_its_pixels_are():
    valid = torch.zeros(1, 32, 64, dtype=torch.bool)
    valid[:, :, :24] = True  # the second column of cells has 8 of 16 columns inside
    valid[:, 16:, 40:47] = True  # 7 of 16 columns of one cell
    cells = cells_inside(valid, torch.zeros(1, 5, 2, 4))
    assert cells.tolist() == [[[True, True, False, False]] * 2]


def test_padding_is_assigned_to_no_codeword_and_does_not_change_the_image_logits():
    net, valid = network(), torch.zeros(2, 64, 80, dtype=torch.bool)
    valid[:, :32, :48] = True
    with torch.no_grad():
        output, plain = net(images(), valid), net(images())
    assert torch.equal(output.encoding.assignments >= 0, cells_inside(valid, output.features))
    assert torch.equal(output.image_logits, plain.image_logits)
    assert not torch.equal(output.word_to_image_logits, plain.word_to_image_logits)


@pytest.mark.parametrize("size", [(1, 1), (16, 100), (47, 33)])
def test_images_too_small_for_the_published_code_are_classified(size):
    with torch.no_grad():
        output = network()(images(1, *size))
    assert output.image_logits.isfinite().all()
    assert output.word_to_image_logits.isfinite().all()


def test_gradients_add_up_in_the_order_that_earlier_trainings_had():
    """The last bits of a training, which 160 steps of the demo make percents of, depend on this order."""
    model = network("memory", frozen_stages=0)
    output = model(images())
    (output.image_logits.sum() + output.word_logits.sum()).backward()
    ours = [p.grad.clone() for p in model.backbone.parameters()]
    model.zero_grad()
    features = model.features(images())
    pooled = global_average(features)
    image = model.image_head(hybrid_pooling(features, model.settings.gap_weight))
    (image.sum() + model.word_head(pooled).sum()).backward()
    assert all(torch.equal(gradient, p.grad) for gradient, p in zip(ours, model.backbone.parameters(), strict=True))
