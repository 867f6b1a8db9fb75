"""The training loop of heads and of pretraining: steps, their learning rate, checkpoints and resuming.

A training is a number of steps in intervals; each interval ends with an evaluation (an epoch of a head, every so many
steps of a pretraining). A step depends on its number, the seed and the weights before it, so an interrupted training
resumes to the same bits: what a step reads is computed from its number, and weights, optimizer, random states and
``TrainingState`` are in the checkpoint. Subclasses say what a step reads and what its loss is.

>>> StepSettings(n_steps=4, learning_rate=1.0, schedule="linear", warmup_steps=2).rate(0)
0.5
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor, nn

from bend_hf.config import Schedule
from bend_hf.embedders._pipeline import prefetch
from bend_hf.training.checkpoints import (
    Checkpoints,
    Saved,
    random_states,
    restore_random_states,
    restore_training,
    trained_state,
    training_tensors,
)
from bend_hf.training.launch import free_training, prepare
from bend_hf.training.losses import LossParts
from bend_hf.training.schedules import factor
from bend_hf.types import Json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from accelerate import Accelerator

log = logging.getLogger(__name__)

_SMALLEST_WEIGHT = 1e-6  # that a sum of losses is divided by, if a step has nothing to learn from


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """The steps of a training.

    Attributes:
        n_steps: Steps of the optimizer.
        learning_rate: The highest learning rate.
        schedule: Course of the learning rate after the warm-up.
        warmup_steps: Steps over which it rises.
        min_rate_fraction: Fraction of the learning rate that the schedule falls to.
        clip: Largest norm of the gradients; 0 for no limit.
        save_every: Steps between two checkpoints.
        stop_after: Step to stop at, as an interruption would; None to go to the end.
    """

    n_steps: int
    learning_rate: float
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    min_rate_fraction: float = 0.0
    clip: float = 0.0
    save_every: int = 200
    stop_after: int | None = None

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        fraction = factor(self.schedule, step, n_steps=self.n_steps, warmup_steps=self.warmup_steps)
        least = self.min_rate_fraction
        return self.learning_rate * (fraction if step < self.warmup_steps else least + (1.0 - least) * fraction)


Entry = TypeVar("Entry", bound="DataclassInstance")
Item = TypeVar("Item")
Made = TypeVar("Made")
Part = TypeVar("Part")


@dataclass(kw_only=True)
class TrainingState(Generic[Entry]):
    """How far a training is.

    >>> state = TrainingState(step=5, best=0.5, best_at=1)
    >>> TrainingState.of(state.facts(), entry=StepSettings, best_weights={}) == state
    True

    Attributes:
        step: Steps that are done.
        seconds: Time they took, without evaluations and checkpoints, including those before it was interrupted.
        waited_seconds: Time of these spent waiting for input.
        history: One entry per evaluation.
        best: The best evaluation, larger is better; None before the first.
        best_at: The epoch or step of that evaluation; 0 before the first.
        best_weights: Weights of that evaluation, on the CPU.
        finished: Whether nothing is left to do.
    """

    step: int = 0
    seconds: float = 0.0
    waited_seconds: float = 0.0
    history: list[Entry] = field(default_factory=list)
    best: float | None = None
    best_at: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    finished: bool = False

    def facts(self) -> dict[str, Json]:
        """Return everything but the weights, as JSON."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "best_weights"}
        return {**values, "history": [asdict(one) for one in self.history]}

    @classmethod
    def of(
        cls, facts: Mapping[str, Json], *, entry: type[Entry], best_weights: dict[str, Tensor]
    ) -> TrainingState[Entry]:
        """Return the state that ``facts`` and the best weights describe.

        Raises:
            TypeError: The facts are those of another version.
        """
        values = dict(facts)
        entries = values.pop("history", None)
        if not isinstance(entries, list):
            raise TypeError("no history")
        history = [entry(**one) for one in entries if isinstance(one, dict)]
        return cls(**values, history=history, best_weights=best_weights)  # type: ignore[arg-type]  # checked by the call

    def keep_if_best(self, value: float, at: int, module: nn.Module) -> None:
        """Keep the weights if the evaluation is better than all before; the first of equals stays."""
        if self.best is None or value > self.best:
            self.best, self.best_at, self.best_weights = value, at, trained_state(module)


