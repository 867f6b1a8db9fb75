"""Controls that learn a linear model on words, and how scores of windows become predictions.

For a control's module: ``predict=learner(lambda task: words)``.

>>> share_of(np.array([[1, 0], [1, 1]], np.int16), n_outputs=2).tolist()
[1.0, 0.5]

Logistic regression on scaled features: one a label, or one over all classes; C is chosen on validation.

>>> x, y = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32), np.array([0, 0, 1, 1], np.int16)
>>> fit_linear(x, y, n_outputs=1, c=1.0).scores(x).ravel().argsort().tolist()
[0, 1, 2, 3]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.data.builder import n_outputs
from bend_hf.evaluation.metrics import score
from bend_hf.evaluation.predictions import Predictions, concatenate
from bend_hf.runs.controls._features import WindowBatch, Windows, Words
from bend_hf.runs.controls._spec import ControlResult
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import MultiLabel
from bend_hf.types import Floats, Ints, Json

if TYPE_CHECKING:
    from datasets import Dataset

C_GRID: Final = (1e-4, 1e-2, 1.0)  # strength of the features against shrinking, weak to strong
_ITERATIONS: Final = 200


@dataclass(frozen=True, kw_only=True)
class Linear:
    """What was learned, on features as they come.

    Attributes:
        weights: Float64, shape (features, outputs).
        bias: Float64, shape (outputs,).
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def scores(self, features: Floats) -> NDArray[np.float64]:
        """Logits, shape (windows, outputs)."""
        return features @ self.weights + self.bias


def fit_linear(features: Floats, target: NDArray[np.int16], *, n_outputs: int, c: float) -> Linear:
    """Fits on features scaled to mean 0 and deviation 1.

    Args:
        features: Shape (windows, features); one that is constant gets no weight.
        target: Classes, shape (windows,), or 0 and 1, shape (windows, labels).
        n_outputs: One for each label or class; 1 for a yes-or-no class.
        c: As in scikit-learn.
    """
    mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    varies = deviation > 1e-9
    scale = np.where(varies, deviation, 1.0)
    scaled = np.where(varies, (features - mean) / scale, 0.0)
    if target.ndim == 1 and n_outputs > 1:
        weights, bias = _classes(scaled, target, n_outputs, c)
    else:
        columns = [_yes_or_no(scaled, column, c) for column in target.reshape(len(target), -1).T]
        weights, bias = np.stack([w for w, _ in columns], axis=1), np.array([b for _, b in columns])
    weights = weights / scale[:, None]
    return Linear(weights=weights, bias=bias - mean @ weights)


def choose_c(
    fit: Callable[[float], Linear], value: Callable[[Linear], float]
) -> tuple[float, Linear, dict[str, float]]:
    """The C whose fit has the highest value, the smallest of equals; with the value of each."""
    fitted = {c: fit(c) for c in C_GRID}
    values = {c: value(linear) for c, linear in fitted.items()}
    best = max(C_GRID, key=lambda c: (np.nan_to_num(values[c], nan=-np.inf), -c))
    return best, fitted[best], {f"{c:g}": found for c, found in values.items()}


def _yes_or_no(scaled: NDArray[np.float64], target: NDArray[np.int16], c: float) -> tuple[NDArray[np.float64], float]:
    positive = int((target == 1).sum())
    if positive in (0, len(target)):  # nothing to tell apart; the bias says which class there was
        return np.zeros(scaled.shape[1]), float(np.log((positive + 1) / (len(target) - positive + 1)))
    model = _fitted(scaled, target, c)
    return model.coef_[0], float(model.intercept_[0])  # type: ignore[attr-defined]


