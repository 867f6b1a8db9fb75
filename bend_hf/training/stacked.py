"""Train several heads of one shape together, from one read of the data.

The heads differ in what they read (the layers of a model), in the rows they learn from (few shots), in their seed, or
in their rates. Each takes the batches, the steps and the first weights that it takes when it is trained alone, so its
scores are the same up to the rounding of float32. Their weights have an axis K in front; heads that declare
``HeadSpec.batched`` are computed by one call, others one after the other.

    members = [StackedMember(name=f"layer {layer}", head=heads[layer], train=splits[layer], config=config) ...]
    stacked = StackedHeads([one.head for one in members], batched=HEADS.get("cnn").batched)
    fitted = fit_stacked(stacked, members, StackedData(loss=loss, validate=validate), accelerator)
    stacked.load([one.state for one in fitted])
    predictions = predict_stacked(stacked, test_splits, accelerator, batch_size=64)

>>> pad_to([np.array([1, 2]), np.array([3])], fill=-1).tolist()
[[1, 2], [3, -1]]
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bend_hf.errors import ConfigError, InputError, TrainingError
from bend_hf.evaluation.predictions import Predictions, concatenate
from bend_hf.training.batches import Batch, InputSource, Split, batch_rows, labels_from, to_device
from bend_hf.training.checkpoints import Checkpoints, random_states, restore_random_states
from bend_hf.training.head_trainer import Epoch, FitConfig, Fitted
from bend_hf.training.heads._spec import BatchedForward
from bend_hf.training.losses import Loss, LossParts
from bend_hf.training.optimizer import EagerOptimizer
from bend_hf.training.predict import BatchFacts, predictions_of
from bend_hf.training.prefetch import prefetch
from bend_hf.training.recipe import steps_per_epoch
from bend_hf.training.trainer import StepParts, StepSettings, Trainer
from bend_hf.types import IGNORE_LABEL, Ints, Labels

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

Read: TypeAlias = tuple[Tensor, Tensor] | Labels  # embeddings and the token of each nucleotide, or labels
Source = TypeVar("Source")
Found = TypeVar("Found", bound=Read)
_NO_ROWS = np.zeros(0, np.int64)
_TOGETHER_BYTES = 1 << 20  # a batch of one head above which a CPU gains nothing from one call, but loses its cache
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
class StackedBatch:
    """One batch for each of K heads, padded to one rectangle.

    Attributes:
        x_KBTD: Token embeddings, float, on the device; an expanded axis K if all heads read the same.
        token_of_KBL: Token of each nucleotide, int64; -1 at padding and for items that a head does not have.
        labels: For each head as ``Targets.rows`` returns them, padded, with the axis K in front.
        shapes: Items, tokens and nucleotides of each head, without padding; no item if the head takes no part.
    """

    x_KBTD: Tensor
    token_of_KBL: Tensor
    labels: Labels
    shapes: tuple[tuple[int, int, int], ...]


def pad_to(arrays: Sequence[NDArray[Any]], *, fill: float) -> NDArray[Any]:
    """Stack arrays of different sizes into one, padded at the end of each axis."""
    first = arrays[0]
    if all(one is first for one in arrays):
        return np.broadcast_to(first, (len(arrays), *first.shape))
    shape = tuple(np.max([one.shape for one in arrays], axis=0).tolist())
    padded = np.full((len(arrays), *shape), fill, first.dtype)
    for place, one in enumerate(arrays):
        padded[place][tuple(slice(size) for size in one.shape)] = one
    return padded


def read_stacked(splits: Sequence[Split], rows: Sequence[Ints | None], device: torch.device) -> StackedBatch:
    """Read one batch for each head; rows that several heads want from one source are read once.

    Args:
        splits: The split of each head, shape (K,).
        rows: The rows of each head, shape (K,); empty if this process has none of its batch, and None if the head takes
            no part.
        device: Where the batch goes.

    Raises:
        ConfigError: A source gives something else than embeddings and their nucleotides.
    """
    given = [_NO_ROWS if one is None else one for one in rows]
    inputs = _per_source([one.embeddings for one in splits], given, _read_embeddings)
    shapes = tuple(
        (0 if own is None else len(x), x.shape[1], token_of.shape[1])
        for (x, token_of), own in zip(inputs, rows, strict=True)
    )
    x_KBTD = _stack([x for x, _ in inputs], fill=0)
    token_of_KBL = _stack([token_of for _, token_of in inputs], fill=-1)
    return StackedBatch(
        x_KBTD=to_device_expanded(x_KBTD, device),
        token_of_KBL=to_device_expanded(token_of_KBL, device),
        labels=_labels(splits, given),
        shapes=shapes,
    )


def to_device_expanded(values: Tensor, device: torch.device) -> Tensor:
    """Copy values with an axis K in front to a device; what all K share is copied once."""
    if len(values) > 1 and values.stride(0) == 0:
        return to_device(values[0], device).expand(values.shape)
    return to_device(values, device)


def _per_source(sources: Sequence[Source], rows: Sequence[Ints], read: Callable[[Source, Ints], Found]) -> list[Found]:
    """Read the rows of each head, once for each source and set of rows; members with equal ones share the result."""
    made: dict[tuple[int, int], Found] = {}
    groups: dict[int, list[Ints]] = {}
    for source, wanted in zip(sources, rows, strict=True):
        if all(wanted is not one for one in groups.setdefault(id(source), [])):
            groups[id(source)].append(wanted)
    by_id = {id(source): source for source in sources}
    for key, several in groups.items():
        if len(several) == 1:
            made[key, id(several[0])] = read(by_id[key], several[0])
            continue
        union = np.unique(np.concatenate(several))
        whole = read(by_id[key], union)
        for one in several:
            made[key, id(one)] = _pick(whole, np.searchsorted(union, one)) if len(one) else read(by_id[key], one)
    return [made[id(source), id(wanted)] for source, wanted in zip(sources, rows, strict=True)]


def _pick(read: Found, places: Ints) -> Found:
    """Take items of what was read, and cut off padding that none of them needs."""
    if isinstance(read, np.ndarray):
        return cast("Found", read[places])
    x_BTD, token_of_BL = (one[torch.from_numpy(places).to(one.device)] for one in read)
    n_bp, n_tokens = int((token_of_BL >= 0).sum(1).max()), int(token_of_BL.max()) + 1
    return cast("Found", (x_BTD[:, :n_tokens], token_of_BL[:, :n_bp]))


def _read_embeddings(source: InputSource, rows: Ints) -> tuple[Tensor, Tensor]:
    """Read embeddings and the token of each nucleotide; for no rows, an item of padding alone."""
    inputs = source.rows(rows if len(rows) else np.zeros(1, np.int64))
    values = [getattr(inputs, one.name) for one in fields(inputs)]
    if len(values) != 2:
        raise ConfigError(
            f"heads are trained together on embeddings, but the split gives {len(values)} inputs per batch; use "
            "--tune head"
        )
    x_BTD, token_of_BL = (one if isinstance(one, Tensor) else torch.from_numpy(one) for one in values)
    return x_BTD, token_of_BL if len(rows) else torch.full_like(token_of_BL, -1)


def _labels(splits: Sequence[Split], rows: Sequence[Ints]) -> Labels:
    """Read the labels of each head's rows, padded, with the axis K in front."""
    found = _per_source([one.targets for one in splits], rows, labels_from)
    return pad_to(found, fill=np.nan if found[0].dtype.kind == "f" else IGNORE_LABEL)


