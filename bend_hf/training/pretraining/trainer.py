"""The training of a language model, as far as it differs from that of a head.

Windows, masks and learning rate are computed from the number of the step, so that a run that was interrupted resumes to
the same bits. Processes share each step's windows; the loss is the mean over all of its targets. An interval ends with
a validation every ``--validate-every`` steps.

    trained = Pretrainer(run, LanguageModelObjective(run.config.family, run.network)).train()
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from bend_hf.errors import ConfigError, TrainingError
from bend_hf.training.losses import LossParts
from bend_hf.training.pretraining.config import PretrainConfig
from bend_hf.training.pretraining.data import PretrainRun
from bend_hf.training.pretraining.objectives import (
    LanguageModelObjective,
    ObjectiveBatch,
    on_device,
    optimizer_of,
    training_batch,
)
from bend_hf.training.pretraining.run_folder import Progress, StepLoss
from bend_hf.training.pretraining.validation import Validation, validate
from bend_hf.training.trainer import StepParts, StepSettings, Trainer, TrainingState

_READ_EVERY_STEPS: Final = 10  # reading a loss waits for the device


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A training that is over, or was stopped.

    Attributes:
        state: How far it is; its history holds the validations.
        resumed_at: Steps that were done when it was resumed; None if it was not.
        best: The validation with the lowest perplexity, the first of equals; None without any.
    """

    state: TrainingState[Validation]
    resumed_at: int | None
    best: Validation | None


def step_settings(config: PretrainConfig) -> StepSettings:
    """Return the steps of a configuration; numbers that are not given are the family's."""
    config = config.resolved()
    return StepSettings(
        n_steps=config.steps,
        learning_rate=config.learning_rate or config.family.learning_rate,
        schedule=config.schedule,
        warmup_steps=config.warmup_steps or 0,
        min_rate_fraction=config.min_learning_rate_share,
        clip=config.clip,
        save_every=config.save_every,
        stop_after=config.stop_after,
    )


