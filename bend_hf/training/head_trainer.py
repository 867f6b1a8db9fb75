"""Train a head on a split through Accelerate, and keep the epoch with the best validation metric.

The same seed gives the same batches on any number of processes: each process draws the same permutation and takes its
slice of each batch.

>>> FitConfig(epochs=1, batch_size=8, learning_rate=0.003, weight_decay=0.01, seed=0).accumulation
1
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bend_hf.config import Schedule
from bend_hf.embedders.token_embeddings import item_name
from bend_hf.errors import InputError, TrainingError
from bend_hf.training.batches import (
    Batch,
    BatchRows,
    Split,
    batch_rows,
    feed,
    held_rows,
    labels_of,
    make_batch,
    to_device,
)
from bend_hf.training.checkpoints import Checkpoints, trained_state
from bend_hf.training.losses import Loss, LossParts
from bend_hf.training.optimizer import AdamW
from bend_hf.training.recipe import steps_per_epoch
from bend_hf.training.trainer import StepParts, StepSettings, Trainer
from bend_hf.types import Labels

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

_PROGRESS_EVERY_SECONDS = 1.0  # reading the loss waits for the device


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


@dataclass(frozen=True, kw_only=True)
class HeadData:
    """What a head is trained on and judged by.

    Attributes:
        train: The training split.
        loss: The loss, which masks padding itself.
        validate: Returns the validation metric of the head as it is, larger is better; None if it is not defined.
    """

    train: Split
    loss: Loss
    validate: Callable[[nn.Module], float | None]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The results of one epoch."""

    epoch: int
    loss: float
    validation: float | None
    seconds: float


