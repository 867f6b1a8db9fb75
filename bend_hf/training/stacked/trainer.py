"""Train several heads together: each has the batches, steps, validation and checkpoints that it has alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bend_hf.errors import InputError, TrainingError
from bend_hf.training.batches import Split, batch_rows, to_device
from bend_hf.training.checkpoints import Checkpoints
from bend_hf.training.head_trainer import Epoch, FitConfig, Fitted
from bend_hf.training.losses import Loss, LossParts
from bend_hf.training.recipe import steps_per_epoch
from bend_hf.training.stacked.batches import NO_ROWS, StackedBatch, read_labels, read_stacked
from bend_hf.training.stacked.heads import StackedHeads
from bend_hf.training.stacked.optimizer import StackedAdamW
from bend_hf.training.trainer import StepParts, StepSettings, Trainer
from bend_hf.types import Ints, Labels

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)
_SMALLEST_WEIGHT = 1e-6  # as in trainer, for a step without a label


@dataclass(frozen=True, kw_only=True)
class StackedMember:
    """One of several heads that are trained together.

    Attributes:
        name: Its name in messages, such as ``layer 3``.
        head: The module with its first weights; only its settings and weights are read.
        train: The split it learns from. Members that share a split object are read together.
        config: Epochs, batches, rates and seed.
        rows: The rows of the split it learns from, in order; None for all.
        random: Random states after the head was built, from ``checkpoints.random_states``, for heads with dropout;
            None takes those of the process.
    """

    name: str
    head: nn.Module
    train: Split
    config: FitConfig
    rows: Ints | None = None
    random: Mapping[str, Tensor] | None = None

    @property
    def n_rows(self) -> int:
        """Rows that it learns from."""
        return len(self.train) if self.rows is None else len(self.rows)


@dataclass(frozen=True, kw_only=True)
class StackedData:
    """What the heads are judged by.

    Attributes:
        loss: The loss, which masks padding itself.
        validate: Returns the validation metric of some heads as they are, larger is better; None if it is not defined.
    """

    loss: Loss
    validate: Callable[[StackedHeads, Sequence[int]], Sequence[float | None]]


@dataclass(frozen=True, kw_only=True)
class MemberEpoch:
    """The results of one epoch of one head."""

    member: int
    epoch: int
    loss: float
    validation: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class StackedCallbacks:
    """Functions that are called during the training.

    Attributes:
        on_progress: Called after each step with the step, the steps of all epochs, and the loss, which is nan here.
        on_epoch: Called after each epoch of a head with its place and the epoch.
    """

    on_progress: Callable[[int, int, float], None] = lambda *_: None
    on_epoch: Callable[[int, Epoch], None] = lambda *_: None


def fit_stacked(
    heads: StackedHeads,
    members: Sequence[StackedMember],
    data: StackedData,
    accelerator: Accelerator,
    *,
    checkpoints: Checkpoints | None = None,
    callbacks: StackedCallbacks | None = None,
) -> list[Fitted]:
    """Train heads together; for each, the best epoch is the one with the highest validation metric, as in ``fit``.

    Args:
        heads: The heads of the members, in their order; their weights change.
        members: What each head learns from, and how.
        data: Loss and validation.
        accelerator: Device, precision and processes. With float16, a step whose gradients overflow is left out for all.
        checkpoints: Where checkpoints are kept; the training resumes from one that is there.
        callbacks: Functions that are called during the training.

    Raises:
        InputError: A member has no row to learn from.
        TrainingError: The loss of a head becomes nan or infinite.
    """
    for member in members:
        if not member.n_rows:
            raise InputError(f"{member.name} has no row to learn from; check the split column of the BED file")
    trainer = StackedTrainer(heads, members, data, accelerator, checkpoints, callbacks or StackedCallbacks())
    resumed_at = trainer.run()
    return [trainer.fitted(place, resumed_at) for place in range(len(members))]


@dataclass
class _Order:
    """The rows of each batch of a member's epoch, remembered for one epoch."""

    key: tuple[int, ...] = ()
    batches: list[Ints] = field(default_factory=list)


