"""Trains a head on a split through Accelerate, keeps the epoch that validates best, and predicts.

The same seed gives the same batches on any number of processes: every process draws the same permutation and
takes its share of each batch.

>>> batch_rows(5, batch_size=2, seed=0, epoch=0, rank=0, world=1)[0].shape
(2,)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bend_hf.batches import EmbeddingSource, Targets
from bend_hf.config import RunConfig
from bend_hf.errors import ConfigError
from bend_hf.labels import BinClasses, LabelKind, MultiLabel, NucleotideClasses
from bend_hf.losses import Loss
from bend_hf.predictions import Predictions, concatenate
from bend_hf.shapes import IGNORE_LABEL, Ints

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

log = logging.getLogger(__name__)

_PLACES = ("chromosome", "start", "end", "strand")


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split, ready for a head: where its embeddings come from, its labels, its items."""

    dataset: Dataset
    embeddings: EmbeddingSource
    targets: Targets

    def __len__(self) -> int:
        return len(self.dataset)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch gave."""

    epoch: int
    loss: float
    validation: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained head and how it got there.

    Attributes:
        state: Weights of the best epoch, on the CPU.
        best_epoch: Counted from 1; 0 where the head was not trained.
        history: Every epoch.
    """

    state: dict[str, Tensor]
    best_epoch: int
    history: tuple[Epoch, ...]


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a head is trained."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int

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
        )


def batch_rows(n: int, *, batch_size: int, seed: int, epoch: int, rank: int, world: int) -> list[Ints]:
    """This process's share of every batch of an epoch.

    The whole split is shuffled; the last batch may be smaller. A process that a batch has no item for gets an
    empty share, so that all take the same number of steps.
    """
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return [order[start : start + batch_size][rank::world] for start in range(0, n, batch_size)]


def fit(
    head: nn.Module,
    train: Split,
    loss: Loss,
    config: FitConfig,
    accelerator: Accelerator,
    validate: Callable[[nn.Module], float | None],
    progress: Callable[[int, int, float], None] = lambda step, steps, value: None,
) -> Fitted:
    """Trains with AdamW; the best epoch is the one with the highest validation metric, the first of equals.

    Args:
        head: Takes ``(x_BTD, token_of_BL)``; its weights are changed.
        train: What to learn from.
        loss: Masks padding itself.
        config: How.
        accelerator: Device, precision and processes.
        validate: Validation metric of the head as it is, larger is better; None where it is not defined.
        progress: Told the step, the steps of all epochs, and the running loss.

    Raises:
        ConfigError: The split is empty, or the loss stops being a number.
    """
    if not len(train):
        raise ConfigError("the training split holds no item; check the split column of the bed")
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    model, optimizer = accelerator.prepare(head, optimizer)
    best, best_epoch, best_state = -np.inf, 0, _copy(accelerator.unwrap_model(model))
    history: list[Epoch] = []
    n_steps = -(-len(train) // config.batch_size) * config.epochs
    step = 0
    for epoch in range(1, config.epochs + 1):
        started = time.perf_counter()
        model.train()
        total, count = 0.0, 0.0
        for rows in batch_rows(
            len(train),
            batch_size=config.batch_size,
            seed=config.seed,
            epoch=epoch,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        ):
            sums = _step(model, optimizer, train, loss, rows, accelerator)
            total, count, step = total + sums[0], count + sums[1], step + 1
            progress(step, n_steps, total / max(count, 1.0))
        mean = total / max(count, 1.0)
        if not np.isfinite(mean):
            raise ConfigError(f"the loss became {mean} in epoch {epoch}; lower --learning-rate")
        value = validate(accelerator.unwrap_model(model))
        history.append(Epoch(epoch=epoch, loss=mean, validation=value, seconds=time.perf_counter() - started))
        if value is not None and value > best:
            best, best_epoch, best_state = value, epoch, _copy(accelerator.unwrap_model(model))
    if best_epoch == 0 and history:  # no epoch had a defined validation metric: the last one stands
        log.warning("the validation metric was not defined in any epoch; the last epoch is kept")
        best_epoch, best_state = config.epochs, _copy(accelerator.unwrap_model(model))
    return Fitted(state=best_state, best_epoch=best_epoch, history=tuple(history))


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Split,
    loss: Loss,
    rows: Ints,
    accelerator: Accelerator,
) -> tuple[float, float]:
    idle = len(rows) == 0  # this process has no item in the batch, but must take part in the exchange
    embedded = train.embeddings.rows(np.zeros(1, np.int64) if idle else rows)
    target = train.targets.rows(np.zeros(1, np.int64) if idle else rows)
    if idle:
        target = np.full_like(target, IGNORE_LABEL)
    x_BTD = torch.from_numpy(embedded.x_BTD).to(accelerator.device, non_blocking=True)
    token_of_BL = torch.from_numpy(embedded.token_of_BL).to(accelerator.device, non_blocking=True)
    with accelerator.autocast():
        logits = model(x_BTD, token_of_BL)
    parts = loss(logits.float(), torch.from_numpy(target).to(accelerator.device, torch.int64))
    sums = torch.stack([parts.total.detach().double(), parts.count.detach().double()])
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums, "sum")
    # processes average their gradients; the sum over processes divided by all labels is wanted
    accelerator.backward(parts.total * (accelerator.num_processes / sums[1].clamp(min=1.0)).to(parts.total.dtype))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(sums[0]), float(sums[1])


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}


