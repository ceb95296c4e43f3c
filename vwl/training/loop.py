"""The training loop of all three networks: steps, gradient accumulation, checkpoints, metrics. Uses torch.distributed, not Ray.

In a step, each worker reads its micro-batches of the global batch, the counts that losses are divided by are summed over workers, the
gradients of all micro-batches add up, and SGD moves the parameters at a polynomially decayed learning rate. The state after a step
depends on (recipe, seed, step) only: torch's generators are seeded for each step, so checkpoints hold no random state.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vwl.config.layout import Layout
from vwl.data.sampler import generator, global_batch, share, steps_per_epoch
from vwl.errors import VwlError
from vwl.models.weights import weight_reports
from vwl.storage.folder import Folder
from vwl.training import checkpoint
from vwl.training.distributed import all_reduce, device, rank, world_size
from vwl.training.task import Sample, Task
from vwl.training.tensorboard import TensorBoard

Metrics = dict[str, float]
_LOADER_THREADS = 2
"""Threads of a worker that read and augment images."""
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
        notes: lines for the user on the result.
    """

    finished: bool
    step: int
    scores: dict[str, float]
    pretrained: list[str]
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
    trainer = _Trainer(task, layout, folder, fingerprint)
    pretrained = [str(report) for report in weight_reports(task.model)]
    if trainer.saved_step is None:
        if rank() == 0:
            callbacks.on_step(0, task.num_steps, {})
        trainer.start()
    while trainer.step < task.num_steps:
        if trainer.any_worker(callbacks.should_stop()):
            trainer.save()
            return TrainResult(False, trainer.step, trainer.scores, pretrained)
        metrics = trainer.one_step()
        if trainer.step % trainer.epoch_steps == 0 or trainer.step == task.num_steps:
            trainer.evaluate()
        if trainer.step % layout.checkpoint_steps == 0 or trainer.step == task.num_steps:
            trainer.save()
        if rank() == 0:
            callbacks.on_step(trainer.step, task.num_steps, metrics)
    if rank() == 0:
        checkpoint.save(folder, WEIGHTS, {"model": task.model.state_dict(), "fingerprint": fingerprint})
    return TrainResult(True, trainer.step, trainer.scores, pretrained, task.notes())


class _Trainer:
    """A training between two steps."""

    def __init__(self, task: Task, layout: Layout, folder: Folder, fingerprint: str) -> None:
        self.task, self.layout, self.folder, self.fingerprint = task, layout, folder, fingerprint
        self.device = device()
        layout.split_batch(task.batch_size)  # refuses what does not divide
        self.micro_batch = layout.micro_batch_size(task.batch_size, world_size())
        self.epoch_steps = steps_per_epoch(task.num_samples, task.batch_size)
        self.step = 0
        self.saved_step: int | None = None
        self.scores: Metrics = {}
        self.last_metrics: Metrics = {}
        dtype = torch.float64 if layout.precision == "float64" else torch.float32
        task.model.to(device=self.device, dtype=dtype).to(memory_format=torch.channels_last)
        self.groups = task.parameter_groups()
        self.optimiser = torch.optim.SGD(self.groups, momentum=task.optimiser.momentum)
        self.initial_lrs = [group["lr"] for group in self.groups]
        self.forward: nn.Module = task.model
        if world_size() > 1:
            # Every worker builds and updates the same buffers; a broadcast would hide one that does not.
            self.forward = DistributedDataParallel(task.model, forward_sync_buffers=False)
        self._resume()  # after DDP, which copies worker 0's buffers: accumulated counts differ between workers
        if layout.compile:
            self.forward.compile()
        self.board = TensorBoard(folder, self.step)
        self.samples = _read_ahead(task, self.step, self.micro_batch, _LOADER_THREADS, dtype)
        self.clock, self.waited, self.images = time.perf_counter(), 0.0, 0

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
            _drop_later_lines(self.folder, -1 if state is None else self.step)

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

    def one_step(self) -> Metrics:
        """Do one optimiser step and return its metrics."""
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
        values = all_reduce(torch.stack([*totals.values()])).tolist()
        self._check_finite(dict(zip(totals, values, strict=True)))
        if task.optimiser.clip_norm is not None:
            nn.utils.clip_grad_norm_([p for g in self.groups for p in g["params"]], task.optimiser.clip_norm)
        self.optimiser.step()
        task.update_codebook()
        self.step += 1
        self.images += task.batch_size
        return self._log(dict(zip(totals, values, strict=True)))

    def _sync(self, last: bool) -> Any:
        ddp = self.forward
        return ddp.no_sync() if isinstance(ddp, DistributedDataParallel) and not last else nullcontext()

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16) if self.layout.precision == "bf16" else nullcontext()

    def _set_learning_rates(self) -> None:
        decay = (1 - self.step / self.task.num_steps) ** self.task.optimiser.power
        for group, rate in zip(self.optimiser.param_groups, self.initial_lrs, strict=True):
            group["lr"] = rate * decay

    def _check_finite(self, terms: dict[str, float]) -> None:
        if all(math.isfinite(value) for value in terms.values()):
            return
        _, numbers = global_batch(self.task.seed, self.step, self.task.num_samples, self.task.batch_size)
        ids = ", ".join(self.task.image_ids[n] for n in numbers)
        shown = ", ".join(f"{name} {value:g}" for name, value in terms.items())
        raise VwlError(
            f"{self.task.name}: the loss is not finite at step {self.step + 1} ({shown}); images of the batch: {ids}; "
            f"lower {self.task.name}.optimiser.learning_rate"
        )

    def _log(self, terms: dict[str, float]) -> Metrics:
        total = sum(terms.values())
        if self.step % LOG_EVERY and self.step != self.task.num_steps:
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


def _step_of(line: str) -> int | None:
    """Return the step of a line of metrics.jsonl; none if the line is damaged, e.g. cut off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


def _drop_later_lines(folder: Folder, step: int) -> None:
    if not folder.exists("metrics.jsonl"):
        return
    lines = folder.read("metrics.jsonl").decode(errors="replace").splitlines()
    kept = [line for line in lines if (logged := _step_of(line)) is not None and logged <= step]
    folder.write("metrics.jsonl", "".join(f"{line}\n" for line in kept).encode())


def _read_ahead(task: Task, first_step: int, micro_batch: int, threads: int, dtype: torch.dtype) -> Iterator[list[Sample]]:
    """Yield this worker's micro-batches of each step; the next step's are read in threads meanwhile."""

    def order(step: int) -> list[list[Future[Sample]]]:
        epoch, batch = global_batch(task.seed, step, task.num_samples, task.batch_size)
        return [[pool.submit(task.sample, int(n), epoch) for n in part] for part in share(batch, rank(), world_size(), micro_batch)]

    with ThreadPoolExecutor(threads, thread_name_prefix="samples") as pool:
        upcoming = order(first_step)
        for step in range(first_step, task.num_steps):
            current, upcoming = upcoming, (order(step + 1) if step + 1 < task.num_steps else [])
            yield [_stack([future.result() for future in part], dtype) for part in current]


def _stack(samples: list[Sample], dtype: torch.dtype) -> Sample:
    stacked = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    stacked = {k: v.to(dtype) if v.is_floating_point() else v for k, v in stacked.items()}
    return {k: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in stacked.items()}