class StackedTrainer(Trainer[MemberEpoch, tuple[Ints | None, ...], StackedBatch, StackedBatch]):
    """The training of several heads: an interval ends where an epoch of any of them does; see ``fit_stacked``."""

    entry = MemberEpoch

    def __init__(
        self,
        heads: StackedHeads,
        members: Sequence[StackedMember],
        data: StackedData,
        accelerator: Accelerator,
        checkpoints: Checkpoints | None,
        callbacks: StackedCallbacks,
    ) -> None:
        configs = [one.config for one in members]
        self.members, self.data, self.callbacks = list(members), data, callbacks
        self.steps = [
            steps_per_epoch(one.n_rows, batch_size=one.config.batch_size, accumulation=one.config.accumulation)
            for one in members
        ]
        self.n_steps = [each * one.epochs for each, one in zip(self.steps, configs, strict=True)]
        rates = [one.learning_rate for one in configs]
        weights = [one for one in heads.parameters() if one.requires_grad]
        super().__init__(
            heads,
            heads,
            StackedAdamW(weights, rates, [one.weight_decay for one in configs]),
            accelerator,
            StepSettings(
                n_steps=max(self.n_steps),
                learning_rate=max(rates),
                save_every=min(one.checkpoint_every for one in configs),
            ),
            checkpoints,
        )
        self.heads = heads
        self.schedules = [
            StepSettings(
                n_steps=n, learning_rate=one.learning_rate, schedule=one.schedule, warmup_steps=one.warmup_steps
            )
            for n, one in zip(self.n_steps, configs, strict=True)
        ]
        self.loss_function = data.loss.to(accelerator.device)
        self.sums = torch.zeros(len(members), 2, dtype=torch.float64, device=accelerator.device)
        self.best: list[tuple[float, int] | None] = [None] * len(members)  # validation and epoch
        self.state.best_weights = self._weights()
        self._orders: dict[tuple[int, ...], _Order] = {}

    def _weights(self) -> dict[str, Tensor]:
        """Copy all weights and buffers to the CPU, under their stacked names."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self.heads.state_dict().items()}

    def fitted(self, place: int, resumed_at: int | None) -> Fitted:
        """Return one head as ``fit`` returns it."""
        history = tuple(
            Epoch(epoch=one.epoch, loss=one.loss, validation=one.validation, seconds=one.seconds)
            for one in self.state.history
            if one.member == place
        )
        best = self.best[place]
        if best is None and history:
            log.warning("%s: the validation metric was not defined in any epoch; the last is kept", self._name(place))
        return Fitted(
            state=self.heads.pick(self.state.best_weights, place),
            best_epoch=len(history) if best is None else best[1],
            best=None if best is None else best[0],
            steps_per_epoch=self.steps[place],
            history=history,
            resumed_at=resumed_at,
        )

    def _name(self, place: int) -> str:
        return self.members[place].name

    def active(self, step: int) -> list[int]:
        """Return the heads that learn in a step, counted from 0."""
        return [place for place in range(len(self.members)) if step < self.n_steps[place]]

    def interval_end(self, step: int) -> int:
        """Return the first step after which an epoch of some head ends."""
        return min((step // self.steps[place] + 1) * self.steps[place] for place in self.active(step))

    def items(self, first: int, end: int) -> Iterable[tuple[Ints | None, ...]]:
        """Return the rows of each active head, for each part of each step."""
        for step in range(first, end):
            yield from self._parts(step)

    def _parts(self, step: int) -> list[tuple[Ints | None, ...]]:
        """Return the rows of the active heads in each part of a step; None where a head has fewer parts."""
        rows = [self._rows(place, step) for place in self.active(step)]
        n_parts = max(map(len, rows))
        return [tuple(one[part] if part < len(one) else None for one in rows) for part in range(n_parts)]

    def _rows(self, place: int, step: int) -> list[Ints]:
        """Return this process's rows of one head in each part of a step; heads with equal rows share the arrays."""
        member, epoch = self.members[place], step // self.steps[place] + 1
        config, chosen = member.config, member.rows
        kind = (member.n_rows, config.batch_size, config.seed, 0 if chosen is None else id(chosen))
        order = self._orders.setdefault(kind, _Order())
        if order.key != (epoch,):
            batches = batch_rows(
                member.n_rows,
                batch_size=config.batch_size,
                seed=config.seed,
                epoch=epoch,
                rank=self.accelerator.process_index,
                n_processes=self.accelerator.num_processes,
            )
            order.key, order.batches = (epoch,), batches if chosen is None else [chosen[one] for one in batches]
        first = step % self.steps[place] * config.accumulation
        return order.batches[first : first + config.accumulation]

    def make(self, item: tuple[Ints | None, ...]) -> StackedBatch:
        """Read the batch of the active heads, and copy it to the device."""
        splits = [self.members[place].train for place in self._read_for]
        return read_stacked(splits, item, self.accelerator.device)

    def _train_until(self, end: int) -> None:
        self._read_for = self.active(self.state.step)  # the same for all steps of an interval
        super()._train_until(end)

    def parts_of_step(self, step: int, made: Iterator[StackedBatch]) -> StepParts[StackedBatch]:
        """Return one batch, or several with accumulation, and the weight of each active head."""
        items = self._parts(step)
        parts = [next(made)] if len(items) == 1 else None
        splits = [self.members[place].train for place in self._read_for]
        labels = (
            [parts[0].labels]
            if parts
            else [read_labels(splits, [NO_ROWS if one is None else one for one in item]) for item in items]
        )
        weight = torch.stack([self._counts(one) for one in labels]).sum(0)
        return StepParts(weight=weight, n_parts=len(items), parts=parts or (next(made) for _ in items))

    def _counts(self, labels: Labels) -> Tensor:
        target = self._target(labels)
        return torch.stack([self.loss_function.count(one) for one in target]).double()

    def _target(self, labels: Labels) -> Tensor:
        own = labels if labels.flags.writeable else labels.copy()  # of labels that all heads share, and of views
        target = to_device(own, self.accelerator.device)
        return target if target.is_floating_point() else target.long()

    def _step(self, made: Iterator[StackedBatch]) -> None:
        """Take one step of the optimizer for all active heads."""
        at, n_processes = self.state.step, self.accelerator.num_processes
        self.plain_optimizer.set_rates(  # type: ignore[attr-defined]  # StackedAdamW
            [one.rate(at) if at < n else 0.0 for one, n in zip(self.schedules, self.n_steps, strict=True)]
        )
        step = self.parts_of_step(at, made)
        weight = self.accelerator.reduce(step.weight, "sum") if n_processes > 1 else step.weight
        scale_K = n_processes / weight.clamp(min=_SMALLEST_WEIGHT)
        for number, part in enumerate(step.parts):
            groups = self._groups(part)
            for places in groups:
                last = number == step.n_parts - 1 and places is groups[-1]
                with nullcontext() if last else self.accelerator.no_sync(self.model):
                    loss = self._loss(part, places)
                    scale = scale_K[places].to(loss.total.dtype)
                    self.accelerator.backward((loss.total * scale).sum())
                sums = torch.stack([loss.total.detach().double(), loss.count.detach().double()], dim=1)
                self.sums[[self._read_for[place] for place in places]] += sums
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _groups(self, part: StackedBatch) -> list[list[int]]:
        """Return the places of the active heads whose gradients are computed together: all, or one after the other.

        Heads that are called one by one are also trained so, which needs the memory of one.
        """
        places = list(range(len(self._read_for)))
        if self.heads.together(part.x_KBTD):
            return [places]
        return [[place] for place in places if part.shapes[place][0]] or [places]

    def loss(self, part: StackedBatch) -> LossParts:
        """Return loss and weight of each active head, shape (active,)."""
        return self._loss(part, list(range(len(self._read_for))))

    def _loss(self, part: StackedBatch, places: Sequence[int]) -> LossParts:
        """Return loss and weight of some of the active heads.

        Raises:
            TrainingError: A loss is nan or infinite, on a CPU.
        """
        chosen = [self._read_for[place] for place in places]
        whole, own = len(places) == len(part.x_KBTD), slice(places[0], places[-1] + 1)
        x_KBTD, token_of_KBL = (one if whole else one[own] for one in (part.x_KBTD, part.token_of_KBL))
        labels: Labels = part.labels if whole else part.labels[own]
        with self.accelerator.autocast():
            logits = self.model(
                x_KBTD,
                token_of_KBL,
                None if len(chosen) == len(self.members) else chosen,
                [part.shapes[place] for place in places],
            )
        if len(places) == 1 and len(set(part.shapes)) > 1:  # without the padding of longer batches of other heads
            labels = labels[:, : logits.shape[1], : logits.shape[2]]
        terms = self.loss_function.terms(logits.float().flatten(0, 1), self._target(labels).flatten(0, 1))
        total, count = (one.reshape(len(logits), -1).sum(1) for one in (terms.losses, terms.weights))
        if self.accelerator.device.type == "cpu":  # elsewhere reading it would wait for the device
            self._check(total.detach(), chosen)
        return LossParts(total=total, count=count)

    def _check(self, values: Tensor, members: Sequence[int]) -> None:
        if bool(torch.isfinite(values).all()):
            return
        bad = int(torch.nonzero(~torch.isfinite(values))[0])
        raise TrainingError(
            f"the loss of {self._name(members[bad])} became {float(values[bad])} by step {self.state.step + 1}; "
            "leave it out, or lower --learning-rate"
        )

    def add_loss(self, sums: Tensor) -> None:
        """Add to the sums of the epoch of each active head."""
        self.sums[self._read_for] += sums

    def after_step(self, *, is_last: bool) -> None:
        """Report progress."""
        self.callbacks.on_progress(self.state.step, self.settings.n_steps, float("nan"))

    def evaluate(self, started: float) -> None:
        """Validate the heads whose epoch ends here, and keep the weights of those that are at their best.

        Raises:
            TrainingError: A loss is nan or infinite.
        """
        step = self.state.step
        ending = [place for place in self._read_for if step % self.steps[place] == 0]
        several = self.accelerator.num_processes > 1
        sums = (self.accelerator.reduce(self.sums, "sum") if several else self.sums).cpu()
        means = sums[:, 0] / sums[:, 1].clamp(min=1.0)
        self._check(means[self._read_for], self._read_for)
        values = self.data.validate(self.heads, ending)
        seconds, now = time.perf_counter() - started, None
        for place, value in zip(ending, values, strict=True):
            number = step // self.steps[place]
            entry = MemberEpoch(member=place, epoch=number, loss=float(means[place]), validation=value, seconds=seconds)
            self.state.history.append(entry)
            self._judge(entry)
            at_end = step == self.n_steps[place] and self.best[place] is None
            if at_end or self.best[place] == (value, number):
                now = self._weights() if now is None else now
                for name, kept in self.state.best_weights.items():
                    kept[place] = now[name][place]
                self.state.best_at = step
            self.callbacks.on_epoch(
                place, Epoch(epoch=number, loss=entry.loss, validation=value, seconds=entry.seconds)
            )
        self.sums[ending] = 0.0
        self.state.finished = not self.active(step)

    def _judge(self, entry: MemberEpoch) -> None:
        """Remember the best epoch of a head, the first of equals, and end a head that lost its patience."""
        place, best = entry.member, self.best[entry.member]
        if entry.validation is not None and (best is None or entry.validation > best[0]):
            self.best[place] = best = (entry.validation, entry.epoch)
        patience = self.members[place].config.patience
        if patience is not None and entry.epoch - (0 if best is None else best[1]) >= patience:
            self.n_steps[place] = entry.epoch * self.steps[place]

    def finish(self) -> None:
        """Mark the training as finished."""
        self.state.finished = True

    def restore(self) -> int | None:
        """Go back to the last checkpoint if there is one; return the steps before it."""
        resumed_at = super().restore()
        self.state.best_weights = self.state.best_weights or self._weights()
        return resumed_at

    def local_tensors(self) -> dict[str, Tensor]:
        """Return random states of the process and of each head, and the sums of the epoch."""
        own = {
            f"head.{place}.{name}": value
            for place, states in enumerate(self.heads.random or ())
            for name, value in states.items()
        }
        return super().local_tensors() | own | {"sums": self.sums.cpu()}

    def restore_local(self, tensors: Sequence[Mapping[str, Tensor]]) -> None:
        """Restore them, and what the history says. Sums of another number of processes go to the first process."""
        rank, several = self.accelerator.process_index, len(tensors) == self.accelerator.num_processes
        for entry in self.state.history:
            self._judge(entry)
        if several and self.heads.random is not None:
            for place in range(len(self.members)):
                prefix = f"head.{place}."
                self.heads.random[place] = {
                    name.removeprefix(prefix): value for name, value in tensors[rank].items() if name.startswith(prefix)
                }
        plain = [{name: one[name] for name in one if not name.startswith("head.")} for one in tensors]
        super().restore_local(plain)
        sums = [one["sums"] for one in tensors]
        if several:
            self.sums.copy_(sums[rank])
        elif rank == 0:
            self.sums.copy_(torch.stack(sums).sum(dim=0))
