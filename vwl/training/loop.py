"""The training loop of all three networks: steps, gradient accumulation, checkpoints, metrics. Uses torch.distributed, not Ray.

In a step, each worker reads its micro-batches of the global batch, the counts that losses are divided by are summed over workers, the
gradients of all micro-batches add up, and SGD moves the parameters at a polynomially decayed learning rate. The state after a step
depends on (recipe, seed, step) only: torch's generators are seeded for each step, so checkpoints hold no random state.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from vwl.config.layout import Layout
from vwl.data.sampler import generator, global_batch, steps_per_epoch
from vwl.errors import VwlError
from vwl.models.weights import weight_reports
from vwl.storage.folder import Folder
from vwl.training import checkpoint
from vwl.training.distributed import all_reduce, device, rank, world_size
from vwl.training.loader import Reading, read_ahead
from vwl.training.metrics_file import drop_later_lines
from vwl.training.numerics import Numerics, arithmetic, numerics_of
from vwl.training.schedule import Schedule
from vwl.training.task import Sample, Task
from vwl.training.tensorboard import TensorBoard

Metrics = dict[str, float]
WEIGHTS = "weights.pt"
"""Name of the file of a finished training's weights."""
LOG_EVERY = 10
"""Steps between lines of metrics.jsonl."""


@dataclass
class Callbacks:
    """Callbacks for progress and stopping.

    Attributes:
        on_step: called on worker 0 before the first step and after each with (step, num_steps, metrics): the newest line of
            metrics.jsonl with the step's own loss; nothing before the first.
        should_stop: called on each worker before each step; when true on any, all save a checkpoint and return.
    """

    on_step: Callable[[int, int, Metrics], None] = field(default=lambda step, num_steps, metrics: None)
    should_stop: Callable[[], bool] = field(default=lambda: False)


@dataclass(frozen=True)
class TrainResult:
    """What a training ended with; the same on every worker.

    Attributes:
        finished: false if it was stopped on request; there are no weights then.
        step: steps done.
        scores: of the last evaluation on held-out images, e.g. `val_map`.
        pretrained: one line for each weights file that was loaded into the network at the start.
        numerics: device and arithmetic of this worker.
        notes: lines for the user on the result.
    """

    finished: bool
    step: int
    scores: dict[str, float]
    pretrained: list[str]
    numerics: Numerics
    notes: list[str] = field(default_factory=list)


def train(task: Task, layout: Layout, folder: Folder, fingerprint: str, callbacks: Callbacks | None = None) -> TrainResult:
    """Train to the end, or until a requested stop, going on from the last checkpoint in `folder`.

    Args:
        task: model, samples and losses; the same on every worker.
        layout: micro-batches, precision and checkpoint interval.
        folder: gets `checkpoints/` and `metrics.jsonl`, and `weights.pt` when the training is finished.
        fingerprint: identifies recipe and inputs; a checkpoint with another one is refused.
        callbacks: progress and stop requests.

    Raises:
        VwlError: an image cannot be read, the loss is not finite, the folder cannot be written, or it holds a checkpoint of another
            recipe.
    """
    callbacks = callbacks or Callbacks()
    numerics = numerics_of(layout, device())
    with arithmetic(numerics):
        trainer = _Trainer(task, layout, folder, fingerprint)
        pretrained = [str(report) for report in weight_reports(task.model)]
        if trainer.saved_step is None:
            if rank() == 0:
                callbacks.on_step(0, task.num_steps, {})
            trainer.start()
        with closing(read_ahead(task, trainer.reading())) as trainer.samples:
            finished = _all_steps(trainer, callbacks)
    if finished and rank() == 0:
        checkpoint.save(folder, WEIGHTS, {"model": task.model.state_dict(), "fingerprint": fingerprint})
    return TrainResult(finished, trainer.step, trainer.scores, pretrained, numerics, task.notes() if finished else [])


def _all_steps(trainer: "_Trainer", callbacks: Callbacks) -> bool:
    """Do the remaining steps and save; false if any worker was asked to stop before the last."""
    schedule = trainer.schedule
    while trainer.step < schedule.num_steps:
        if not trainer.unread and trainer.any_worker(callbacks.should_stop()):
            trainer.save()
            return False
        trainer.one_step()
        if not schedule.reads_losses(trainer.step):
            continue
        done = trainer.read_losses()
        if schedule.evaluates(trainer.step):
            trainer.evaluate()
        if schedule.saves(trainer.step):
            trainer.save()
        if rank() == 0:
            for step, metrics in done:
                callbacks.on_step(step, schedule.num_steps, metrics)
    return True