class Pretrainer(Trainer[Validation, int, ObjectiveBatch, ObjectiveBatch]):
    """The training of a language model: an interval ends with a validation.

    Args:
        run: What is trained on what.
        objective: The network of the run with its loss.

    Raises:
        ConfigError: There are more processes than windows in a step.
    """

    entry = Validation

    def __init__(self, run: PretrainRun, objective: LanguageModelObjective) -> None:
        config, accelerator = run.config, run.accelerator
        n_parts = accelerator.num_processes * config.accumulation_steps
        if config.batch_windows < n_parts:
            raise ConfigError(
                f"--batch-windows is {config.batch_windows}, but {accelerator.num_processes} processes share a step's "
                f"windows in {config.accumulation_steps} parts each; give at least {n_parts}"
            )
        settings = step_settings(config)
        optimizer = optimizer_of(
            run.network,
            learning_rate=settings.learning_rate,
            weight_decay=config.weight_decay,
            betas=(config.betas[0], config.betas[1]),
        )
        self.config, self.inputs, self.objective, self.network = config, run.inputs, objective, run.network
        self.folder, self.is_main = run.folder, accelerator.is_main_process
        super().__init__(
            run.network, objective, optimizer, accelerator, settings, run.folder.checkpoints(writes=self.is_main)
        )
        self.unread: list[Tensor] = []  # sums of losses and weights of each step since they were last read
        self.unread_seconds: list[float] = []
        self.progress = Progress(
            n_steps=config.steps, nucleotides=config.batch_windows * config.window_bp, shown=self.is_main
        )

    def train(self) -> Trained:
        """Train to the end, or to ``--stop-after``."""
        seed = np.random.SeedSequence([self.config.seed, self.accelerator.process_index])
        torch.manual_seed(int(seed.generate_state(1)[0]))  # dropout depends on the seed and the process alone
        with self.progress:
            resumed_at = self.run()
        best = min(self.state.history, key=lambda one: one.perplexity, default=None)
        return Trained(state=self.state, resumed_at=resumed_at, best=best)

    def interval_end(self, step: int) -> int:
        """Return the step of the next validation; the last step always has one."""
        every = self.config.validate_every
        return min((step // every + 1) * every, self.config.steps)

    def items(self, first: int, end: int) -> Iterable[int]:
        """Return the numbers of the steps."""
        return range(first, end)

    def make(self, item: int) -> ObjectiveBatch:
        """Read this process's windows of a step, and choose the targets."""
        size, rank, n_processes = (
            self.config.batch_windows,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        low, high = size * rank // n_processes, size * (rank + 1) // n_processes
        windows = self.inputs.train.batch(item, size, low=low, high=high)
        return training_batch(self.config, windows, step=item, first_row=low)

    def parts_of_step(self, step: int, made: Iterator[ObjectiveBatch]) -> StepParts[ObjectiveBatch]:
        """Cut the windows of a step into the parts of an accumulation."""
        batch = next(made)
        self.unread.append(torch.zeros(2, dtype=torch.float64, device=self.accelerator.device))
        return StepParts(
            weight=torch.tensor(
                float(batch.weight_N.sum(dtype="float64")), dtype=torch.float64, device=self.accelerator.device
            ),
            n_parts=self.config.accumulation_steps,
            parts=batch.parts(self.config.accumulation_steps),
        )

    def loss(self, part: ObjectiveBatch) -> LossParts:
        """Return the loss of some windows."""
        with self.accelerator.autocast():
            total, weight = self.model(*on_device(part, self.accelerator.device))
        return LossParts(total=total, count=weight)

    def add_loss(self, sums: Tensor) -> None:
        """Add to the sums of the step."""
        self.unread[-1] += sums

    def after_step(self, *, is_last: bool) -> None:
        """Read the losses now and then, write them down and report progress."""
        self.unread_seconds.append(self.state.seconds)
        if self.state.step % _READ_EVERY_STEPS == 0 or is_last:
            self.progress.at(self.state.step, self._read_losses(), seconds=self.state.seconds)

    def _read_losses(self) -> float:
        """Write down the losses since they were last read; return their mean.

        Raises:
            TrainingError: One is nan or infinite.
        """
        sums = torch.stack(self.unread)
        if self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums, "sum")
        first = self.state.step - len(self.unread)
        losses = [
            StepLoss(
                step=first + place + 1,
                loss=total / max(weight, 1e-6),
                learning_rate=self.settings.rate(first + place),
                seconds=seconds,
            )
            for place, ((total, weight), seconds) in enumerate(zip(sums.tolist(), self.unread_seconds, strict=True))
        ]
        self.unread, self.unread_seconds = [], []
        for one in losses:
            if not math.isfinite(one.loss):
                raise TrainingError(
                    f"the loss became {one.loss} in step {one.step}; lower --learning-rate, or --clip the gradients"
                )
        if self.is_main:
            self.folder.append(losses)
        return sum(one.loss for one in losses) / len(losses)

    def evaluate(self, started: float) -> None:
        """Compute the perplexity on the held-out windows, and keep the weights if it is the lowest."""
        found = validate(
            self.objective,
            self.inputs.held_out_BL,
            self.config,
            self.accelerator,
            step=self.state.step,
            seconds=self.state.seconds,
        )
        self.state.history.append(found)
        self.state.keep_if_best(-found.perplexity, found.step, self.network)
        if self.is_main:
            self.folder.write_validations(self.state.history)
        self.progress.say(f"step {found.step}: validation perplexity {found.perplexity:.4f} per nucleotide")

    def finish(self) -> None:
        """Say whether this was the last step, or ``--stop-after``."""
        self.state.finished = self.state.step == self.config.steps

    def save(self) -> None:
        """Write a checkpoint and the model. The losses of its steps are on the disk before it."""
        if self.is_main:
            self.folder.settle()
        super().save()
        if self.is_main:
            self.folder.write_model(self.network, self.config.family, self.config)
            self.folder.keep_step(self.network, self.config.family, self.config, self.state.step)

    def restore(self) -> int | None:
        """Go back to the last checkpoint, and bring the tables of losses and validations in line with it."""
        resumed_at = super().restore()
        self.accelerator.wait_for_everyone()
        if self.is_main:
            self.folder.rewind(self.state.step)
            self.folder.write_validations(self.state.history)
        self.progress.start(self.state.step, seconds=self.state.seconds)
        return resumed_at
