"""Logistic regression on scaled features: one a label, or one over all classes; C is chosen on validation.

>>> x, y = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32), np.array([0, 0, 1, 1], np.int16)
>>> fit_linear(x, y, n_outputs=1, c=1.0).scores(x).ravel().argsort().tolist()
[0, 1, 2, 3]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.shapes import Floats

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
