"""Losses for training a head. Padding is masked in one place, ``mask_padding``, for all of them.

>>> import torch
>>> loss = build_loss("bce", positive_weight=82.86)
>>> parts = loss(torch.zeros(1, 3, 1), torch.tensor([[0, 1, -100]]))
>>> parts.count.item()
2.0
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from bend_hf.errors import ConfigError, LabelError, did_you_mean
from bend_hf.types import IGNORE_LABEL

LossName: TypeAlias = Literal["cross_entropy", "bce", "mse", "poisson"]


@dataclass(frozen=True, kw_only=True)
class LossParts:
    """A loss as a sum and its divisor, so that it can be averaged over batches and processes.

    The mean over several batches is the sum of their totals over the sum of their counts. It differs from the mean of
    their means if the batches hold different numbers of labels.

    Attributes:
        total: Sum over the labels that are not padding, a scalar with a gradient.
        count: Number of those labels, or the sum of their weights, a scalar.
    """

    total: Tensor
    count: Tensor

    @property
    def mean(self) -> Tensor:
        """The loss of this batch; 0 if every label is padding."""
        return self.total / torch.where(self.count > 0, self.count, 1.0)


@dataclass(frozen=True, kw_only=True)
class Masked:
    """Scores and labels with zeros at padding, in float32 or wider, as sums over many labels follow."""

    scores: Tensor
    target: Tensor
    real: Tensor


def is_label(target: Tensor) -> Tensor:
    """Return which entries are labels and not padding: class numbers other than -100, real values other than nan."""
    return ~target.isnan() if target.is_floating_point() else target != IGNORE_LABEL


def mask_padding(scores: Tensor, target: Tensor) -> Masked:
    """Mark padding, and set scores and labels to zero there, so that no gradient comes from it.

    Args:
        scores: Float, of the shape of ``target``, or with one more axis for classes.
        target: Labels; at padding -100, or nan if they are real values.

    Returns:
        Scores and labels with zeros at padding, and ``real``, float, of the shape of ``target``: 1, or 0 at padding.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    real = is_label(target)
    real_of_scores = real if scores.dim() == target.dim() else real.unsqueeze(-1)
    return Masked(
        scores=torch.where(real_of_scores, scores, 0.0),
        target=torch.where(real, target, 0),
        real=real.to(scores.dtype),
    )


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """A loss label by label, before it is summed.

    Attributes:
        losses: The loss of each label, zero at padding; the first axis is the batch.
        weights: The weight of each label in ``LossParts.count``, zero at padding, of the same shape.
    """

    losses: Tensor
    weights: Tensor


class Loss(nn.Module):
    """The interface of all losses: logits in, ``LossParts`` out, and the activation that makes predictions."""

    @abstractmethod
    def terms(self, logits: Tensor, target: Tensor) -> LossTerms:
        """Compute the loss of each label of a batch.

        Args:
            logits: Float, shape (batch, positions or windows, outputs).
            target: The labels, see the subclasses; -100 at padding, or nan if float.

        Raises:
            LabelError: The shapes do not fit.
        """

    def forward(self, logits: Tensor, target: Tensor) -> LossParts:
        """Compute the loss of a batch; see ``terms``."""
        terms = self.terms(logits, target)
        return LossParts(total=terms.losses.sum(), count=terms.weights.sum())

    def count(self, target: Tensor) -> Tensor:
        """Return the ``count`` of ``LossParts`` from the labels alone, a scalar."""
        return is_label(target).sum()

    @abstractmethod
    def predict(self, logits: Tensor) -> Tensor:
        """Turn logits into predictions of the same shape: probabilities, rates or values."""