class _Trainer:
    """A training between two steps."""

    def __init__(self, task: Task, layout: Layout, folder: Folder, fingerprint: str) -> None:
        self.task, self.layout, self.folder, self.fingerprint = task, layout, folder, fingerprint
        self.device = device()
        self.samples: Iterator[list[Sample]] = iter(())
        self.unread: list[dict[str, torch.Tensor]] = []
        layout.split_batch(task.batch_size)  # refuses what does not divide
        self.micro_batch = layout.micro_batch_size(task.batch_size, world_size())
        self.epoch_steps = steps_per_epoch(task.num_samples, task.batch_size)
        self.schedule = Schedule(task.num_steps, self.epoch_steps, layout.checkpoint_steps, layout.steps_between_reads, LOG_EVERY)
        self.step = 0
        self.saved_step: int | None = None
        self.scores: Metrics = {}
        self.last_metrics: Metrics = {}
        self.dtype = torch.float64 if layout.precision == "float64" else torch.float32
        task.model.to(device=self.device, dtype=self.dtype).to(memory_format=torch.channels_last)
        self.groups = task.parameter_groups()
        self.optimiser = torch.optim.SGD(self.groups, momentum=task.optimiser.momentum)
        self.initial_lrs = [group["lr"] for group in self.groups]
        self.forward: nn.Module = task.model
        if world_size() > 1:
            # Every worker builds and updates the same buffers; a broadcast would hide one that does not.
            self.forward = DistributedDataParallel(task.model, forward_sync_buffers=False)
            if layout.gradient_reduce == "bf16":
                self.forward.register_comm_hook(None, bf16_compress_hook)
        self._resume()  # after DDP, which copies worker 0's buffers: accumulated counts differ between workers
        if layout.compile:
            self.forward.compile()
        self.board = TensorBoard(folder, self.step)
        self.clock, self.waited, self.images = time.perf_counter(), 0.0, 0

    def reading(self) -> Reading:
        """Return what the loader is to read."""
        return Reading(self.step, self.micro_batch, self.layout.num_loaders, self.dtype, pinned=self.device.type == "cuda")

    def _resume(self) -> None:
        state = checkpoint.load_last(self.folder / "checkpoints")
        if state is not None:
            if state["fingerprint"] != self.fingerprint:
                raise VwlError(
                    f"{self.folder} holds a checkpoint of another recipe or data set; use another run folder, or --overwrite to train anew"
                )
            self.task.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = self.saved_step = state["step"]
            self.scores = state["scores"]
            for name, count in self.task.accumulated_counts().items():
                # Counts add up over workers: worker 0 goes on from the sum, the others from zero.
                count.copy_(state["accumulated_counts"][name] if rank() == 0 else torch.zeros_like(count))
        if rank() == 0:
            (self.folder / "checkpoints").sweep()
            drop_later_lines(self.folder, -1 if state is None else self.step)

    def save(self) -> None:
        """Write a checkpoint of the state after `self.step` steps."""
        if self.step == self.saved_step:
            return
        counts = {name: all_reduce(count.clone()) for name, count in self.task.accumulated_counts().items()}
        if rank() == 0:
            state = {
                "step": self.step,
                "model": self.task.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "accumulated_counts": counts,
                "scores": self.scores,
                "fingerprint": self.fingerprint,
            }
            checkpoint.save_step(self.folder / "checkpoints", self.step, state)
            self.board.save()
        self.saved_step = self.step

    def start(self) -> None:
        """Let the task prepare itself before the first step, and log the scores it starts from."""
        self.scores = self.task.start()
        if self.task.num_steps == 0:
            self.scores |= self.task.evaluate()
        if self.scores:
            self._write({"step": 0, "epoch": 0, **self.scores})

    def any_worker(self, flag: bool) -> bool:
        """Return whether the flag is set on any worker."""
        return bool(all_reduce(torch.tensor([float(flag)], device=self.device)).item())

    def one_step(self) -> None:
        """Do one optimiser step; nothing in it waits for the device. `read_losses` tells how it went."""
        task = self.task
        torch.manual_seed(int(generator(task.seed, "step", self.step).integers(2**63)))
        began = time.perf_counter()
        batches = [{k: v.to(self.device, non_blocking=True) for k, v in batch.items()} for batch in next(self.samples)]
        self.waited += time.perf_counter() - began
        self._set_learning_rates()
        if self.step == 0:
            task.init_codebook(batches)
        counts = all_reduce(torch.stack([task.counts(batch).to(self.device) for batch in batches]).sum(dim=0))
        self.optimiser.zero_grad(set_to_none=True)
        totals: dict[str, torch.Tensor] = {}
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with self._sync(last):
                with self._autocast():
                    terms = task.losses(self.forward, batch, counts, part=1 / (world_size() * len(batches)))
                loss = torch.stack([*terms.values()]).sum()
                if last:
                    task.start_codebook_reduce()
                # DDP averages the workers' gradients; the shares of the loss are to be summed.
                torch.autograd.backward(loss * world_size())
            for name, value in terms.items():
                totals[name] = totals.get(name, 0) + value.detach().double()
        self.unread.append(totals)
        if task.optimiser.clip_norm is not None:
            nn.utils.clip_grad_norm_([p for g in self.groups for p in g["params"]], task.optimiser.clip_norm)
        self.optimiser.step()
        task.update_codebook()
        self.step += 1
        self.images += task.batch_size

    def read_losses(self) -> list[tuple[int, Metrics]]:
        """Return the steps since the last call and their metrics, and log the newest.

        Raises:
            VwlError: a loss is not finite; the message names the first such step.
        """
        unread, self.unread = self.unread, []
        values = all_reduce(torch.stack([torch.stack([*totals.values()]) for totals in unread])).tolist()
        steps = [
            (self.step - len(unread) + number, dict(zip(totals, terms, strict=True)))
            for number, (totals, terms) in enumerate(zip(unread, values, strict=True), 1)
        ]
        for step, terms in steps:
            self._check_finite(step, terms)
        *earlier, (_, newest) = steps
        metrics = [(step, {**self.last_metrics, "loss": sum(terms.values())}) for step, terms in earlier]
        return [*metrics, (self.step, self._log(newest))]

    def _sync(self, last: bool) -> Any:
        ddp = self.forward
        return ddp.no_sync() if isinstance(ddp, DistributedDataParallel) and not last else nullcontext()

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16) if self.layout.precision == "bf16" else nullcontext()

    def _set_learning_rates(self) -> None:
        decay = (1 - self.step / self.task.num_steps) ** self.task.optimiser.power
        for group, rate in zip(self.optimiser.param_groups, self.initial_lrs, strict=True):
            group["lr"] = rate * decay

    def _check_finite(self, step: int, terms: dict[str, float]) -> None:
        if all(math.isfinite(value) for value in terms.values()):
            return
        _, numbers = global_batch(self.task.seed, step - 1, self.task.num_samples, self.task.batch_size)
        ids = ", ".join(self.task.image_ids[n] for n in numbers)
        shown = ", ".join(f"{name} {value:g}" for name, value in terms.items())
        raise VwlError(
            f"{self.task.name}: the loss is not finite at step {step} ({shown}); images of the batch: {ids}; "
            f"lower {self.task.name}.optimiser.learning_rate"
        )

    def _log(self, terms: dict[str, float]) -> Metrics:
        total = sum(terms.values())
        if not self.schedule.logs(self.step):
            return {**self.last_metrics, "loss": total}
        codebook_metrics = self.task.codebook_metrics()
        seconds = time.perf_counter() - self.clock
        line = {
            "step": self.step,
            "epoch": (self.step - 1) // self.epoch_steps,
            "num_steps": self.task.num_steps,
            "loss": total,
            **{f"loss_{name}": value for name, value in terms.items()},
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "images_per_second": round(self.images / seconds, 3),
            "data_wait_share": round(self.waited / seconds, 4),
            **codebook_metrics,
        }
        self._write(line)
        self.clock, self.waited, self.images = time.perf_counter(), 0.0, 0
        self.last_metrics = line
        return line

    def evaluate(self) -> None:
        """Score the model on held-out images and log it."""
        scores = self.task.evaluate()
        if scores:
            self.scores = self.scores | scores
            self._write({"step": self.step, "epoch": (self.step - 1) // self.epoch_steps, **scores})

    def _write(self, line: dict[str, Any]) -> None:
        if rank() == 0:
            self.folder.append("metrics.jsonl", json.dumps(line) + "\n")
            self.board.add(line)