def _ignore(*_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that are called during a training.

    Attributes:
        on_progress: Called after each step with the step, the steps of all epochs, and the mean loss of the epoch so
            far on this process.
        on_epoch: Called after each epoch.
    """

    on_progress: Callable[[int, int, float], None] = _ignore
    on_epoch: Callable[[Epoch], None] = _ignore


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained head.

    Attributes:
        state: Weights of the best epoch, on the CPU; without frozen weights.
        best_epoch: Counted from 1; 0 if the head was not trained.
        best: The validation metric of that epoch; None if it was never defined.
        steps_per_epoch: Steps of the optimizer in an epoch.
        history: Every epoch.
        resumed_at: Steps that were done when the training was resumed; None if it was not.
    """

    state: dict[str, Tensor]
    best_epoch: int
    best: float | None
    steps_per_epoch: int
    history: tuple[Epoch, ...]
    resumed_at: int | None = None


def fit(
    head: nn.Module,
    data: HeadData,
    config: FitConfig,
    accelerator: Accelerator,
    *,
    checkpoints: Checkpoints | None = None,
    callbacks: Callbacks | None = None,
) -> Fitted:
    """Train with AdamW. The best epoch is the one with the highest validation metric, the first of equals.

    Args:
        head: Takes the fields of the split's inputs, ``(x_BTD, token_of_BL)`` for embeddings; its weights change.
        data: Training split, loss and validation.
        config: Epochs, batches and rates.
        accelerator: Device, precision and processes.
        checkpoints: Where checkpoints are kept; the training resumes from one that is there.
        callbacks: Functions that are called during the training.

    Raises:
        InputError: The split is empty.
        TrainingError: The loss becomes nan or infinite.
    """
    if not len(data.train):
        raise InputError("the training split holds no item; check the split column of the BED file")
    trainer = HeadTrainer(head, data, config, accelerator, checkpoints, callbacks or Callbacks())
    resumed_at = trainer.run()
    return Fitted(
        state=trainer.state.best_weights,
        best_epoch=trainer.state.best_at,
        best=trainer.state.best,
        steps_per_epoch=trainer.steps_per_epoch,
        history=tuple(trainer.state.history),
        resumed_at=resumed_at,
    )


class HeadTrainer(Trainer[Epoch, BatchRows, Batch, Batch]):
    """The training of a head: an interval is an epoch; see ``fit`` for the arguments."""

    entry = Epoch

    def __init__(
        self,
        head: nn.Module,
        data: HeadData,
        config: FitConfig,
        accelerator: Accelerator,
        checkpoints: Checkpoints | None,
        callbacks: Callbacks,
    ) -> None:
        weights = [weight for weight in head.parameters() if weight.requires_grad]
        self.steps_per_epoch = steps_per_epoch(
            len(data.train), batch_size=config.batch_size, accumulation=config.accumulation
        )
        super().__init__(
            head,
            head,
            AdamW(weights, lr=config.learning_rate, weight_decay=config.weight_decay),
            accelerator,
            StepSettings(
                n_steps=self.steps_per_epoch * config.epochs,
                learning_rate=config.learning_rate,
                schedule=config.schedule,
                warmup_steps=config.warmup_steps,
                save_every=config.checkpoint_every,
            ),
            checkpoints,
        )
        self.data, self.config, self.callbacks = data, config, callbacks
        self.loss_function = data.loss.to(accelerator.device)
        self.sums = torch.zeros(2, dtype=torch.float64, device=accelerator.device)  # loss and labels of this epoch
        self.shown, self.shown_at = float("nan"), 0.0
        self.first_bad = torch.zeros((), dtype=torch.int64, device=accelerator.device)  # step; 0: none
        self.last_batch: Batch | None = None
        self.drawn: tuple[int, Sequence[BatchRows]] | None = None  # an epoch, and the rows of its batches

    def interval_end(self, step: int) -> int:
        """Return the last step of the epoch."""
        return (step // self.steps_per_epoch + 1) * self.steps_per_epoch

    def items(self, first: int, end: int) -> Iterable[BatchRows]:
        """Return the rows of each batch, up to the end of the epoch."""
        in_epoch = first % self.steps_per_epoch
        return self._rows(first)[in_epoch * self.config.accumulation :]

    def made(self, items: Iterable[BatchRows]) -> Generator[Batch, None, None]:
        """Yield the batch of each item; the embeddings of a split that is not cached are computed in one stream."""
        return feed(self.data.train, list(items), self.accelerator.device)

    def make(self, item: BatchRows) -> Batch:
        """Read, embed and pad a batch, and copy it to the device."""
        return make_batch(self.data.train, self.accelerator.device, item)

    def _rows(self, step: int) -> Sequence[BatchRows]:
        """Return this process's rows of every batch of the step's epoch; they are drawn once in an epoch."""
        epoch = step // self.steps_per_epoch + 1
        if self.drawn is None or self.drawn[0] != epoch:
            slices = batch_rows(
                len(self.data.train),
                batch_size=self.config.batch_size,
                seed=self.config.seed,
                epoch=epoch,
                rank=self.accelerator.process_index,
                n_processes=self.accelerator.num_processes,
            )
            self.drawn = (epoch, held_rows(self.data.train, slices, self.accelerator.device))
        return self.drawn[1]

    def parts_of_step(self, step: int, made: Iterator[Batch]) -> StepParts[Batch]:
        """Return one batch, or several with accumulation."""
        each = self.config.accumulation
        if each == 1:
            batch = next(made)
            return StepParts(weight=self._count(batch.labels), n_parts=1, parts=(batch,))
        first = step % self.steps_per_epoch * each
        rows = self._rows(step)[first : first + each]
        # the mean is over the labels of all batches, so they are counted before the first one is used
        counts = [self._count(labels_of(self.data.train, one)) for one in rows]
        return StepParts(weight=torch.stack(counts).sum(), n_parts=len(rows), parts=islice(made, len(rows)))

    def loss(self, part: Batch) -> LossParts:
        """Return the loss of a batch."""
        self.last_batch = part
        with self.accelerator.autocast():
            logits = self.model(*part.inputs)
        loss: LossParts = self.loss_function(logits.float(), self._target(part.labels))
        finite, step = torch.isfinite(loss.total.detach()), self.state.step + 1
        if self.accelerator.device.type == "cpu":
            if not finite:
                raise TrainingError(f"the loss became {loss.total.item()} by step {step}; {self._cause()}")
        else:  # reading it would wait for the device
            self.first_bad = torch.where((self.first_bad == 0) & ~finite, step, self.first_bad)
        return loss

    def _target(self, labels: Labels | Tensor) -> Tensor:
        target = to_device(labels, self.accelerator.device)
        return target if target.is_floating_point() else target.long()

    def _count(self, labels: Labels | Tensor) -> Tensor:
        return self.loss_function.count(self._target(labels)).double()

    def add_loss(self, sums: Tensor) -> None:
        """Add to the sums of the epoch."""
        self.sums += sums

    def after_step(self, *, is_last: bool) -> None:
        """Report progress. The loss is read only now and then, as that waits for the device.

        Raises:
            TrainingError: The loss that was read is nan or infinite.
        """
        now = time.monotonic()
        if now - self.shown_at >= _PROGRESS_EVERY_SECONDS:
            total, count = self.sums.tolist()
            if not np.isfinite(total):
                step = int(self.first_bad) or self.state.step
                raise TrainingError(f"the loss became {total} by step {step}; {self._cause()}")
            self.shown, self.shown_at = total / max(count, 1.0), now
        self.callbacks.on_progress(self.state.step, self.settings.n_steps, self.shown)

    def _cause(self) -> str:
        """Say what made the loss of the last batch nan or infinite: its inputs, the weights, or a layer."""
        batch = self.last_batch
        if batch is None:
            return "lower --learning-rate"
        shown = [item_name(self.data.train.dataset, int(row)) for row in batch.rows[:3]]
        place = f"the batch of {', '.join(shown)}{' and others' if len(batch.rows) > len(shown) else ''}"
        if not all(bool(torch.isfinite(x).all()) for x in batch.inputs if x.is_floating_point()):
            return (
                f"the embedder gave numbers that are not finite for {place}; compute with --model-dtype float32, or "
                "correct the model"
            )
        bad = [name for name, weight in self.module.named_parameters() if not bool(torch.isfinite(weight).all())]
        if bad:
            return f"the weights {bad[0]} are not finite, because an earlier step was too large; lower --learning-rate"
        layer = self._first_bad_layer(batch)
        if layer is None:
            return f"the outputs for {place} are finite, but their loss is not; lower --learning-rate"
        return (
            f"the inputs are finite, but {layer} gives nan or infinity for {place}; lower --learning-rate, or "
            "compute with --precision no and --model-dtype float32"
        )

    def _first_bad_layer(self, batch: Batch) -> str | None:
        """Run a batch again and name the first layer whose output is not finite."""
        found: list[str] = []

        def watch(name: str, module: nn.Module, given: object, output: object) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and not bool(torch.isfinite(output).all()):
                found.append(f"layer {name or type(module).__name__} ({type(module).__name__}, {output.dtype})")

        hooks = [module.register_forward_hook(partial(watch, name)) for name, module in self.module.named_modules()]
        try:
            with torch.no_grad(), self.accelerator.autocast():
                self.model(*batch.inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return found[0].replace("torch.", "") if found else None

    def evaluate(self, started: float) -> None:
        """Validate after an epoch, and keep its weights if it is the best.

        Raises:
            TrainingError: The loss is nan or infinite.
        """
        number = self.state.step // self.steps_per_epoch
        several = self.accelerator.num_processes > 1
        sums = self.accelerator.reduce(self.sums, "sum") if several else self.sums
        mean = float(sums[0]) / max(float(sums[1]), 1.0)
        if not np.isfinite(mean):
            raise TrainingError(f"the loss became {mean} in epoch {number}; {self._cause()}")
        value = self.data.validate(self.module)
        epoch = Epoch(epoch=number, loss=mean, validation=value, seconds=time.perf_counter() - started)
        self.state.history.append(epoch)
        if value is not None:
            self.state.keep_if_best(value, number, self.module)
        patience = self.config.patience
        self.state.finished = patience is not None and number - self.state.best_at >= patience
        self.sums.zero_()
        self.callbacks.on_epoch(epoch)

    def finish(self) -> None:
        """Keep the last epoch if the validation metric was never defined, and the first weights without an epoch."""
        self.state.finished = True
        if self.state.best_at:
            return
        if self.state.history:
            log.warning("the validation metric was not defined in any epoch; the last epoch is kept")
        self.state.best_at, self.state.best_weights = len(self.state.history), trained_state(self.module)

    def local_tensors(self) -> dict[str, Tensor]:
        """Return random states, and the sums of the epoch."""
        return super().local_tensors() | {"sums": self.sums.cpu()}

    def restore_local(self, tensors: Sequence[Mapping[str, Tensor]]) -> None:
        """Restore them. Sums of another number of processes go to the first process."""
        super().restore_local(tensors)
        rank, sums = self.accelerator.process_index, [one["sums"] for one in tensors]
        if len(sums) == self.accelerator.num_processes:
            self.sums.copy_(sums[rank])
        elif rank == 0:
            self.sums.copy_(torch.stack(sums).sum(dim=0))
