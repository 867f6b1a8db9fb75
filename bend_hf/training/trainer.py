"""Trains a head on a split through Accelerate, keeps the epoch that validates best, and goes on where it was killed.

The same seed gives the same batches on any number of processes: every process draws the same permutation and
takes its share of each batch. A position is an epoch and a step, so that a resumed run needs no batch twice.

>>> batch_rows(5, batch_size=2, seed=0, epoch=0, rank=0, world=1)[0].shape
(2,)

How a head is trained: the numbers of a resolved configuration.

>>> FitConfig(epochs=1, batch_size=8, learning_rate=0.003, weight_decay=0.01, seed=0).accumulation
1

How far a training is, between its steps: what a checkpoint holds besides weights that are being trained.

>>> at = TrainingState(epoch=2, step=5, steps=12)
>>> TrainingState.of(at.facts(), best={}) == at
True
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bend_hf.config import RunConfig, Schedule
from bend_hf.errors import ConfigError
from bend_hf.training.batches import Batch, Split, feed, labels_of, to_device
from bend_hf.training.batches import batch_rows as batch_rows
from bend_hf.training.checkpoints import (
    Checkpoints,
    Saved,
    random_states,
    restore_random_states,
    restore_training,
    trained_state,
    training_tensors,
)
from bend_hf.training.losses import Loss
from bend_hf.training.schedules import factor
from bend_hf.types import Ints

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a head is trained."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    accumulation: int = 1
    patience: int | None = None
    checkpoint_every: int = 200

    @classmethod
    def of(cls, config: RunConfig) -> FitConfig:
        """The numbers of a resolved configuration.

        Raises:
            ConfigError: One is missing; the task declares no training.
        """
        epochs, batch_size, learning_rate = config.epochs, config.batch_size, config.learning_rate
        if epochs is None or batch_size is None or learning_rate is None or config.weight_decay is None:
            raise ConfigError(f"{config.task} declares no training; give epochs, batch size and learning rate")
        return cls(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=config.weight_decay,
            seed=config.seed,
            schedule=config.schedule,
            warmup_steps=config.warmup_steps,
            accumulation=config.gradient_accumulation,
            patience=config.patience,
            checkpoint_every=config.checkpoint_every,
        )


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch gave."""

    epoch: int
    loss: float
    validation: float | None
    seconds: float


@dataclass(kw_only=True)
class TrainingState:
    """How far a training is, and what it must not forget.

    Attributes:
        epoch: The one it is in, counted from 1.
        step: Steps of this epoch that lie behind it.
        steps: Steps of all epochs that lie behind it.
        best: The best validation metric so far; None before there is one.
        best_epoch: The epoch that gave it; 0 before there is one.
        best_state: Weights of that epoch, on the CPU.
        history: The epochs that are over.
        finished: Whether nothing is left to do.
    """

    epoch: int = 1
    step: int = 0
    steps: int = 0
    best: float | None = None
    best_epoch: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)
    finished: bool = False

    def facts(self) -> dict[str, Any]:
        """Everything but the weights."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "steps": self.steps,
            "best": self.best,
            "history": [asdict(one) for one in self.history],
            "best_epoch": self.best_epoch,
            "finished": self.finished,
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any], *, best: dict[str, Tensor]) -> TrainingState:
        """What was kept: the facts, and the weights of the best epoch."""
        history = [Epoch(**one) for one in facts["history"]]
        return cls(**{**facts, "history": history, "best_state": best})


log = logging.getLogger(__name__)

_SHOWN_EVERY_SECONDS = 1.0  # reading the loss waits for the device


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained head and how it got there.

    Attributes:
        state: Weights of the best epoch, on the CPU; of those that learn, where others are frozen.
        best_epoch: Counted from 1; 0 where the head was not trained.
        history: Every epoch.
        resumed_at: Steps that were behind it when it was taken up again; None where it was not.
    """

    state: dict[str, Tensor]
    best_epoch: int
    history: tuple[Epoch, ...]
    resumed_at: int | None = None