def _stack(tensors: Sequence[Tensor], *, fill: float) -> Tensor:
    """Stack tensors of different sizes into one, padded at the end of each axis."""
    first = tensors[0]
    if all(one is first for one in tensors):
        return first.expand(len(tensors), *first.shape)
    if all(one.shape == first.shape for one in tensors):
        return torch.stack(list(tensors))
    shape = [max(sizes) for sizes in zip(*(one.shape for one in tensors), strict=True)]
    padded = first.new_full((len(tensors), *shape), fill)
    for place, one in enumerate(tensors):
        padded[place][tuple(slice(size) for size in one.shape)] = one
    return padded


class StackedHeads(nn.Module):
    """K heads of one shape as one module, whose weights have an axis K in front.

    Args:
        heads: The heads, with their first weights.
        batched: Computes all of them together; None calls one after the other. See ``HeadSpec.batched``.
        random: Random states of each head, for heads with dropout; None draws from those of the process.

    Raises:
        ConfigError: The heads are not of one shape.
    """

    def __init__(
        self,
        heads: Sequence[nn.Module],
        *,
        batched: BatchedForward | None = None,
        random: Sequence[Mapping[str, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in heads]
        if (
            not heads
            or any(type(one) is not type(heads[0]) for one in heads)
            or any(one != shapes[0] for one in shapes)
        ):
            raise ConfigError(
                f"{len(heads)} heads of different shapes cannot be trained together; give heads of one kind, with the "
                "same settings, width and outputs"
            )
        self.n_heads = len(heads)
        self.batched = batched
        self.random = None if random is None or batched is not None else list(random)
        self._template = (copy.deepcopy(heads[0]),)  # in a tuple, so that its weights are not weights of this module
        self._aliases = _aliases(heads[0])
        persistent = heads[0].state_dict().keys()
        for name, value in heads[0].named_parameters():
            values = torch.stack([one.get_parameter(name).detach() for one in heads])
            self.register_parameter(_key(name), nn.Parameter(values, requires_grad=value.requires_grad))
        for name, _ in heads[0].named_buffers():
            values = torch.stack([one.get_buffer(name) for one in heads])
            self.register_buffer(_key(name), values, persistent=name in persistent)
        self._parameter_names = [name for name, _ in heads[0].named_parameters()]
        self._buffer_names = [name for name, _ in heads[0].named_buffers()]

    def train(self, mode: bool = True) -> StackedHeads:
        """Set the mode of the module and of the heads."""
        self._template[0].train(mode)
        return super().train(mode)

    def forward(
        self,
        x_KBTD: Tensor,
        token_of_KBL: Tensor,
        members: Sequence[int] | None = None,
        shapes: Sequence[tuple[int, int, int]] | None = None,
    ) -> Tensor:
        """Score the label windows of each head's batch.

        Args:
            x_KBTD: As in ``StackedBatch``, with one entry per member.
            token_of_KBL: As in ``StackedBatch``.
            members: Which heads, counted from 0; None for all.
            shapes: As in ``StackedBatch``; None if no head has padding of its own.

        Returns:
            Logits, shape (members, batch, windows, outputs).
        """
        chosen = list(range(self.n_heads)) if members is None else list(members)
        weights = {name: self._stacked(name) for name in self._parameter_names}
        if len(chosen) < self.n_heads:
            at = torch.as_tensor(chosen, device=x_KBTD.device)
            weights = {name: value[at] for name, value in weights.items()}
        if self.batched is not None and self.together(x_KBTD):
            return self.batched(self._template[0], weights, x_KBTD, token_of_KBL)
        apart = {name: value.unbind(0) for name, value in weights.items()}
        sizes = shapes or [(x_KBTD.shape[1], x_KBTD.shape[2], token_of_KBL.shape[2])] * len(chosen)
        logits: list[Tensor] = []
        for place, (member, (n_items, n_tokens, n_bp)) in enumerate(zip(chosen, sizes, strict=True)):
            if not n_items:
                logits.append(x_KBTD.new_zeros(0, 0, 0))
                continue
            own = {name: values[place] for name, values in apart.items()}
            own |= {name: self._stacked(name)[member] for name in self._buffer_names}
            inputs = (x_KBTD[place, :n_items, :n_tokens], token_of_KBL[place, :n_items, :n_bp])
            logits.append(self._call(member, own, inputs))
        return _stack(logits, fill=0)

    def together(self, x_KBTD: Tensor) -> bool:
        """Whether one call computes all heads: if they can be, and a CPU is not busy with each of them anyway."""
        small = x_KBTD[0].numel() * x_KBTD.element_size() <= _TOGETHER_BYTES
        return self.batched is not None and (small or x_KBTD.device.type != "cpu")

    def _call(self, member: int, weights: Mapping[str, Tensor], inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Call one head, with its own random states."""
        call = partial(torch.func.functional_call, self._template[0], dict(weights), inputs)
        if self.random is None or not self.training:
            found: Tensor = call()
            return found
        before = random_states()
        restore_random_states(self.random[member])
        found = call()
        self.random[member] = random_states()
        restore_random_states(before)
        return found

    def state_of(self, member: int) -> dict[str, Tensor]:
        """Copy what training changes in one head to the CPU, under the head's own names; see ``trained_state``."""
        return {
            name: self._stacked(stored)[member].detach().to("cpu", copy=True) for name, stored in self._aliases.items()
        }

    def load(self, states: Sequence[Mapping[str, Tensor]], members: Sequence[int] | None = None) -> None:
        """Load such copies into some heads, or all."""
        with torch.no_grad():
            for member, state in zip(range(self.n_heads) if members is None else members, states, strict=True):
                for name, value in state.items():
                    self._stacked(self._aliases[name])[member].copy_(value)

    def head(self, member: int) -> nn.Module:
        """Return one head as a module of its own, with the weights it has now."""
        head = copy.deepcopy(self._template[0])
        with torch.no_grad():
            for name, value in (*head.named_parameters(), *head.named_buffers()):
                value.copy_(self._stacked(name)[member])
        return head.to(self._stacked(name).device)

    def _stacked(self, name: str) -> Tensor:
        value: Tensor = getattr(self, _key(name))
        return value


def _key(name: str) -> str:
    return f"stacked/{name.replace('.', '/')}"


def _aliases(head: nn.Module) -> dict[str, str]:
    """Map each name in a head's state that training changes to the name under which its tensor is stacked."""
    first = {id(value): name for name, value in (*head.named_parameters(), *head.named_buffers())}
    every = [*head.named_parameters(remove_duplicate=False), *head.named_buffers(remove_duplicate=False)]
    frozen = {name for name, value in head.named_parameters(remove_duplicate=False) if not value.requires_grad}
    kept = head.state_dict().keys() - frozen
    return {name: first[id(value)] for name, value in every if name in kept}


class StackedAdamW(EagerOptimizer):
    """AdamW for stacked weights, with a learning rate for each head; the arithmetic is that of ``torch.optim.AdamW``.

    Args:
        weights: Stacked weights, shape (K, ...) each.
        rates: Learning rate of each head, shape (K,).
        weight_decay: Weight decay of each head, shape (K,).
    """

    BETAS, EPS = (0.9, 0.999), 1e-8  # defaults of torch.optim.AdamW

    def __init__(self, weights: Iterable[nn.Parameter], rates: Sequence[float], weight_decay: Sequence[float]) -> None:
        super().__init__(weights, {"rates": list(rates), "weight_decay": list(weight_decay)})

    def set_rates(self, rates: Sequence[float]) -> None:
        """Set the learning rates of the next step; a head with the rate 0 stays as it is."""
        for group in self.param_groups:
            group["rates"] = list(rates)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # takes no closure
        """Take a step."""
        (first, second), eps = self.BETAS, self.EPS
        for group in self.param_groups:
            rates, decay = group["rates"], group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
                state["step"] += 1
                n_steps, mean, square = float(state["step"]), state["exp_avg"], state["exp_avg_sq"]
                mean.lerp_(weight.grad, 1 - first)
                square.mul_(second).addcmul_(weight.grad, weight.grad, value=1 - second)
                width = (square.sqrt() / (1 - second**n_steps) ** 0.5).add_(eps)
                sizes = [rate / (1 - first**n_steps) for rate in rates]
                if len(set(rates)) == 1 and len(set(decay)) == 1:
                    weight.mul_(1 - rates[0] * decay[0])
                    weight.addcdiv_(mean, width, value=-sizes[0])
                    continue
                kept = [1 - rate * one for rate, one in zip(rates, decay, strict=True)]
                weight.mul_(_per_head(kept, weight))
                weight.sub_((mean / width).mul_(_per_head(sizes, weight)))


def _per_head(values: Sequence[float], like: Tensor) -> Tensor:
    shape = (-1, *(1 for _ in like.shape[1:]))
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(shape)


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
            state={
                name: self.state.best_weights[_key(stored)][place].clone()
                for name, stored in self.heads._aliases.items()
            },
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
            else [_labels(splits, [_NO_ROWS if one is None else one for one in item]) for item in items]
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


def predict_stacked(
    heads: StackedHeads,
    splits: Sequence[Split],
    accelerator: Accelerator,
    *,
    batch_size: int,
    values_of: Callable[[Tensor], Tensor] = lambda logits: logits,
    members: Sequence[int] | None = None,
) -> list[Predictions]:
    """Predict every item of a split with several heads, from one read; see ``predict.predict``.

    Args:
        heads: The heads.
        splits: The same items for each of the members, with the embeddings that each reads. Members that share a split
            object share its embeddings.
        accelerator: Device and processes.
        batch_size: Items per forward pass, over all processes.
        values_of: Turns logits into predicted values, for real-valued labels; see ``Loss.predict``.
        members: Which heads, counted from 0; None for all.

    Returns:
        The predictions of each member.

    Raises:
        InputError: The split holds no item.
    """
    heads.eval()
    first = splits[0]
    mine = np.arange(len(first))[accelerator.process_index :: accelerator.num_processes]
    per_process = max(1, batch_size // accelerator.num_processes)
    slices = [mine[start : start + per_process] for start in range(0, len(mine), per_process)]
    found: list[list[Predictions]] = [[] for _ in splits]

    def read(rows: Ints) -> tuple[Ints, StackedBatch]:
        return rows, read_stacked(splits, [rows] * len(splits), accelerator.device)

    for rows, batch in prefetch(read, slices):
        with torch.inference_mode(), accelerator.autocast():
            logits = heads(batch.x_KBTD, batch.token_of_KBL, members, batch.shapes).float()
        facts: BatchFacts | None = None
        for place, split in enumerate(splits):
            own = Batch(rows=rows, inputs=(batch.x_KBTD[place], batch.token_of_KBL[place]), labels=batch.labels[place])
            facts = BatchFacts.of(split, own) if facts is None else facts
            found[place].append(predictions_of(logits[place], split, own, values_of, facts))
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        gathered = gather_object([found])
        found = [[one for rank in gathered for one in rank[place]] for place in range(len(splits))]
    if not found or not found[0]:
        raise InputError("a split to predict holds no item; check the split column of the BED file")
    return [concatenate(parts) for parts in found]
