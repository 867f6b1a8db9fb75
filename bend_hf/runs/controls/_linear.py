"""Controls that learn a linear model on features of windows, and predictions from scores of windows.

A control's module declares ``predict=learner(lambda task: features)`` for k-mers, and ``learner_on`` for others.

The model is a logistic regression on scaled features: one per label, or one over all classes. C is chosen on the
validation split.

>>> x, y = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32), np.array([0, 0, 1, 1], np.int16)
>>> fit_linear(x, y, n_outputs=1, c=1.0).scores(x).ravel().argsort().tolist()
[0, 1, 2, 3]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bend_hf.evaluation.metrics import score
from bend_hf.evaluation.predictions import Predictions, concatenate
from bend_hf.runs.controls._features import KmerFeatures, WindowBatch, Windows
from bend_hf.runs.controls._spec import ControlResult
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import MultiLabel
from bend_hf.types import Floats, Ints, Json, Labels

if TYPE_CHECKING:
    from datasets import Dataset

C_GRID: Final = (1e-4, 1e-2, 1.0)  # inverse strength of the regularization
MOST_WINDOWS: Final = 30_000  # to learn from, and as many to choose C on; drawn with the run's seed
SEARCH: Final[Mapping[str, Json]] = MappingProxyType(
    {"values": {"c": list(C_GRID)}, "by": "the main metric on the validation split", "trials": len(C_GRID)}
)
_ITERATIONS: Final = 200
_PLACES: Final = ("chromosome", "start", "end", "strand", "ref", "alt")


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A linear model on unscaled features.

    Attributes:
        weights: Float64, shape (features, outputs).
        bias: Float64, shape (outputs,).
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def scores(self, features: Floats) -> NDArray[np.float64]:
        """Return logits, shape (windows, outputs)."""
        return features @ self.weights + self.bias


def fit_linear(features: Floats, target: Labels, *, n_outputs: int, c: float) -> Linear:
    """Fit on features that are scaled to mean 0 and deviation 1, in float32, which halves the time.

    Args:
        features: Shape (windows, features); a constant feature gets no weight.
        target: Classes, shape (windows,), or 0 and 1, shape (windows, labels).
        n_outputs: Number of labels or classes; 1 for two classes.
        c: Inverse strength of the regularization, as in scikit-learn.
    """
    return ScaledFeatures.of(features).fit(target, n_outputs=n_outputs, c=c)


@dataclass(frozen=True, kw_only=True)
class ScaledFeatures:
    """Features that are scaled once, to fit with several C; see ``fit_linear``.

    Attributes:
        values: Scaled features, float32, shape (windows, features).
        mean: What was subtracted from each feature, shape (features,).
        scale: What each feature was then divided by, shape (features,).
    """

    values: Floats
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def of(cls, features: Floats) -> Self:
        """Scale features, shape (windows, features), to mean 0 and deviation 1; a constant feature becomes 0."""
        mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
        varies = deviation > 1e-9
        scale = np.where(varies, deviation, 1.0)
        values = np.where(varies, (features - mean) / scale, 0.0).astype(np.float32)
        return cls(values=values, mean=mean, scale=scale)

    def fit(self, target: Labels, *, n_outputs: int, c: float) -> Linear:
        """Fit a linear model, for unscaled features; see ``fit_linear`` for the arguments."""
        if target.ndim == 1 and n_outputs > 1:
            weights, bias = _many_classes(self.values, target, n_outputs, c)
        else:
            columns = [_two_classes(self.values, column, c) for column in target.reshape(len(target), -1).T]
            weights, bias = np.stack([w for w, _ in columns], axis=1), np.array([b for _, b in columns])
        weights = weights / self.scale[:, None]
        return Linear(weights=weights, bias=bias - self.mean @ weights)


@dataclass(frozen=True, kw_only=True)
class ChosenC:
    """The best C, its fit, and the value of each C by its name."""

    c: float
    linear: Linear
    values: dict[str, float]


def choose_c(fit: Callable[[float], Linear], value: Callable[[Linear], float]) -> ChosenC:
    """Choose the C with the highest value, the smallest of equals."""
    fitted = {c: fit(c) for c in C_GRID}
    values = {c: value(linear) for c, linear in fitted.items()}
    best = max(C_GRID, key=lambda c: (np.nan_to_num(values[c], nan=-np.inf), -c))
    return ChosenC(c=best, linear=fitted[best], values={f"{c:g}": found for c, found in values.items()})


def _two_classes(scaled: Floats, target: Labels, c: float) -> tuple[NDArray[np.float64], float]:
    positive = int((target == 1).sum())
    if positive in (0, len(target)):  # one class only; the bias says which
        return np.zeros(scaled.shape[1]), float(np.log((positive + 1) / (len(target) - positive + 1)))
    model = _fitted(scaled, target, c)
    return model.coef_[0], float(model.intercept_[0])


def _many_classes(
    scaled: Floats, target: Labels, n_classes: int, c: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit several classes; a class that training lacks never has the highest score."""
    weights, bias = np.zeros((scaled.shape[1], n_classes)), np.full(n_classes, -1e9)
    held = np.unique(target)
    if len(held) == 1:
        bias[held] = 0.0
    elif len(held) == 2:  # scikit-learn fits a single vector for two classes
        weights[:, held[1]], bias[held[1]] = _two_classes(scaled, (target == held[1]).astype(np.int16), c)
        bias[held[0]] = 0.0
    else:
        model = _fitted(scaled, target, c)
        weights[:, held], bias[held] = model.coef_.T, model.intercept_
    return weights, bias