def fit(
    head: nn.Module,
    train: Split,
    loss: Loss,
    config: FitConfig,
    accelerator: Accelerator,
    validate: Callable[[nn.Module], float | None],
    progress: Callable[[int, int, float], None] = lambda step, steps, value: None,
    *,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Fitted:
    """Trains with AdamW; the best epoch is the one with the highest validation metric, the first of equals.

    Args:
        head: Takes the fields of the split's inputs, ``(x_BTD, token_of_BL)`` for embeddings; its weights change.
        train: What to learn from.
        loss: Masks padding itself.
        config: How.
        accelerator: Device, precision and processes.
        validate: Validation metric of the head as it is, larger is better; None where it is not defined.
        progress: Told the step, the steps of all epochs, and the loss of the epoch so far, of this process.
        checkpoints: Where positions are kept; a position found there is taken up.
        on_epoch: Told each epoch when it is over.

    Raises:
        ConfigError: The split is empty, or the loss stops being a number.
    """
    if not len(train):
        raise ConfigError("the training split holds no item; check the split column of the bed")
    return _Training(head, train, loss, config, accelerator, validate, progress, checkpoints, on_epoch).run()


class _Training:
    """One training, from its first or its last position to its end."""

    def __init__(
        self,
        head: nn.Module,
        train: Split,
        loss: Loss,
        config: FitConfig,
        accelerator: Accelerator,
        validate: Callable[[nn.Module], float | None],
        progress: Callable[[int, int, float], None],
        checkpoints: Checkpoints | None,
        on_epoch: Callable[[Epoch], None],
    ) -> None:
        self.train, self.config, self.accelerator = train, config, accelerator
        self.validate, self.progress, self.checkpoints, self.on_epoch = validate, progress, checkpoints, on_epoch
        self.loss = loss.to(accelerator.device)
        self.head = head
        weights = [weight for weight in head.parameters() if weight.requires_grad]
        self.plain = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.model, self.optimizer = accelerator.prepare(head, self.plain)
        self.n_steps = math.ceil(math.ceil(len(train) / config.batch_size) / config.accumulation) * config.epochs
        self.at = TrainingState()
        self.sums = torch.zeros(2, dtype=torch.float64, device=accelerator.device)  # loss and labels of this epoch
        self.shown, self.shown_at = float("nan"), 0.0

    def run(self) -> Fitted:
        """The whole of it."""
        _fresh_scaler(self.accelerator)
        resumed_at = self._restore()
        while not self.at.finished and self.at.epoch <= self.config.epochs:
            self._epoch()
            self.at.finished = self._is_enough()
        self._settle()
        if self.checkpoints is not None:
            self._save()
        self.accelerator.free_memory(self.model, self.optimizer)
        return Fitted(
            state=self.at.best_state,
            best_epoch=self.at.best_epoch,
            history=tuple(self.at.history),
            resumed_at=resumed_at,
        )

    def _epoch(self) -> None:
        started = time.perf_counter()
        self.model.train()
        shares = batch_rows(
            len(self.train),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            epoch=self.at.epoch,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        each = self.config.accumulation
        batches = feed(self.train, shares[self.at.step * each :], self.accelerator.device)
        for first in range(self.at.step * each, len(shares), each):
            self._step(shares[first : first + each], batches)
            self.at.step, self.at.steps = self.at.step + 1, self.at.steps + 1
            if self.checkpoints is not None and self.at.steps % self.config.checkpoint_every == 0:
                self._save()
            self._show()
        sums = self.accelerator.reduce(self.sums, "sum") if self.accelerator.num_processes > 1 else self.sums
        mean = float(sums[0]) / max(float(sums[1]), 1.0)
        if not np.isfinite(mean):
            raise ConfigError(f"the loss became {mean} in epoch {self.at.epoch}; lower --learning-rate")
        value = self.validate(self.head)
        done = Epoch(epoch=self.at.epoch, loss=mean, validation=value, seconds=time.perf_counter() - started)
        self.at.history.append(done)
        if value is not None and (self.at.best is None or value > self.at.best):
            self.at.best, self.at.best_epoch, self.at.best_state = value, self.at.epoch, trained_state(self.head)
        self.at.epoch, self.at.step = self.at.epoch + 1, 0
        self.sums.zero_()
        self.on_epoch(done)

    def _step(self, shares: list[Ints], batches: Iterator[Batch]) -> None:
        """One step of the optimizer, over one batch or, with accumulation, over several."""
        rate = self.config.learning_rate * factor(
            self.config.schedule, self.at.steps, n_steps=self.n_steps, warmup_steps=self.config.warmup_steps
        )
        for group in self.plain.param_groups:
            group["lr"] = rate
        count = None
        if len(shares) > 1:  # the mean is over the labels of all batches, so they are counted before the first
            count = torch.stack([self._count(labels_of(self.train, share)) for share in shares]).sum()
        world = self.accelerator.num_processes
        for place in range(len(shares)):
            batch = next(batches)
            if count is None:
                count = self._count(batch.labels)
            if place == 0 and world > 1:
                count = self.accelerator.reduce(count, "sum")
            last = place == len(shares) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                with self.accelerator.autocast():
                    logits = self.model(*batch.inputs)
                parts = self.loss(logits.float(), self._target(batch.labels))
                # processes average their gradients; the sum over processes divided by all labels is wanted
                self.accelerator.backward(parts.total * (world / count.clamp(min=1.0)).to(parts.total.dtype))
            self.sums += torch.stack([parts.total.detach().double(), parts.count.detach().double()])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _target(self, labels: NDArray[np.int16]) -> Tensor:
        return to_device(labels, self.accelerator.device).long()

    def _count(self, labels: NDArray[np.int16]) -> Tensor:
        return self.loss.count(self._target(labels)).double()

    def _show(self) -> None:
        """Tells how far it is; the loss is read now and then only, as that waits for the device."""
        now = time.monotonic()
        if now - self.shown_at >= _SHOWN_EVERY_SECONDS:
            total, count = self.sums.tolist()
            self.shown, self.shown_at = total / max(count, 1.0), now
        self.progress(self.at.steps, self.n_steps, self.shown)

    def _is_enough(self) -> bool:
        """Whether the epochs since the best one are as many as patience allows."""
        patience = self.config.patience
        return patience is not None and len(self.at.history) - self.at.best_epoch >= patience

    def _settle(self) -> None:
        """Without a defined validation metric the last epoch stands; without an epoch the first weights do."""
        self.at.finished = True
        if self.at.best_epoch:
            return
        if self.at.history:
            log.warning("the validation metric was not defined in any epoch; the last epoch is kept")
        self.at.best_epoch, self.at.best_state = len(self.at.history), trained_state(self.head)

    def _save(self) -> None:
        assert self.checkpoints is not None
        states, sums = [random_states()], [self.sums.cpu()]
        if self.accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            states, sums = gather_object(states), gather_object(sums)
        tensors = training_tensors(self.head, self.plain, kept=self.checkpoints.writes) | {"sums": torch.stack(sums)}
        for rank, state in enumerate(states):
            tensors |= {f"random.{rank}.{name}": value for name, value in state.items()}
        facts = self.at.facts()
        if self.accelerator.scaler is not None:
            facts["scaler"] = self.accelerator.scaler.state_dict()
        self.checkpoints.write(
            Saved(tensors=tensors, facts=facts), best=self.at.best_state, best_epoch=self.at.best_epoch
        )

    def _restore(self) -> int | None:
        """Takes up the position that was kept, where there is one; how many steps lie behind it."""
        saved = None if self.checkpoints is None else self.checkpoints.read()
        if saved is None:
            return None
        facts = dict(saved.facts)
        scaler: Any = facts.pop("scaler", None)
        if scaler is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        self.at = TrainingState.of(facts, best=saved.best)
        restore_training(self.head, self.plain, saved.tensors)
        rank, sums = self.accelerator.process_index, saved.tensors["sums"]
        if len(sums) == self.accelerator.num_processes:
            self.sums.copy_(sums[rank])
        elif rank == 0:  # written by another number of processes
            self.sums.copy_(sums.sum(dim=0))
        mine = f"random.{rank}."
        restore_random_states({k.removeprefix(mine): v for k, v in saved.tensors.items() if k.startswith(mine)})
        log.info("resumed at step %d of %d", self.at.steps, self.n_steps)
        return self.at.steps


def _fresh_scaler(accelerator: Accelerator) -> None:
    """The scaler of float16 as it starts, so that a fold does not depend on the one before."""
    if accelerator.scaler is not None and accelerator.scaler.is_enabled():
        accelerator.scaler.load_state_dict(torch.amp.GradScaler("cuda").state_dict())