def predict(head: nn.Module, split: Split, accelerator: Accelerator, *, batch_size: int) -> Predictions:
    """Predicts every item of a split once, spread over the processes; every process gets all predictions.

    Args:
        head: Trained head.
        split: What to predict.
        accelerator: Device and processes.
        batch_size: Items a forward, over all processes.
    """
    head.eval()
    n_labels = len(split.targets.kind.names)
    mine = np.arange(len(split))[accelerator.process_index :: accelerator.num_processes]
    per_process = max(1, batch_size // accelerator.num_processes)
    parts = [
        _predict_rows(head, split, rows, accelerator, n_labels)
        for rows in (mine[start : start + per_process] for start in range(0, len(mine), per_process))
    ]
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        parts = gather_object(parts)
    if not parts:
        raise ConfigError("a split that is to be predicted holds no item; check the split column of the bed")
    return concatenate(parts)


def n_windows(kind: LabelKind, lengths_bp: Ints) -> Ints:
    """How many label windows sequences of those lengths have."""
    match kind:
        case NucleotideClasses():
            return lengths_bp
        case BinClasses():
            return lengths_bp // kind.bin_bp
        case _:
            return np.ones_like(lengths_bp)


@torch.inference_mode()
def _predict_rows(head: nn.Module, split: Split, rows: Ints, accelerator: Accelerator, n_labels: int) -> Predictions:
    embedded = split.embeddings.rows(rows)
    target = split.targets.rows(rows)
    with accelerator.autocast():
        logits = head(
            torch.from_numpy(embedded.x_BTD).to(accelerator.device),
            torch.from_numpy(embedded.token_of_BL).to(accelerator.device),
        ).float()
    kind = split.targets.kind
    table = split.dataset.select_columns(
        ["item", *(name for name in _PLACES if name in split.dataset.column_names)]
    ).with_format("arrow")[rows]
    beside = {name: table[name].combine_chunks() for name in table.column_names if name != "item"}
    item = table["item"].to_numpy()
    if isinstance(kind, MultiLabel):
        return Predictions(
            item=item,
            windows=np.arange(len(rows) + 1),
            target=target[:, 0],
            score=logits[:, 0].sigmoid().cpu().numpy(),
            predicted=None,
            label_names=kind.names,
            beside=beside,
        )
    # a padded place of a shorter sequence is no window of it; an unlabelled place inside it stays one
    counts = n_windows(kind, (embedded.token_of_BL >= 0).sum(axis=1))
    real = np.arange(target.shape[1]) < counts[:, None]
    scored = logits[:, : target.shape[1]]
    one_score = logits.shape[-1] == 1
    return Predictions(
        item=item,
        windows=np.concatenate([[0], np.cumsum(counts)]),
        target=target[real],
        score=scored[..., 0].sigmoid().cpu().numpy()[real] if one_score else None,
        predicted=None if one_score else scored.argmax(-1).to(torch.int16).cpu().numpy()[real],
        label_names=kind.names,
        beside=beside,
    )