@dataclass(frozen=True, kw_only=True)
class StepParts(Generic[Part]):
    """The parts that one step learns from, each of a size that fits the memory.

    Attributes:
        weight: This process's sum of the weights of all labels, which the loss is divided by, float64, a scalar.
        n_parts: Number of parts.
        parts: The parts, possibly read while they are used.
    """

    weight: Tensor
    n_parts: int
    parts: Iterable[Part]


class Trainer(ABC, Generic[Entry, Item, Made, Part]):
    """A training, from its start or its last checkpoint to its end.

    Args:
        module: The module whose weights are saved.
        model: The module that a step calls: ``module`` itself, or a module around it.
        optimizer: Of torch, over the weights of ``module``.
        accelerator: Device, precision and processes.
        settings: The steps.
        checkpoints: Where checkpoints are kept; None to keep none.
    """

    entry: type[Entry]  # class of the entries of the history

    def __init__(
        self,
        module: nn.Module,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        settings: StepSettings,
        checkpoints: Checkpoints | None,
    ) -> None:
        self.module, self.accelerator, self.settings, self.checkpoints = module, accelerator, settings, checkpoints
        self.plain_optimizer = optimizer
        self.model, self.optimizer = prepare(accelerator, model, optimizer)
        self.state: TrainingState[Entry] = TrainingState()
        self.until = min(settings.n_steps, settings.stop_after or settings.n_steps)

    @abstractmethod
    def interval_end(self, step: int) -> int:
        """Return the step after which the interval of a step ends; the step is counted from 0."""

    @abstractmethod
    def items(self, first: int, end: int) -> Iterable[Item]:
        """Return the items of some steps, in order; ``make`` turns each into an input.

        Args:
            first: The first step, counted from 0.
            end: The step after the last one, at most the end of the interval.
        """

    def made(self, items: Iterable[Item]) -> Generator[Made, None, None]:
        """Yield the input of each item, made while the one before is used."""
        return prefetch(self.make, items)

    @abstractmethod
    def make(self, item: Item) -> Made:
        """Read the input for an item; runs in a background thread."""

    @abstractmethod
    def parts_of_step(self, step: int, made: Iterator[Made]) -> StepParts[Part]:
        """Return the parts that a step learns from.

        Args:
            step: Number of the step, from 0.
            made: The inputs of this and later steps, in order.
        """

    @abstractmethod
    def loss(self, part: Part) -> LossParts:
        """Return the loss of a part, under the accelerator's precision."""

    @abstractmethod
    def add_loss(self, sums: Tensor) -> None:
        """Add the summed loss and weight of a part, float64, shape (2,), on the device."""

    @abstractmethod
    def after_step(self, *, is_last: bool) -> None:
        """Report a step that is done.

        Args:
            is_last: Whether a checkpoint, an evaluation or the end follows.
        """

    @abstractmethod
    def evaluate(self, started: float) -> None:
        """Evaluate the model at the end of an interval, and add to the history.

        Args:
            started: When the interval started, by ``time.perf_counter``.
        """

    @abstractmethod
    def finish(self) -> None:
        """Settle the state after the last step, before it is saved."""

    def local_tensors(self) -> dict[str, Tensor]:
        """Return the tensors of this process that a checkpoint must restore, on the CPU."""
        return random_states()

    def restore_local(self, tensors: Sequence[Mapping[str, Tensor]]) -> None:
        """Restore the tensors that ``local_tensors`` returned on each process of the interrupted run."""
        if self.accelerator.process_index < len(tensors):
            restore_random_states(tensors[self.accelerator.process_index])

    def run(self) -> int | None:
        """Train to the end; return how many steps were done before if the training was resumed, else None."""
        _reset_scaler(self.accelerator)
        resumed_at = self.restore()
        while self.state.step < self.until and not self.state.finished:
            started, end = time.perf_counter(), self.interval_end(self.state.step)
            self._train_until(min(end, self.until))
            if self.state.step == end:
                self.evaluate(started)
                if self._saves():
                    self.save()
        self.finish()
        self.save()
        free_training(self.accelerator, self.model, self.optimizer)
        return resumed_at

    def _saves(self) -> bool:
        return self.state.step % self.settings.save_every == 0 and self.state.step < self.until

    def _train_until(self, end: int) -> None:
        self.model.train()
        began = time.perf_counter() - self.state.seconds
        with closing(self.made(self.items(self.state.step, end))) as made:
            inputs = self._timed(made)
            while self.state.step < end:
                self._step(inputs)
                self.state.step += 1
                self.state.seconds = time.perf_counter() - began
                saves = self._saves() and self.state.step < end
                self.after_step(is_last=saves or self.state.step == end)
                self.state.seconds = time.perf_counter() - began  # reading a loss waits for the device
                if saves:
                    paused = time.perf_counter()
                    self.save()
                    began += time.perf_counter() - paused

    def _timed(self, made: Iterator[Made]) -> Iterator[Made]:
        while True:
            started = time.perf_counter()
            try:
                one = next(made)
            except StopIteration:
                return
            self.state.waited_seconds += time.perf_counter() - started
            yield one

    def _step(self, made: Iterator[Made]) -> None:
        """Take one step of the optimizer."""
        rate = self.settings.rate(self.state.step)
        for group in self.plain_optimizer.param_groups:
            group["lr"] = rate
        step, n_processes = self.parts_of_step(self.state.step, made), self.accelerator.num_processes
        weight = self.accelerator.reduce(step.weight, "sum") if n_processes > 1 else step.weight
        # processes average their gradients; the sum over processes divided by all weights is wanted
        scale = n_processes / weight.clamp(min=_SMALLEST_WEIGHT)
        for place, part in enumerate(step.parts):
            last = place == step.n_parts - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                loss = self.loss(part)
                self.accelerator.backward(loss.total * scale.to(loss.total.dtype))
            self.add_loss(torch.stack([loss.total.detach().double(), loss.count.detach().double()]))
        if self.settings.clip:
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def save(self) -> None:
        """Write a checkpoint; all processes call it together."""
        if self.checkpoints is None:
            return
        local = [self.local_tensors()]
        if self.accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            local = gather_object(local)
        tensors = training_tensors(self.module, self.plain_optimizer, kept=self.checkpoints.writes)
        for rank, state in enumerate(local):
            tensors |= {f"{_process(rank)}{name}": value for name, value in state.items()}
        facts = self.state.facts()
        if self.accelerator.scaler is not None:
            facts["scaler"] = self.accelerator.scaler.state_dict()
        self.checkpoints.write(
            Saved(tensors=tensors, facts=facts), best=self.state.best_weights, best_at=self.state.best_at
        )

    def restore(self) -> int | None:
        """Go back to the last checkpoint if there is one; return the steps before it."""
        saved = None if self.checkpoints is None else self.checkpoints.read()
        if saved is None:
            return None
        facts = dict(saved.facts)
        scaler = facts.pop("scaler", None)
        try:
            self.state = TrainingState.of(facts, entry=self.entry, best_weights=saved.best)
        except TypeError as error:
            log.warning("the checkpoint was written by another version (%s); the training starts over", error)
            return None
        if scaler is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        restore_training(self.module, self.plain_optimizer, saved.tensors)
        local: list[dict[str, Tensor]] = []
        while mine := _starting_with(saved.tensors, _process(len(local))):
            local.append(mine)
        self.restore_local(local)
        log.info("resumed at step %d of %d", self.state.step, self.settings.n_steps)
        return self.state.step


def _process(rank: int) -> str:
    return f"process.{rank}."


def _starting_with(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _reset_scaler(accelerator: Accelerator) -> None:
    """Reset the scaler of float16, so that a fold does not depend on the one before."""
    if accelerator.scaler is not None and accelerator.scaler.is_enabled():
        accelerator.scaler.load_state_dict(torch.amp.GradScaler("cuda").state_dict())
