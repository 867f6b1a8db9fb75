"""The training loop: from the first or the last position to the last step, on any number of processes.

A step is a function of its number, the seed and the weights before it, so that a run that was killed goes on to the
same bits: windows, masks and learning rate are counted, not drawn, and weights, moments and random states are saved.
Processes share each step's batch; the mean over all of its answers is what is learned from, however it is cut.

    trained = Loop(config, inputs, learner, accelerator, folder).run()
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from bend_hf.errors import ConfigError
from bend_hf.prefetch import prefetch
from bend_hf.training.checkpoints import (
    Saved,
    random_states,
    restore_random_states,
    restore_training,
    trained_state,
    training_tensors,
)
from bend_hf.training.pretraining.config import PretrainConfig
from bend_hf.training.pretraining.data import Inputs
from bend_hf.training.pretraining.objectives import Learner, Questions, on_device, optimizer_of, training_questions
from bend_hf.training.pretraining.run_folder import Progress, RunFolder, StepLoss
from bend_hf.training.pretraining.validation import Validation, validate
from bend_hf.training.schedules import factor

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

_READ_EVERY_STEPS: Final = 10  # reading a loss waits for the device


@dataclass(kw_only=True)
class TrainingState:
    """How far a training is.

    Attributes:
        step: Steps done.
        seconds: They took, over all lives of the run, validations and checkpoints left out.
        waited_seconds: Of these, spent waiting for input.
        validations: Each of them.
    """

    step: int = 0
    seconds: float = 0.0
    waited_seconds: float = 0.0
    validations: list[Validation] = field(default_factory=list)

    @property
    def best(self) -> Validation | None:
        """The lowest perplexity, the first of equals."""
        return min(self.validations, key=lambda one: one.perplexity, default=None)

    @classmethod
    def of(cls, facts: dict[str, Any]) -> TrainingState:
        """As a checkpoint holds it."""
        validations = [Validation(**one) for one in facts["validations"]]
        return cls(**{name: facts[name] for name in ("step", "seconds", "waited_seconds")}, validations=validations)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A training that came to its end, or was stopped.

    Attributes:
        at: How far it came.
        best: Weights of the best validation, on the CPU.
        resumed_at: Steps that lay behind it when it was taken up; None where it was not.
        finished: Whether it was not stopped.
    """

    at: TrainingState
    best: dict[str, Tensor]
    resumed_at: int | None
    finished: bool


