"""What a training does after which of its steps, besides training: read losses, log, evaluate, save."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Numbers of steps; steps are counted from 1.

    Attributes:
        num_steps: of the training.
        epoch_steps: of an epoch.
        checkpoint_steps, read_steps, log_steps: between checkpoints, reads of the losses on the host, and lines of metrics.jsonl.
    """

    num_steps: int
    epoch_steps: int
    checkpoint_steps: int
    read_steps: int
    log_steps: int

    def logs(self, step: int) -> bool:
        """Return whether a line is written after a step."""
        return step % self.log_steps == 0 or step == self.num_steps

    def evaluates(self, step: int) -> bool:
        """Return whether the model is evaluated after a step."""
        return step % self.epoch_steps == 0 or step == self.num_steps

    def saves(self, step: int) -> bool:
        """Return whether a checkpoint is written after a step."""
        return step % self.checkpoint_steps == 0 or step == self.num_steps

    def reads_losses(self, step: int) -> bool:
        """Return whether losses are read after a step: before anything is written, so that nothing of a loss that is not finite is."""
        return step % self.read_steps == 0 or self.logs(step) or self.evaluates(step) or self.saves(step)