def _classes(
    scaled: NDArray[np.float64], target: NDArray[np.int16], n_classes: int, c: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A class that the training did not hold is never the highest."""
    weights, bias = np.zeros((scaled.shape[1], n_classes)), np.full(n_classes, -1e9)
    held = np.unique(target)
    if len(held) == 1:
        bias[held] = 0.0
    elif len(held) == 2:  # scikit-learn then fits one line between them
        weights[:, held[1]], bias[held[1]] = _yes_or_no(scaled, (target == held[1]).astype(np.int16), c)
        bias[held[0]] = 0.0
    else:
        model = _fitted(scaled, target, c)
        weights[:, held], bias[held] = model.coef_.T, model.intercept_  # type: ignore[attr-defined]
    return weights, bias


def _fitted(scaled: NDArray[np.float64], target: NDArray[np.int16], c: float) -> object:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a control that is nearly fitted is a control
        return LogisticRegression(C=c, max_iter=_ITERATIONS).fit(scaled, target)


MOST_WINDOWS: Final = 30_000  # that are learned from, and as many to choose C on; drawn with the run's seed
_PLACES: Final = ("chromosome", "start", "end", "strand", "ref", "alt")


def learner(words_of: Callable[[TaskSpec], Words]) -> Callable[[TaskSpec, dict[str, Dataset], int], ControlResult]:
    """A control that learns from the shares of words in each window."""

    def predict(task: TaskSpec, splits: dict[str, Dataset], seed: int) -> ControlResult:
        words, outputs = words_of(task), n_outputs(task)
        train, validation, test = (Windows(splits[name], task.label, words) for name in ("train", "validation", "test"))
        x, y = train.sample(MOST_WINDOWS, seed)
        x_validation, y_validation = validation.sample(MOST_WINDOWS, seed)

        def value(linear: Linear) -> float:
            return score(task.metric, said(linear.scores(x_validation), task), y_validation).value

        c, linear, values = choose_c(lambda c: fit_linear(x, y, n_outputs=outputs, c=c), value)
        learned: dict[str, Json] = {
            "windows": len(x),
            "c": c,
            "validation": {name: found if np.isfinite(found) else None for name, found in values.items()},
        }
        scored = ((batch, linear.scores(batch.features)) for batch in test.batches())
        return ControlResult(
            predictions=collect(task, splits["test"], test.counts, scored),
            n_features=train.n_features,
            n_parameters=linear.weights.size + linear.bias.size,
            learned=learned,
        )

    return predict


def said(logits: NDArray[np.float64], task: TaskSpec) -> NDArray[np.float32] | NDArray[np.int16]:
    """Scores between 0 and 1 of labels and yes-or-no windows; the likeliest class otherwise."""
    if is_scored(task):
        likely: NDArray[np.float32] = (1 / (1 + np.exp(-np.clip(logits, -60, 60)))).astype(np.float32)
        return likely if isinstance(task.label, MultiLabel) else likely[:, 0]
    classes: NDArray[np.int16] = logits.argmax(axis=1).astype(np.int16)
    return classes


def is_scored(task: TaskSpec) -> bool:
    """Whether predictions of the task are scores, and not classes."""
    return isinstance(task.label, MultiLabel) or n_outputs(task) == 1 or task.variant is not None


def collect(
    task: TaskSpec, dataset: Dataset, counts: Ints, scored: Iterator[tuple[WindowBatch, NDArray[np.float64]]]
) -> Predictions:
    """Predictions of a split out of the logits of its windows, batch by batch."""
    return concatenate(
        [
            of_windows(task, dataset, batch.rows, counts[batch.rows], batch.target, said(logits, task))
            for batch, logits in scored
        ]
    )


def of_windows(
    task: TaskSpec,
    dataset: Dataset,
    rows: Ints,
    counts: Ints,
    target: NDArray[np.int16],
    values: NDArray[np.float32] | NDArray[np.int16],
) -> Predictions:
    """Predictions of some items.

    Args:
        task: What was predicted.
        dataset: The split.
        rows: Items of it, shape (n,).
        counts: Windows of each, shape (n,).
        target: What is true of each window.
        values: What was said of each window.
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


def share_of(target: NDArray[np.int16], *, n_outputs: int) -> NDArray[np.float64]:
    """How frequent each label or class is among windows, shape (outputs,); of a yes-or-no class the yes."""
    if target.ndim == 2:
        return np.asarray(target.mean(axis=0, dtype=np.float64))
    counts = np.bincount(target, minlength=max(n_outputs, 2)) / max(len(target), 1)
    return counts[1:2] if n_outputs == 1 else counts