class _Fitted(Protocol):
    """What is used of scikit-learn's LogisticRegression."""

    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]


def _fitted(scaled: Floats, target: Labels, c: float) -> _Fitted:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a nearly converged control is good enough
        model: _Fitted = LogisticRegression(C=c, max_iter=_ITERATIONS).fit(scaled, target)
    return model


class WindowSource(Protocol):
    """The windows of a split, as ``Windows`` gives them, with any features."""

    @property
    def counts(self) -> Ints:
        """Windows of each row, shape (rows,)."""
        ...

    @property
    def n_features(self) -> int:
        """Number of features per window."""
        ...

    def batches(self) -> Iterator[WindowBatch]:
        """Yield all windows in order, in batches of whole rows."""
        ...

    def sample(self, most: int, seed: int) -> tuple[Floats, Labels]:
        """Return features and targets of windows that have a label, drawn without replacement, in order."""
        ...


def learner(
    features_of: Callable[[TaskSpec], KmerFeatures],
) -> Callable[[TaskSpec, dict[str, Dataset], int], ControlResult]:
    """Return the ``predict`` of a control that learns from the fractions of k-mers in each window."""
    return learner_on(lambda task, split: Windows(split, task.label, features_of(task)))


def learner_on(
    open_windows: Callable[[TaskSpec, Dataset], WindowSource],
) -> Callable[[TaskSpec, dict[str, Dataset], int], ControlResult]:
    """Return the ``predict`` of a control that learns from features of the windows of a split."""

    def predict(task: TaskSpec, splits: dict[str, Dataset], seed: int) -> ControlResult:
        outputs = task.n_outputs
        train, validation, test = (open_windows(task, splits[name]) for name in ("train", "validation", "test"))
        x, y = train.sample(MOST_WINDOWS, seed)
        x_validation, y_validation = validation.sample(MOST_WINDOWS, seed)

        def value(linear: Linear) -> float:
            return score(task.metric, to_predictions(linear.scores(x_validation), task), y_validation).value

        scaled = ScaledFeatures.of(x)
        chosen = choose_c(lambda c: scaled.fit(y, n_outputs=outputs, c=c), value)
        linear = chosen.linear
        learned: dict[str, Json] = {
            "windows": len(x),
            "chosen": {"c": chosen.c},
            "c": chosen.c,
            "solver": "lbfgs",
            "iterations_at_most": _ITERATIONS,
            "validation": {name: found if np.isfinite(found) else None for name, found in chosen.values.items()},
        }
        scored = ((batch, linear.scores(batch.features)) for batch in test.batches())
        return ControlResult(
            predictions=collect(task, splits["test"], test.counts, scored),
            n_features=train.n_features,
            n_parameters=linear.weights.size + linear.bias.size,
            learned=learned,
        )

    return predict


def to_predictions(logits: NDArray[np.float64], task: TaskSpec) -> NDArray[np.float32] | Labels:
    """Return scores between 0 and 1 if the task is scored by them, and the likeliest class otherwise."""
    if is_scored(task):
        likely: NDArray[np.float32] = (1 / (1 + np.exp(-np.clip(logits, -60, 60)))).astype(np.float32)
        return likely if isinstance(task.label, MultiLabel) else likely[:, 0]
    classes: Labels = logits.argmax(axis=1).astype(np.int16)
    return classes


def is_scored(task: TaskSpec) -> bool:
    """Return whether the task is predicted by scores, and not by classes."""
    return isinstance(task.label, MultiLabel) or task.n_outputs == 1 or task.variant is not None


def collect(
    task: TaskSpec, dataset: Dataset, counts: Ints, scored: Iterator[tuple[WindowBatch, NDArray[np.float64]]]
) -> Predictions:
    """Return the predictions of a split, given the logits of its windows batch by batch."""
    return concatenate(
        [
            of_windows(task, dataset, batch.rows, counts[batch.rows], batch.target, to_predictions(logits, task))
            for batch, logits in scored
        ]
    )


def of_windows(
    task: TaskSpec,
    dataset: Dataset,
    rows: Ints,
    counts: Ints,
    target: Labels,
    values: NDArray[np.float32] | Labels,
) -> Predictions:
    """Return the predictions of some items.

    Args:
        task: The task.
        dataset: The split.
        rows: Rows of the items in it, shape (n,).
        counts: Windows of each item, shape (n,).
        target: True labels of each window.
        values: Score or class of each window.
    """
    names = [name for name in _PLACES if name in dataset.column_names]
    table = dataset.select_columns(["item", *names]).with_format("arrow")[rows]
    scores = is_scored(task)
    return Predictions(
        item=table["item"].to_numpy(),
        windows=np.concatenate([[0], np.cumsum(counts)]),
        target=target,
        score=values.astype(np.float32) if scores else None,
        predicted=None if scores else values.astype(np.int16),
        label_names=task.label_names,
        columns={name: table[name].combine_chunks() for name in names},
    )


def fraction_of(target: Labels, *, n_outputs: int) -> NDArray[np.float64]:
    """Return how frequent each label or class is among windows, shape (outputs,); of two classes, the second.

    >>> fraction_of(np.array([[1, 0], [1, 1]], np.int16), n_outputs=2).tolist()
    [1.0, 0.5]
    """
    if target.ndim == 2:
        return np.asarray(target.mean(axis=0, dtype=np.float64))
    counts = np.bincount(target, minlength=max(n_outputs, 2)) / max(len(target), 1)
    return counts[1:2] if n_outputs == 1 else counts
