from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainings import make_data, metrics, tiny_spec, train_to_end, weights
from vwl.config.recipe import Backbone
from vwl.constants import IGNORE
from vwl.data.index import read_index
from vwl.storage.folder import Folder
from vwl.training.build import build_task
from vwl.training.segmenter import SegmenterTask
from vwl.training.task import Sample


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("segmenter"), num_val=0)


@pytest.fixture
def task(index_path) -> SegmenterTask:
    return task_of(index_path)


def task_of(index_path: Path, seed: int = 3, **settings) -> SegmenterTask:
    recipe = tiny_spec("segmenter", index_path, index_path.parent).recipe
    recipe = recipe.model_copy(update={"seed": seed, "segmenter": recipe.segmenter.model_copy(update=settings)})
    index = read_index(index_path)
    task = SegmenterTask(recipe, index, index.rows, Folder(index_path.parent / "scenes" / "masks"))
    task.model.double()
    return task


def batch_of(task: SegmenterTask, *numbers: int) -> Sample:
    samples = [task.sample(number, 0) for number in numbers]
    stacked = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    return {**stacked, "images": stacked["images"].double()}


def sample_key(sample: Sample) -> tuple[float, float]:
    weights = torch.linspace(1, 2, sample["images"].numel())
    return float((sample["images"].flatten() * weights).sum()), float((sample["labels"].flatten() * weights[: 49 * 49]).sum())


def total(task: SegmenterTask, batch: Sample, counts: torch.Tensor) -> torch.Tensor:
    return task.losses(task.model, batch, counts, part=1)["segmentation"]


def mean_cross_entropy(task: SegmenterTask, batch: Sample) -> float:
    """The mean over outputs of the mean over labelled cells, cell by cell."""
    with torch.no_grad():
        outputs = [output.numpy() for output in task.model(batch["images"])]
    means = []
    for logits in outputs:
        num, _, height, width = logits.shape
        losses = []
        for b in range(num):
            for y in range(height):
                for x in range(width):
                    # the label under the middle of the cell
                    label = int(batch["labels"][b, int((y + 0.5) * 49 / height), int((x + 0.5) * 49 / width)])
                    if label != IGNORE:
                        scores = logits[b, :, y, x]
                        losses.append(np.log(np.exp(scores).sum()) - scores[label])
        means.append(np.mean(losses))
    return float(np.mean(means))


def test_samples_depend_on_seed_epoch_and_image_only(index_path, task):
    again, other_seed = task_of(index_path), task_of(index_path, seed=4)
    again.rows = again.rows[::-1]
    there = [sample_key(task.sample(number, epoch)) for epoch in (0, 1) for number in range(8)]
    assert there == [sample_key(again.sample(7 - number, epoch)) for epoch in (0, 1) for number in range(8)]
    assert len(set(there)) == 16
    assert not set(there) & {sample_key(other_seed.sample(number, 0)) for number in range(8)}


def test_padding_has_no_label(index_path):
    task = task_of(index_path, rescale=(0.4,))
    for number in range(8):
        sample = task.sample(number, 0)
        assert sample["images"].shape == (3, 49, 49)
        assert sample["labels"].shape == (49, 49)
        padding = (sample["images"] == 0).all(dim=0)
        assert torch.all(sample["labels"][padding] == IGNORE)
        assert padding.any()
        assert torch.all(sample["labels"][~padding] != IGNORE)


def test_scales_are_drawn_from_the_recipes(index_path):
    task = task_of(index_path, rescale=(0.25, 0.5), long_side=96)
    shown = ((task.sample(number, epoch)["images"] != 0).any(dim=0) for number in range(8) for epoch in range(3))
    assert {int(max(pixels.any(dim=0).sum(), pixels.any(dim=1).sum())) for pixels in shown} == {24, 48}


def test_the_loss_is_the_mean_over_labelled_pixels_of_the_whole_batch(task):
    batch = batch_of(task, 0, 1, 2, 3)
    batch["labels"][1, :30] = IGNORE
    batch["labels"][2] = IGNORE
    loss = total(task, batch, task.counts(batch))
    assert loss.item() == pytest.approx(mean_cross_entropy(task, batch), rel=1e-9)


