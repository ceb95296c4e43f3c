"""The training loop, written once for the three trainings: steps, accumulation, checkpoints, metrics; knows no Ray.

A step is: read this worker's micro-batches of the global batch, sum the counts over workers, add up the gradients of the shares of
the loss, one SGD step with a polynomially decayed learning rate. The state after a step depends on (recipe, seed, step) only: torch's
generators are seeded anew for each step, so there is no random state to be kept.
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

Figures = dict[str, float]
LOG_EVERY = 10
"""Steps between lines of metrics.jsonl."""


@dataclass
class Control:
    """The loop's line to whoever started it.

    Attributes:
        progress: called on worker 0 after each step with (step, num_steps, figures): the newest line of metrics.jsonl with the
            step's own loss.
        stop_requested: asked on each worker before each step; when true on any, all save and leave.
    """

    progress: Callable[[int, int, Figures], None] = field(default=lambda step, total, figures: None)
    stop_requested: Callable[[], bool] = field(default=lambda: False)


def train(task: Task, layout: Layout, folder: Folder, fingerprint: str, control: Control | None = None) -> dict[str, Any]:
    """Train to the end, or to a requested stop, going on from the last checkpoint in `folder`.

    Args:
        task: model, samples and losses; the same on every worker.
        layout: micro-batches, precision and checkpoint interval.
        folder: gets `checkpoints/`, `metrics.jsonl` and, at the end, `weights.pt`.
        fingerprint: identifies recipe and inputs; a checkpoint of another one is refused.
        control: progress and stop requests.

    Returns:
        {"finished": bool, "step": int, "scores": {...}, "weights": [what was loaded into the network]}, the same on every worker.

    Raises:
        VwlError: a photograph cannot be read, the loss is not finite, the folder cannot be written, or holds a checkpoint
            of another recipe.
    """
    control = control or Control()
    trainer = _Trainer(task, layout, folder, fingerprint)
    while trainer.step < task.num_steps:
        if trainer.any_worker(control.stop_requested()):
            trainer.save()
            return {"finished": False, "step": trainer.step, "scores": trainer.scores}
        figures = trainer.one_step()
        if trainer.step % trainer.epoch_steps == 0 or trainer.step == task.num_steps:
            trainer.evaluate()
        if trainer.step % layout.checkpoint_steps == 0 or trainer.step == task.num_steps:
            trainer.save()
        if rank() == 0:
            control.progress(trainer.step, task.num_steps, figures)
    if rank() == 0:
        checkpoint.save(folder, "weights.pt", {"model": task.model.state_dict(), "fingerprint": fingerprint})
    reports = [str(report) for report in weight_reports(task.model)]
    return {"finished": True, "step": trainer.step, "scores": trainer.scores, "weights": reports}


class _Trainer:
    """The state between steps."""

    def __init__(self, task: Task, layout: Layout, folder: Folder, fingerprint: str) -> None:
        self.task, self.layout, self.folder, self.fingerprint = task, layout, folder, fingerprint
        self.device = device()
        layout.pieces(task.batch_size)  # refuses what does not divide
        self.micro_batch = layout.images_at_once(task.batch_size, world_size())
        self.epoch_steps = steps_per_epoch(task.num_samples, task.batch_size)
        self.step = 0
        self.saved_step: int | None = None
        self.scores: dict[str, float] = {}
        self.figures: Figures = {}
        dtype = torch.float64 if layout.precision == "float64" else torch.float32
        task.model.to(device=self.device, dtype=dtype).to(memory_format=torch.channels_last)
        self.groups = task.parameter_groups()
        self.optimiser = torch.optim.SGD(self.groups, momentum=task.optimiser.momentum)
        self.initial_rates = [group["lr"] for group in self.groups]
        self.forward: nn.Module = task.model
        if world_size() > 1:
            # Every worker builds and updates the same buffers; a broadcast would hide one that does not.
            self.forward = DistributedDataParallel(task.model, forward_sync_buffers=False)
        self._resume()  # after that: the wrapper copies worker 0's buffers, also tallies, which are every worker's own
        if layout.compile:
            self.forward.compile()
        self.board = TensorBoard(folder, self.step)
        self.samples = _read_ahead(task, self.step, self.micro_batch, layout.loader_threads, dtype)
        self.clock, self.waited, self.images = time.perf_counter(), 0.0, 0

    def _resume(self) -> None:
        state = checkpoint.load_last(self.folder / "checkpoints")
        if state is not None:
            if state["fingerprint"] != self.fingerprint:
                raise VwlError(f"{self.folder} holds a checkpoint of another recipe or other data; use another run folder or --overwrite")
            self.task.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = self.saved_step = state["step"]
            self.scores = state["scores"]
            for name, tally in self.task.accumulated_counts().items():
                # Tallies add up over workers: one of them goes on from the sum.
                tally.copy_(state["tallies"][name] if rank() == 0 else torch.zeros_like(tally))
        if rank() == 0:
            (self.folder / "checkpoints").sweep()
            _drop_later_lines(self.folder, self.step)

    def save(self) -> None:
        """Write a checkpoint of the state after `self.step` steps."""
        if self.step == self.saved_step:
            return
        tallies = {name: all_reduce(tally.clone()) for name, tally in self.task.accumulated_counts().items()}
        if rank() == 0:
            state = {
                "step": self.step,
                "model": self.task.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "tallies": tallies,
                "scores": self.scores,
                "fingerprint": self.fingerprint,
            }
            checkpoint.save_step(self.folder / "checkpoints", self.step, state)
            self.board.save()
        self.saved_step = self.step

    def any_worker(self, flag: bool) -> bool:
        """Return whether the flag is set on any worker."""
        return bool(all_reduce(torch.tensor([float(flag)], device=self.device)).item())

    def one_step(self) -> Figures:
        """Do one optimiser step and return what there is to tell of it."""
        task = self.task
        torch.manual_seed(int(generator(task.seed, "step", self.step).integers(2**63)))
        began = time.perf_counter()
        batches = [{k: v.to(self.device, non_blocking=True) for k, v in batch.items()} for batch in next(self.samples)]
        self.waited += time.perf_counter() - began
        self._set_rates()
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
                # DDP takes the mean of the workers' gradients, where the shares' sum is wanted.
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

    def _set_rates(self) -> None:
        decay = (1 - self.step / self.task.num_steps) ** self.task.optimiser.power
        for group, rate in zip(self.optimiser.param_groups, self.initial_rates, strict=True):
            group["lr"] = rate * decay

    def _check_finite(self, terms: dict[str, float]) -> None:
        if all(math.isfinite(value) for value in terms.values()):
            return
        _, numbers = global_batch(self.task.seed, self.step, self.task.num_samples, self.task.batch_size)
        ids = ", ".join(self.task.image_ids[n] for n in numbers)
        shown = ", ".join(f"{name} {value:g}" for name, value in terms.items())
        raise VwlError(
            f"{self.task.name}: the loss is not finite at step {self.step + 1} ({shown}); images of the batch: {ids}; lower the rate"
        )

    def _log(self, terms: dict[str, float]) -> Figures:
        total = sum(terms.values())
        if self.step % LOG_EVERY and self.step != self.task.num_steps:
            return {**self.figures, "loss": total}
        health = self.task.codebook_metrics()
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
            **health,
        }
        self._write(line)
        self.clock, self.waited, self.images = time.perf_counter(), 0.0, 0
        self.figures = line
        return line

    def evaluate(self) -> None:
        """Score the model on held-out photographs and log it."""
        found = self.task.evaluate()
        if found:
            self.scores = found
            self._write({"step": self.step, "epoch": (self.step - 1) // self.epoch_steps, **found})

    def _write(self, line: dict[str, Any]) -> None:
        if rank() == 0:
            self.folder.append("metrics.jsonl", json.dumps(line) + "\n")
            self.board.add(line)


def _drop_later_lines(folder: Folder, step: int) -> None:
    if not folder.exists("metrics.jsonl"):
        return
    lines = folder.read("metrics.jsonl").decode().splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    folder.write("metrics.jsonl", "".join(f"{line}\n" for line in kept).encode())


def _read_ahead(task: Task, first_step: int, micro_batch: int, threads: int, dtype: torch.dtype) -> Iterator[list[Sample]]:
    """Yield each step's micro-batches of this worker, one step being read while another is used."""

    def order(step: int) -> list[list[Future[Sample]]]:
        epoch, batch = global_batch(task.seed, step, task.num_samples, task.batch_size)
        return [[pool.submit(task.sample, int(n), epoch) for n in part] for part in share(batch, rank(), world_size(), micro_batch)]

    with ThreadPoolExecutor(threads, thread_name_prefix="samples") as pool:
        coming = order(first_step)
        for step in range(first_step, task.num_steps):
            now, coming = coming, (order(step + 1) if step + 1 < task.num_steps else [])
            yield [_stack([future.result() for future in part], dtype) for part in now]


def _stack(samples: list[Sample], dtype: torch.dtype) -> Sample:
    stacked = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    stacked = {k: v.to(dtype) if v.is_floating_point() else v for k, v in stacked.items()}
    return {k: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in stacked.items()}