class CrossEntropy(Loss):
    """One class per position.

    Args:
        class_weights: One weight per class; the mean is then over the weights of the labels, as in torch.
    """

    def __init__(self, *, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", _as_tensor(class_weights), persistent=False)

    def terms(self, logits: Tensor, target: Tensor) -> LossTerms:
        """Compute the loss of each position of a batch.

        Args:
            logits: Float, shape (batch, positions, classes).
            target: Class of each position, int64, shape (batch, positions); -100 at padding.

        Raises:
            LabelError: The shapes do not fit.
        """
        if logits.shape[:-1] != target.shape:
            raise LabelError(
                f"logits of shape {tuple(logits.shape)} need labels of shape {tuple(logits.shape[:-1])}, not "
                f"{tuple(target.shape)}; compare the head's pool_bp with the task's label window"
            )
        masked = mask_padding(logits, target)
        classes = masked.target.long()
        losses = functional.cross_entropy(masked.scores.flatten(0, -2), classes.flatten(), reduction="none").view_as(
            masked.real
        )
        weights = masked.real if self.class_weights is None else masked.real * self.class_weights[classes]
        return LossTerms(losses=losses * weights, weights=weights)

    def count(self, target: Tensor) -> Tensor:
        """Return the number of labels that are not padding, or the sum of their class weights."""
        if self.class_weights is None:
            return super().count(target)
        return self.class_weights[target[target != IGNORE_LABEL].long()].sum()

    def predict(self, logits: Tensor) -> Tensor:
        """Return class probabilities."""
        return logits.softmax(-1)


class _PerLabel(Loss):
    """A loss with one label for each logit."""

    @abstractmethod
    def elementwise(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each label, of the shape of both."""

    def terms(self, logits: Tensor, target: Tensor) -> LossTerms:
        """Compute the loss of each label of a batch.

        Args:
            logits: Float, shape (batch, windows, labels).
            target: The same shape; axes of size 1 after the batch may be left out. -100 at padding, or nan if float.

        Raises:
            LabelError: The shapes do not fit.
        """
        masked = mask_padding(logits, _aligned(target, logits))
        losses = self.elementwise(masked.scores, masked.target.to(masked.scores.dtype))
        return LossTerms(losses=losses * masked.real, weights=masked.real)


class BinaryCrossEntropy(_PerLabel):
    """Any number of labels per window.

    Args:
        positive_weight: Weight of positive labels, one for all or one per label; labels are counted unweighted.
    """

    def __init__(self, *, positive_weight: float | Sequence[float] | None = None) -> None:
        super().__init__()
        self.positive_weight: Tensor | None
        self.register_buffer("positive_weight", _as_tensor(positive_weight), persistent=False)

    def elementwise(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the weighted cross entropy of each label."""
        return functional.binary_cross_entropy_with_logits(
            logits, target, pos_weight=self.positive_weight, reduction="none"
        )

    def predict(self, logits: Tensor) -> Tensor:
        """Return a probability per label."""
        return logits.sigmoid()


class SquaredError(_PerLabel):
    """Real values."""

    def elementwise(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the squared error of each value."""
        return (logits - target).square()

    def predict(self, logits: Tensor) -> Tensor:
        """Return the logits."""
        return logits


class Poisson(_PerLabel):
    """Counts; the rate is the softplus of the logit. The term of the count alone is left out, as in BEND."""

    SMALLEST_RATE = 1e-20  # BEND bend/utils/task_trainer.py, PoissonLoss

    def elementwise(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the negative log-likelihood of each count, up to a constant."""
        return self.of_rates(self.predict(logits), target)

    @classmethod
    def of_rates(cls, rates: Tensor, target: Tensor) -> Tensor:
        """Compute it from rates, of their shape."""
        return rates - target * rates.clamp(min=cls.SMALLEST_RATE).log()

    def predict(self, logits: Tensor) -> Tensor:
        """Return rates."""
        return functional.softplus(logits)


def build_loss(
    name: LossName,
    *,
    class_weights: Sequence[float] | None = None,
    positive_weight: float | Sequence[float] | None = None,
) -> Loss:
    """Build a loss by its name.

    Args:
        name: ``cross_entropy``, ``bce``, ``mse`` or ``poisson``.
        class_weights: One weight per class, for ``cross_entropy``.
        positive_weight: Weight of positive labels, for ``bce``.

    Raises:
        ConfigError: The loss is unknown, or it does not take these weights.
    """
    if name not in get_args(LossName):
        raise ConfigError(f"unknown loss {name!r}; {did_you_mean(name, list(get_args(LossName)))}")
    if class_weights is not None and name != "cross_entropy":
        raise ConfigError(
            f"the loss {name!r} takes no class_weights; 'cross_entropy' does, and 'bce' takes positive_weight"
        )
    if positive_weight is not None and name != "bce":
        raise ConfigError(
            f"the loss {name!r} takes no positive_weight; 'bce' does, and 'cross_entropy' takes class_weights"
        )
    match name:
        case "cross_entropy":
            return CrossEntropy(class_weights=class_weights)
        case "bce":
            return BinaryCrossEntropy(positive_weight=positive_weight)
        case "mse":
            return SquaredError()
        case "poisson":
            return Poisson()


def _as_tensor(weights: float | Sequence[float] | None) -> Tensor | None:
    return None if weights is None else torch.tensor(weights, dtype=torch.float32)


def _aligned(target: Tensor, logits: Tensor) -> Tensor:
    """Return the labels in the shape of the logits, with axes of size 1 inserted."""
    without_ones = [(shape[0], *(n for n in shape[1:] if n != 1)) for shape in (logits.shape, target.shape)]
    if without_ones[0] != without_ones[1]:
        raise LabelError(
            f"logits of shape {tuple(logits.shape)} do not fit labels of shape {tuple(target.shape)}; "
            "compare the head's pool_bp and outputs with the task's labels"
        )
    return target.reshape(logits.shape)