def test_shares_of_any_split_add_up_though_their_labelled_pixels_differ(task):
    batch, parts = batch_of(task, 0, 1, 2), [batch_of(task, 0), batch_of(task, 1), batch_of(task, 2)]
    for labels in (batch["labels"][1], parts[1]["labels"][0]):
        labels[:40] = IGNORE
    counts = task.counts(batch)
    torch.testing.assert_close(sum(task.counts(part) for part in parts), counts)
    torch.testing.assert_close(sum(total(task, part, counts) for part in parts), total(task, batch, counts))
    own_means = np.mean([total(task, part, task.counts(part)).item() for part in parts])
    assert own_means != pytest.approx(total(task, batch, counts).item(), rel=1e-5)


def test_unknown_pixels_have_no_gradient(task):
    batch = batch_of(task, 0)
    batch["labels"][0, :, 24:] = IGNORE
    outputs = [output.detach().requires_grad_() for output in task.model(batch["images"])]
    task.losses(lambda _: outputs, batch, task.counts(batch), part=1)["segmentation"].backward()
    for output in outputs:
        middle = output.shape[-1] // 2
        assert torch.all(output.grad[..., middle + 1 :] == 0)
        assert torch.all(output.grad[..., :middle].abs().sum(dim=1) > 0)


def test_a_batch_without_any_label_has_no_loss(task):
    batch = batch_of(task, 0)
    batch["labels"].fill_(IGNORE)
    loss = total(task, batch, task.counts(batch))
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or torch.all(p.grad == 0) for p in task.model.parameters())


def test_learning_rates_are_one_ten_and_twentyfold_and_biases_do_not_decay(task):
    backbone, aspp_weights, aspp_biases = task.parameter_groups()
    assert [group["lr"] for group in (backbone, aspp_weights, aspp_biases)] == pytest.approx([0.01, 0.1, 0.2])
    assert [group["weight_decay"] for group in (backbone, aspp_weights, aspp_biases)] == [5e-4, 5e-4, 0]
    names = {id(parameter): name for name, parameter in task.model.named_parameters()}
    assert {names[id(p)] for p in aspp_weights["params"]} == {"aspp.0.weight", "aspp.1.weight"}
    assert {names[id(p)] for p in aspp_biases["params"]} == {"aspp.0.bias", "aspp.1.bias"}
    assert all(names[id(p)].startswith("backbone.") for p in backbone["params"])
    trainable = {id(p) for p in task.model.parameters() if p.requires_grad}
    assert {id(p) for group in (backbone, aspp_weights, aspp_biases) for p in group["params"]} == trainable


def test_training_moves_every_convolution_and_no_batch_norm(index_path, tmp_path):
    spec = tiny_spec("segmenter", index_path, tmp_path)
    before = {name: value.double() for name, value in build_task(spec).model.state_dict().items()}
    task, _ = train_to_end(spec)
    moved = {name for name, value in weights(tmp_path).items() if not torch.equal(value, before[name])}
    assert moved == {name for name, parameter in task.model.named_parameters() if parameter.requires_grad}
    assert not any("bn" in name for name in moved)


def test_masks_are_learned(index_path, tmp_path):
    train_to_end(tiny_spec("segmenter", index_path, tmp_path, num_steps=24))
    losses = [line["loss"] for line in metrics(tmp_path)]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:2])


def test_a_training_that_starts_from_a_caffe_network_has_targets_of_its_sizes(index_path, tmp_path):
    backbone = Backbone(name="resnet50", weights="none")
    first = task_of(index_path, backbone=backbone, crop=321)
    first.model.backbone.use_caffe()
    torch.save({"model": first.model.state_dict()}, tmp_path / "weights.pt")
    task = task_of(index_path, backbone=backbone, crop=321, start_from=str(tmp_path / "weights.pt"))
    task.model.float()
    batch = {"images": torch.zeros(1, 3, 321, 321), "labels": torch.zeros(1, 321, 321, dtype=torch.uint8)}
    with torch.no_grad():
        assert total(task, batch, task.counts(batch)).isfinite()