class Loop:
    """One life of a training.

    Args:
        config: Resolved.
        inputs: What is read.
        learner: On its first weights; changed.
        accelerator: Device, precision and processes.
        folder: Where it is kept.

    Raises:
        ConfigError: There are more processes than windows in a step.
    """

    def __init__(
        self, config: PretrainConfig, inputs: Inputs, learner: Learner, accelerator: Accelerator, folder: RunFolder
    ) -> None:
        assert config.learning_rate is not None
        n_parts = accelerator.num_processes * config.accumulation_steps
        if config.batch_windows < n_parts:
            raise ConfigError(
                f"--batch-windows is {config.batch_windows}, but {accelerator.num_processes} processes share a step's "
                f"windows in {config.accumulation_steps} parts each; give at least {n_parts}"
            )
        self.config, self.inputs, self.learner, self.accelerator = config, inputs, learner, accelerator
        self.folder, self.main = folder, accelerator.is_main_process
        self.rate, self.network = config.learning_rate, learner.network
        self.plain = optimizer_of(
            self.network,
            learning_rate=self.rate,
            weight_decay=config.weight_decay,
            betas=(config.betas[0], config.betas[1]),
        )
        self.model, self.optimizer = accelerator.prepare(learner, self.plain)
        self.checkpoints = folder.checkpoints(writes=self.main)
        self.at = TrainingState()
        self.best_state: dict[str, Tensor] = {}
        self.unread: list[Tensor] = []  # of each step since the losses were read last: their sum and that of weights
        self.unread_seconds: list[float] = []

    def run(self) -> Trained:
        """The whole of it."""
        self._seed()
        resumed_at = self._restore()
        n_steps = self.config.steps
        until = min(n_steps, self.config.stop_after or n_steps)
        with Progress(
            n_steps=n_steps,
            step=self.at.step,
            nucleotides=self.config.batch_windows * self.config.window_bp,
            shown=self.main,
        ) as progress:
            self._train(until, progress)
            if self.at.step == n_steps and not self._validated():
                self._validate(progress)
        self._save()
        self.accelerator.free_memory(self.model, self.optimizer)
        return Trained(
            at=self.at, best=self.best_state, resumed_at=resumed_at, finished=self.at.step == self.config.steps
        )

    def _train(self, until: int, progress: Progress) -> None:
        began = time.perf_counter() - self.at.seconds
        self.model.train()
        batches = prefetch(self._questions, range(self.at.step, until))
        while self.at.step < until:
            waits_from = time.perf_counter()
            asked = next(batches)
            self.at.waited_seconds += time.perf_counter() - waits_from
            self._step(asked)
            self.at.step += 1
            self.at.seconds = time.perf_counter() - began
            self.unread_seconds.append(self.at.seconds)
            saves = self.at.step % self.config.save_every == 0 and self.at.step < until
            validates = self.at.step % self.config.validate_every == 0 or self.at.step == self.config.steps
            if self.at.step % _READ_EVERY_STEPS == 0 or saves or validates or self.at.step == until:
                progress.at(self.at.step, self._read_losses())
                self.at.seconds = time.perf_counter() - began  # reading waited for what the device had still to do
            if saves or validates:
                paused = time.perf_counter()
                if validates:
                    self._validate(progress)
                if saves:
                    self._save()
                progress.away(time.perf_counter() - paused)
                began += time.perf_counter() - paused

    def _step(self, asked: Questions) -> None:
        rate = self._rate(self.at.step)
        for group in self.plain.param_groups:
            group["lr"] = rate
        world, device = self.accelerator.num_processes, self.accelerator.device
        count = torch.tensor(float(asked.weight_N.sum(dtype="float64")), dtype=torch.float64, device=device)
        if world > 1:
            count = self.accelerator.reduce(count, "sum")
        scale = (world / count.clamp(min=1e-6)).float()  # processes average their gradients; their sum is wanted
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        for place, part in enumerate(asked.parts(self.config.accumulation_steps)):
            last = place == self.config.accumulation_steps - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                with self.accelerator.autocast():
                    both = self.model(*on_device(part, device))
                self.accelerator.backward(both[0] * scale)
            sums += both.detach().double()
        if self.config.clip:
            self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.unread.append(sums)

    def _questions(self, step: int) -> Questions:
        """This process's rows of a step's batch, and what is asked of them."""
        size, rank, world = self.config.batch_windows, self.accelerator.process_index, self.accelerator.num_processes
        low, high = size * rank // world, size * (rank + 1) // world
        windows = self.inputs.train.batch(step, size, low=low, high=high)
        return training_questions(self.config, windows, step=step, first_row=low)

    def _rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warmup = self.config.warmup_steps or 0
        share = factor(self.config.schedule, step, n_steps=self.config.steps, warmup_steps=warmup)
        least = self.config.min_learning_rate_share
        return self.rate * (share if step < warmup else least + (1.0 - least) * share)

    def _read_losses(self) -> float:
        """Writes down the losses since the last time; returns their mean.

        Raises:
            ConfigError: One is no number.
        """
        if not self.unread:
            return math.nan
        sums = torch.stack(self.unread)
        if self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums, "sum")
        first = self.at.step - len(self.unread)
        losses = [
            StepLoss(
                step=first + place + 1,
                loss=total / max(weight, 1e-6),
                learning_rate=self._rate(first + place),
                seconds=at,
            )
            for place, ((total, weight), at) in enumerate(zip(sums.tolist(), self.unread_seconds, strict=True))
        ]
        self.unread, self.unread_seconds = [], []
        for one in losses:
            if not math.isfinite(one.loss):
                raise ConfigError(
                    f"the loss became {one.loss} in step {one.step}; lower --learning-rate, or --clip the gradients"
                )
        if self.main:
            self.folder.append(losses)
        return sum(one.loss for one in losses) / len(losses)

    def _validated(self) -> bool:
        return any(one.step == self.at.step for one in self.at.validations)

    def _validate(self, progress: Progress) -> None:
        if self._validated():
            return
        found = validate(
            self.learner,
            self.inputs.held_out_BL,
            self.config,
            self.accelerator,
            step=self.at.step,
            seconds=self.at.seconds,
        )
        self.at.validations.append(found)
        if self.at.best is found:
            self.best_state = trained_state(self.network)
        if self.main:
            self.folder.write_validations(self.at.validations)
        progress.say(f"step {found.step}: validation perplexity {found.perplexity:.4f} per nucleotide")

    def _save(self) -> None:
        """Checkpoint and model; what the checkpoint says to be done is on the disk before it."""
        states = [random_states()]
        if self.accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            states = gather_object(states)
        if not self.main:
            return
        tensors = training_tensors(self.network, self.plain)
        for rank, state in enumerate(states):
            tensors |= {f"random.{rank}.{name}": value for name, value in state.items()}
        facts: dict[str, Any] = {**asdict(self.at)}
        best = self.at.best
        self.folder.settle()
        self.checkpoints.write(
            Saved(tensors=tensors, facts=facts), best=self.best_state, best_epoch=0 if best is None else best.step
        )
        self.folder.write_model(self.network, self.config.family, self.config)
        self.folder.keep_step(self.network, self.config.family, self.config, self.at.step)

    def _seed(self) -> None:
        """Dropout, where there is any, depends on the seed alone, and is each process's own."""
        own = np.random.SeedSequence([self.config.seed, self.accelerator.process_index])
        torch.manual_seed(int(own.generate_state(1)[0]))

    def _restore(self) -> int | None:
        """Takes up the last position where there is one; how many steps lie behind it."""
        saved = self.checkpoints.read()
        if saved is not None:
            self.at = TrainingState.of(dict(saved.facts))
            self.best_state = saved.best
            restore_training(self.network, self.plain, saved.tensors)
            mine = f"random.{self.accelerator.process_index}."
            restore_random_states({k.removeprefix(mine): v for k, v in saved.tensors.items() if k.startswith(mine)})
            log.info("resumed at step %d of %d", self.at.step, self.config.steps)
        self.accelerator.wait_for_everyone()
        if self.main:
            self.folder.rewind(self.at.step)
            self.folder.write_validations(self.at.validations)
        return None if saved is None else self.at.step
