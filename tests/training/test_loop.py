"""The one loop, on a task small enough to be followed by hand, and on the four trainings."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from tests.trainings import KINDS, make_data, metrics, tiny_spec, train_to_end, weights
from vwl.config.layout import Layout
from vwl.config.recipe import Optimiser
from vwl.data.sampler import global_batch
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.training import checkpoint, loop
from vwl.training.loop import Callbacks, TrainResult
from vwl.training.numerics import Numerics
from vwl.training.task import Forward, Sample, Task

FLOAT64 = Numerics(precision="float64")


class Slope(Task):
    """A line w x + b whose height is to fall: w has the gradient mean(x) + 1 in every step, b the gradient 1 and ten times the rate."""

    name: ClassVar[str] = "slope"

    def __init__(self, num_steps: int = 10, broken: tuple[str, ...] = (), **optimiser: Any) -> None:
        self.model = nn.Linear(1, 1)
        nn.init.zeros_(self.model.weight)
        nn.init.zeros_(self.model.bias)
        self.optimiser = Optimiser(**{"learning_rate": 0.1, "momentum": 0, "weight_decay": 0, **optimiser})
        self.batch_size, self.num_steps, self.num_samples, self.seed = 4, num_steps, 10, 5
        self.image_ids = [f"image{number}" for number in range(10)]
        self.broken = broken
        self.seen = torch.zeros(10, dtype=torch.int64)
        self.drawn: list[tuple[int, int]] = []

    def parameter_groups(self) -> list[dict[str, Any]]:
        rate, decay = self.optimiser.learning_rate, self.optimiser.weight_decay
        return [
            {"params": [self.model.weight], "lr": rate, "weight_decay": decay},
            {"params": [self.model.bias], "lr": 10 * rate, "weight_decay": 0.0},
        ]

    def sample(self, number: int, epoch: int) -> Sample:
        if self.image_ids[number] in self.broken:
            raise VwlError(f"image {self.image_ids[number]} cannot be read")
        self.drawn.append((epoch, number))
        return {"x": torch.tensor([float(number)]), "number": torch.tensor(number)}

    def losses(self, forward: Forward, batch: Sample, counts: torch.Tensor, part: float) -> dict[str, torch.Tensor]:
        self.seen += torch.bincount(batch["number"], minlength=10)
        return {"height": forward(batch["x"]).sum() / counts[0], "level": part * self.model.weight.sum()}

    def evaluate(self) -> dict[str, float]:
        return {"val_slope": self.model.weight.item()}

    def accumulated_counts(self) -> dict[str, torch.Tensor]:
        return {"seen": self.seen}

    def codebook_metrics(self) -> dict[str, float]:
        most = float(self.seen.max())
        self.seen.zero_()
        return {"most_seen": most}


def run(
    folder: Path, task: Task | None = None, callbacks: Callbacks | None = None, fingerprint: str = "same", **layout: Any
) -> dict[str, Any]:
    return loop.train(task or Slope(), Layout(**{"precision": "float64", **layout}), Folder(folder), fingerprint, callbacks)


def stop_before(step: int) -> Callbacks:
    """Ask for a stop when `step` steps of this process are done."""
    asked = iter(range(10**6))
    return Callbacks(should_stop=lambda: next(asked) == step)


def break_off(step: int) -> Callbacks:
    """End as a crash does, right after a step."""

    def progress(done: int, total: int, text: str) -> None:
        if done == step:
            raise ConnectionAbortedError

    return Callbacks(on_step=progress)


def by_hand(num_steps: int, rate: float = 0.1, momentum: float = 0.0, decay: float = 0.0, clip: float | None = None) -> tuple[float, float]:
    w = b = velocity_w = velocity_b = 0.0
    for step in range(num_steps):
        _, numbers = global_batch(5, step, 10, 4)
        gradient_w, gradient_b = numbers.mean() + 1, 1.0
        length = (gradient_w**2 + gradient_b**2) ** 0.5
        if clip is not None and length > clip:
            gradient_w, gradient_b = gradient_w * clip / length, gradient_b * clip / length
        velocity_w = momentum * velocity_w + gradient_w + decay * w
        velocity_b = momentum * velocity_b + gradient_b
        now = rate * (1 - step / num_steps) ** 0.9
        w, b = w - now * velocity_w, b - 10 * now * velocity_b
    return w, b


def line(folder: Path) -> tuple[float, float]:
    state = weights(folder)
    return state["weight"].item(), state["bias"].item()


@pytest.fixture
def every_step(monkeypatch) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 1)


class TestSteps:
    @pytest.mark.parametrize("micro_batch", [1, 2, 4])
    def test_a_step_follows_the_mean_gradient_of_the_global_batch(self, tmp_path, micro_batch):
        run(tmp_path, micro_batch=micro_batch)
        assert line(tmp_path) == pytest.approx(by_hand(10), rel=1e-12)

    def test_momentum_and_weight_decay_are_those_of_sgd_by_group(self, tmp_path):
        run(tmp_path, Slope(momentum=0.9, weight_decay=0.3))
        assert line(tmp_path) == pytest.approx(by_hand(10, momentum=0.9, decay=0.3), rel=1e-12)

    def test_clipping_shortens_the_whole_gradient(self, tmp_path):
        run(tmp_path, Slope(clip_norm=2.0), micro_batch=2)
        assert line(tmp_path) == pytest.approx(by_hand(10, clip=2.0), rel=1e-6)

    def test_learning_rates_fall_by_the_polynomial_of_every_step(self, tmp_path, every_step):
        run(tmp_path)
        rates = [entry["learning_rate"] for entry in metrics(tmp_path) if "loss" in entry]
        assert rates == pytest.approx([0.1 * (1 - t / 10) ** 0.9 for t in range(10)])

    def test_every_epoch_draws_its_own_samples_in_the_samplers_order(self, tmp_path):
        task = Slope(num_steps=5)
        run(tmp_path, task)
        batches = (global_batch(5, step, 10, 4) for step in range(5))
        assert task.drawn == [(epoch, number) for epoch, numbers in batches for number in numbers]

    def test_the_line_of_a_step_holds_its_terms(self, tmp_path, every_step):
        run(tmp_path, micro_batch=2)
        first = metrics(tmp_path)[0]
        assert first["step"] == 1
        assert first["loss"] == first["loss_height"] == first["loss_level"] == 0  # the line starts at zero
        second = metrics(tmp_path)[1]
        w, b = (-0.1 * (global_batch(5, 0, 10, 4)[1].mean() + 1), -1.0)
        assert second["loss_height"] == pytest.approx(w * global_batch(5, 1, 10, 4)[1].mean() + b)
        assert second["loss_level"] == pytest.approx(w)
        assert second["loss"] == pytest.approx(second["loss_height"] + second["loss_level"])

    def test_random_numbers_of_a_step_depend_on_seed_and_step_only(self, tmp_path):
        def draws(folder: Path, disturb: bool, stop: int | None = None) -> list[float]:
            found = []

            class Drawing(Slope):
                def losses(self, *arguments: Any, **named: Any) -> dict[str, torch.Tensor]:
                    found.append(torch.rand(1).item())
                    if disturb:
                        torch.rand(7)
                    return super().losses(*arguments, **named)

            run(folder, Drawing(), None if stop is None else stop_before(stop))
            return found

        undisturbed = draws(tmp_path / "a", False)
        assert len(set(undisturbed)) == 10
        assert draws(tmp_path / "b", True) == undisturbed
        assert draws(tmp_path / "c", False, stop=4) + draws(tmp_path / "c", False) == undisturbed

    def test_lines_are_written_each_ten_steps_and_at_the_end(self, tmp_path):
        run(tmp_path, Slope(num_steps=24))
        assert [entry["step"] for entry in metrics(tmp_path) if "loss" in entry] == [10, 20, 24]

    def test_scores_are_written_after_each_epoch_and_at_the_end(self, tmp_path):
        result = run(tmp_path, Slope(num_steps=5))
        scored = [entry for entry in metrics(tmp_path) if "val_slope" in entry]
        assert [(entry["step"], entry["epoch"]) for entry in scored] == [(2, 0), (4, 1), (5, 2)]
        assert result == TrainResult(True, 5, {"val_slope": line(tmp_path)[0]}, [], FLOAT64)

    def test_on_step_is_called_before_the_first_step_and_after_each_with_its_metrics(self, tmp_path):
        calls = []
        run(tmp_path, callbacks=Callbacks(on_step=lambda *arguments: calls.append(arguments)))
        assert [(step, total) for step, total, _ in calls] == [(step, 10) for step in range(11)]
        assert calls[0][2] == {}
        assert calls[1][2] == {"loss": 0}
        assert calls[-1][2]["images_per_second"] > 0


class TestMistakes:
    def test_a_loss_that_is_not_finite_names_step_terms_and_images(self, tmp_path):
        task = Slope()
        with torch.no_grad():
            task.model.bias.fill_(float("inf"))
        ids = ", ".join(f"image{number}" for number in global_batch(5, 0, 10, 4)[1])
        with pytest.raises(
            VwlError, match=rf"slope: the loss is not finite at step 1 \(height inf, level 0\); images of the batch: {ids};"
        ):
            run(tmp_path, task)
        assert checkpoint.steps(Folder(tmp_path) / "checkpoints") == []

    def test_the_state_before_a_loss_that_is_not_finite_is_kept(self, tmp_path):
        class LaterNotANumber(Slope):
            def sample(self, number: int, epoch: int) -> Sample:
                return {**super().sample(number, epoch), "x": torch.tensor([float("nan") if epoch else 1.0])}

        with pytest.raises(VwlError, match=r"at step 3 \(height nan"):
            run(tmp_path, LaterNotANumber(), checkpoint_steps=1)
        assert checkpoint.steps(Folder(tmp_path) / "checkpoints") == [1, 2]

    def test_an_image_that_cannot_be_read_is_named(self, tmp_path):
        with pytest.raises(VwlError, match="image image3 cannot be read"):
            run(tmp_path, Slope(broken=("image3",)))

    def test_a_checkpoint_of_another_recipe_is_refused(self, tmp_path):
        run(tmp_path, callbacks=stop_before(3))
        before = (tmp_path / "metrics.jsonl").read_bytes()
        with pytest.raises(VwlError, match="holds a checkpoint of another recipe or data set; use another run folder, or --overwrite"):
            run(tmp_path, fingerprint="another")
        assert (tmp_path / "metrics.jsonl").read_bytes() == before
        assert checkpoint.steps(Folder(tmp_path) / "checkpoints") == [3]


class TestResume:
    @pytest.fixture
    def whole(self, tmp_path_factory, monkeypatch) -> Path:
        """A training that was not disturbed."""
        monkeypatch.setattr(loop, "LOG_EVERY", 4)
        folder = tmp_path_factory.mktemp("whole")
        run(folder, Slope(momentum=0.9))
        return folder

    def assert_like(self, folder: Path, whole: Path) -> None:
        assert line(folder) == line(whole)
        assert metrics(folder) == metrics(whole)

    @pytest.mark.parametrize("step", [0, 1, 3, 4, 9])
    def test_a_stopped_training_goes_on_where_it_stopped(self, tmp_path, whole, step):
        result = run(tmp_path, Slope(momentum=0.9), stop_before(step))
        assert result.finished is False
        assert result.step == step
        assert not (tmp_path / "weights.pt").exists()
        task = Slope(momentum=0.9)
        run(tmp_path, task)
        assert len(task.drawn) == (10 - step) * 4
        self.assert_like(tmp_path, whole)

    def test_a_training_may_be_stopped_again_and_again(self, tmp_path, whole):
        for _ in range(9):
            run(tmp_path, Slope(momentum=0.9), stop_before(1))
        assert run(tmp_path, Slope(momentum=0.9)).finished
        self.assert_like(tmp_path, whole)

    @pytest.mark.parametrize("step", [3, 5, 8, 10])
    def test_a_crash_costs_the_steps_since_the_last_checkpoint(self, tmp_path, whole, step):
        with pytest.raises(ConnectionAbortedError):
            run(tmp_path, Slope(momentum=0.9), break_off(step), checkpoint_steps=3)
        task = Slope(momentum=0.9)
        run(tmp_path, task, checkpoint_steps=3)
        assert len(task.drawn) == (10 - (step if step == 10 else step // 3 * 3)) * 4
        self.assert_like(tmp_path, whole)

    def test_a_crash_before_the_first_checkpoint_leaves_no_line_twice(self, tmp_path, whole):
        with pytest.raises(ConnectionAbortedError):
            run(tmp_path, Slope(momentum=0.9), break_off(6))
        run(tmp_path, Slope(momentum=0.9))
        self.assert_like(tmp_path, whole)

    def test_the_scores_of_the_start_are_logged_once_after_a_crash_before_the_first_checkpoint(self, tmp_path):
        class Probed(Slope):
            def start(self):
                return {"probe_val_map": 0.5}

        with pytest.raises(ConnectionAbortedError):
            run(tmp_path, Probed(), break_off(6))
        run(tmp_path, Probed())
        assert [entry for entry in metrics(tmp_path) if entry["step"] == 0] == [{"step": 0, "epoch": 0, "probe_val_map": 0.5}]

    @pytest.mark.parametrize("damaged", [b'{"step": 5, "lo', b'{"step": 5, "lo\n{}\n', b'\xff\xfe}\n[]\n{"step": "x"}\n{"step": 5}x}\n'])
    def test_damaged_lines_of_a_crash_are_dropped(self, tmp_path, whole, damaged):
        run(tmp_path, Slope(momentum=0.9), stop_before(5))
        with (tmp_path / "metrics.jsonl").open("ab") as file:
            file.write(damaged)
        run(tmp_path, Slope(momentum=0.9))
        self.assert_like(tmp_path, whole)

    def test_another_layout_may_go_on(self, tmp_path, whole):
        run(tmp_path, Slope(momentum=0.9), stop_before(5), micro_batch=4)
        run(tmp_path, Slope(momentum=0.9), micro_batch=1)
        assert line(tmp_path) == pytest.approx(line(whole), rel=1e-12)

    def test_a_damaged_checkpoint_is_replaced_on_the_way(self, tmp_path, whole):
        folder = Folder(tmp_path) / "checkpoints"
        run(tmp_path, Slope(momentum=0.9), stop_before(6), checkpoint_steps=4)
        assert checkpoint.steps(folder) == [4, 6]
        folder.write("step-00000006.pt", folder.read("step-00000006.pt")[:100])
        task = Slope(momentum=0.9)
        run(tmp_path, task, stop_before(2), checkpoint_steps=4)
        assert len(task.drawn) >= 2 * 4
        assert checkpoint.load(folder, "step-00000006.pt")["step"] == 6
        run(tmp_path, Slope(momentum=0.9))
        self.assert_like(tmp_path, whole)

    def test_the_last_two_checkpoints_are_kept(self, tmp_path):
        run(tmp_path, checkpoint_steps=3)
        assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000009.pt", "step-00000010.pt"]

    def test_a_finished_training_is_not_done_again(self, tmp_path, whole):
        task = Slope(momentum=0.9)
        (whole / "weights.pt").unlink()
        result = run(whole, task)
        assert task.drawn == []
        assert result == TrainResult(True, 10, {"val_slope": line(whole)[0]}, [], FLOAT64)


class TestTheFourTrainings:
    @pytest.fixture(scope="class")
    def index_path(self, tmp_path_factory) -> Path:
        return make_data(tmp_path_factory.mktemp("resume"))

    @pytest.fixture(scope="class")
    def train(self, index_path) -> Callable[..., Any]:
        layout = Layout(checkpoint_steps=2)
        return lambda kind, folder, callbacks=None: train_to_end(tiny_spec(kind, index_path, folder), layout, callbacks, log_every=5)

    def assert_same_bits(self, one: Path, other: Path) -> None:
        assert metrics(one) == metrics(other)
        assert all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())
        last, expected = (checkpoint.load_last(Folder(folder) / "checkpoints") for folder in (one, other))
        for number, state in last["optimiser"]["state"].items():
            assert torch.equal(state["momentum_buffer"], expected["optimiser"]["state"][number]["momentum_buffer"])

    @pytest.mark.parametrize("kind", KINDS)
    def test_stopped_or_copied_midway_they_end_with_the_bits_of_an_undisturbed_one(self, train, tmp_path, kind):
        def copy(step: int, total: int, text: str) -> None:
            if step == 5:  # its line of this step is later than its checkpoint of step 4
                shutil.copytree(tmp_path / "whole", tmp_path / "copied")

        train(kind, tmp_path / "whole", Callbacks(on_step=copy))
        _, result = train(kind, tmp_path / "stopped", stop_before(3))
        assert result.finished is False
        train(kind, tmp_path / "stopped")
        self.assert_same_bits(tmp_path / "stopped", tmp_path / "whole")
        assert metrics(tmp_path / "copied")[-1]["step"] == 5
        train(kind, tmp_path / "copied")
        self.assert_same_bits(tmp_path / "copied", tmp_path / "whole")

    @pytest.mark.parametrize("kind", KINDS)
    def test_in_bf16_the_losses_are_nearly_those_of_float32(self, index_path, tmp_path, kind):
        for precision in ("bf16", "float32"):
            train_to_end(tiny_spec(kind, index_path, tmp_path / precision, num_steps=3), Layout(precision=precision))
        half, full = ([entry["loss"] for entry in metrics(tmp_path / name) if "loss" in entry] for name in ("bf16", "float32"))
        assert half == pytest.approx(full, rel=0.03)
        assert half != full
        assert all(value.dtype != torch.bfloat16 for value in weights(tmp_path / "bf16").values())
