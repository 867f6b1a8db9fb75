"""Spearman rank correlation of predictions with measured values, of one label or of many.

Predictions and references are numbers, of which only the order counts, with one column per label. The mean leaves out
labels in which a side is constant, and the result counts them.

>>> import evaluate
>>> evaluate.load("bend/spearmanr").compute(predictions=[0.1, 0.2, 0.9], references=[1.0, 10.0, 100.0])["spearmanr"]
1.0
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike, NDArray

MAIN = "spearmanr"  # name of the result that stands for the metric
PERFECT = 1.0  # its best value
HIGHER_IS_BETTER = True
RANGE = (-1.0, 1.0)  # what it can be; a record with another value is refused

_Batch = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64] | None]  # predictions, references, weights
_SMALL = 1 << 14  # cells; smaller batches are joined from time to time, so that single items cost little
_WEIGHTS = (1e-100, 1e100)  # products and sums of weights in between neither overflow nor vanish

_DESCRIPTION = """
Spearman's rank correlation: Pearson's correlation of the ranks, with equal values sharing their mean rank. 1 if both
sides have the same order, -1 if their orders are opposite, 0 for no relation. Equal to scipy.stats.spearmanr. With
several labels, it is the mean over the labels in which neither side is constant.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Numbers, shape (items,) or (items, labels).
    references: Measured values, of the same shape; nan if a value was not measured. Such cells are left out.
    ignore_index (`float`, optional): References of this value are left out too. By default no number is: -100.0 is a
        value like others.
    names (sequence of `str`, optional): Names of the labels in order; they are returned in the result.
    sample_weight (optional): A weight of 0, or from 1e-100 to 1e100, for each item, shape (items,), with
        `predictions`. An item of weight 2 counts as two items. An item of weight 0 is left out, whatever its
        prediction and reference are.

Returns:
    `spearmanr` (`float`): Mean over the labels in which neither side is constant; nan without such a label.
    `per_label` (`list` of `float`): One value per label; nan if a side is constant or no item is left.
    `n_labels_left_out` (`int`): Number of labels that are nan.
    `n_items` (`list` of `int`): Number of scored items of each label.
    `names` (`list` of `str`): Only if they were given.

Example:
    >>> import evaluate
    >>> spearmanr = evaluate.load("bend/spearmanr")
    >>> spearmanr.add_batch(predictions=[[0.0, 1.0], [1.0, 0.0]], references=[[1.0, 3.0], [2.0, 5.0]])
    >>> spearmanr.compute()["per_label"]
    [1.0, -1.0]
"""

_CITATION = """
@article{spearman1904proof,
    author = {Spearman, Charles},
    title = {The proof and measurement of association between two things},
    journal = {The American Journal of Psychology},
    volume = {15},
    pages = {72--101},
    year = {1904},
    doi = {10.2307/1412159}
}
"""


class Spearmanr(evaluate.Metric):
    """Keep predictions and references as they are given, and score each label once at the end."""

    def __init__(self, config_name: str | None = None, num_process: int = 1, **loading: object) -> None:
        """Take the arguments of `evaluate.Metric`, for one process; `take_items` joins the items of several."""
        if num_process != 1:
            raise ValueError(
                f"num_process is {num_process}, but this metric scores in one process; gather each batch first "
                "(accelerator.gather_for_metrics), or gather take_items() and add_batch(**items) in one process"
            )
        super().__init__(config_name=config_name, num_process=num_process, **loading)
        self._reset()

    def _info(self) -> evaluate.MetricInfo:
        """Describe the metric and its inputs."""
        score = label = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features({"predictions": score, "references": label}),
                datasets.Features({"predictions": datasets.Sequence(score), "references": datasets.Sequence(label)}),
            ],
            reference_urls=["https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.spearmanr.html"],
        )

    def _reset(self) -> None:
        self._batches: list[_Batch] = []
        self._n_small = 0  # number of small batches at the end

    def __len__(self) -> int:
        """Number of items that were added since the last result, including ignored ones."""
        return sum(len(references) for _, references, _ in self._batches)

    def add(
        self,
        *,
        prediction: ArrayLike | None = None,
        reference: ArrayLike | None = None,
        predictions: ArrayLike | None = None,
        references: ArrayLike | None = None,
    ) -> None:
        """Add one item: a prediction and its reference, or one row of each.

        `evaluate.combine` passes them under the plural names.
        """
        prediction = _as_array(predictions if prediction is None else prediction)
        reference = _as_array(references if reference is None else reference)
        self.add_batch(predictions=prediction[None], references=reference[None])

    def add_batch(
        self, *, predictions: ArrayLike, references: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """Add items of shape (items,) or (items, labels). They are copied. A batch that raises adds nothing."""
        predicted, true = _pair(predictions, references)
        self._keep(predicted.copy(), true.copy(), _weights(sample_weight, len(true)))

    def take_items(self) -> dict[str, NDArray[Any]]:
        """Return the items that were added, for `add_batch` in another process, and start again.

        Returns:
            `predictions` and `references`, each of shape (items,) or (items, labels), and `sample_weight` if
            weights were given.
        """
        if not self._batches:
            raise ValueError("nothing was added, so there are no items to take")
        predicted, true, weights = _joined(self._batches)
        self._reset()
        items = {"predictions": predicted, "references": true}
        return items if weights is None else {**items, "sample_weight": weights}

    def compute(
        self,
        *,
        predictions: ArrayLike | None = None,
        references: ArrayLike | None = None,
        ignore_index: float | None = None,
        names: Sequence[str] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> dict[str, Any]:
        """Score the added items and those given here. Afterwards the metric is empty, even after an error."""
        try:
            if predictions is not None or references is not None:
                if predictions is None or references is None:
                    raise ValueError("predictions and references go together, but one of them is None")
                predicted, true = _pair(predictions, references)
                self._keep(predicted, true, _weights(sample_weight, len(true)))
            elif sample_weight is not None:
                raise ValueError("sample_weight goes with predictions and references; give it to add_batch instead")
            if not self._batches:
                raise ValueError("nothing to score; give predictions and references, or call add_batch first")
            result = _result(self._batches, ignore_index, names)
        finally:
            self._reset()
        return result

    def _keep(self, predicted: NDArray[Any], true: NDArray[Any], weights: NDArray[np.float64] | None) -> None:
        """Keep a batch if it has the shape of the others. An empty batch has none and fits all."""
        if self._batches and not len(predicted):
            return
        if self._batches and not len(self._batches[0][0]):
            self._batches, self._n_small = [], 0
        if self._batches and self._batches[0][0].shape[1:] != predicted.shape[1:]:
            raise ValueError(
                f"a batch of shape {predicted.shape} after one of shape {self._batches[0][0].shape}; "
                "each batch must have the same labels"
            )
        self._batches.append((predicted, true, weights))
        self._n_small = self._n_small + 1 if predicted.size < _SMALL else 0
        if self._n_small == 256:
            self._batches[-256:] = [_joined(self._batches[-256:])]
            self._n_small = 0


def _joined(batches: list[_Batch]) -> _Batch:
    """Join batches to one batch."""
    predicted, true = np.concatenate([batch[0] for batch in batches]), np.concatenate([batch[1] for batch in batches])
    return predicted, true, _joined_weights(batches)


def _joined_weights(batches: list[_Batch]) -> NDArray[np.float64] | None:
    """Join the weights of batches, 1 for batches without weights; None if no batch has weights."""
    if all(weights is None for _, _, weights in batches):
        return None
    return np.concatenate([np.ones(len(true)) if weights is None else weights for _, true, weights in batches])


def _weights(sample_weight: ArrayLike | None, n_items: int) -> NDArray[np.float64] | None:
    """Copy the weights, one per item; None if none were given."""
    if sample_weight is None:
        return None
    weights = np.array(_as_array(sample_weight), np.float64)
    usual = (weights == 0) | ((weights >= _WEIGHTS[0]) & (weights <= _WEIGHTS[1]))
    if weights.shape != (n_items,) or not usual.all():
        raise ValueError(
            f"sample_weight has shape {weights.shape} for {n_items} items; expected shape (items,) and numbers that "
            f"are 0, or from {_WEIGHTS[0]} to {_WEIGHTS[1]}"
        )
    return weights


def _as_array(values: object) -> NDArray[Any]:
    """Convert a list, an array, a torch tensor or a column of a `datasets.Dataset` to a NumPy array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    elif isinstance(values, list | tuple) and values and hasattr(values[0], "detach"):
        values = [_as_array(value) for value in values]
    elif isinstance(values, Sequence) and not isinstance(values, list | tuple):
        values = values[:]  # read a datasets.Column at once; NumPy would read it item by item
    elif isinstance(values, Iterator | Set):
        raise ValueError(f"a {type(values).__name__} has no length and order; give a list or an array")
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        n_masked = np.count_nonzero(np.ma.getmaskarray(values))
        raise ValueError(
            f"{n_masked:,} of {values.size:,} values are masked, and a mask is not read; select the items that count, "
            "or give their references ignore_index"
        )
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(
            "rows have different lengths, so they are not an array; join them with numpy.concatenate, or call "
            "add_batch for each"
        ) from None


def _pair(predictions: ArrayLike, references: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Convert predictions and references to numbers of shape (items,) or (items, labels)."""
    predicted, true = _as_array(predictions), _as_array(references)
    if predicted.shape != true.shape or predicted.ndim not in (1, 2):
        raise ValueError(
            f"predictions have shape {predicted.shape}, references {true.shape}; expected the same for both, (items,) "
            "or (items, labels). Windows of a sequence are items: reshape to (sequences * windows, labels)"
        )
    for what, values in (("predictions", predicted), ("references", true)):
        if values.dtype.kind not in "fiub":
            raise ValueError(f"{what} are {values.dtype}; expected numbers")
    return predicted, true


def _result(batches: list[_Batch], ignore_index: float | None, names: Sequence[str] | None) -> dict[str, Any]:
    """Compute the result as plain Python numbers. Only one label at a time is in memory as doubles."""
    n_labels = 1 if batches[0][0].ndim == 1 else batches[0][0].shape[1]
    if names is not None and len(names) != n_labels:
        raise ValueError(f"there are {len(names)} names and {n_labels} labels; give one name per label")
    weights = _joined_weights(batches)
    columns = [_column(batches, label, ignore_index, weights) for label in range(n_labels)]
    per_label = [_rho(*column) for column in columns]
    held = [value for value in per_label if not math.isnan(value)]
    result = {
        "spearmanr": math.fsum(held) / len(held) if held else math.nan,
        "per_label": per_label,
        "n_labels_left_out": n_labels - len(held),
        "n_items": [len(predicted) for predicted, _, _ in columns],
    }
    return result if names is None else {**result, "names": list(names)}


def _column(
    batches: list[_Batch], label: int, ignore_index: float | None, weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Select the scored items of one label: predictions, references and weights as doubles."""
    predicted, true = (
        np.concatenate([part if part.ndim == 1 else part[:, label] for part in parts])
        for parts in ([batch[0] for batch in batches], [batch[1] for batch in batches])
    )
    scored = ~np.isnan(true.astype(np.float64))
    if ignore_index is not None:
        scored &= true != ignore_index
    if weights is not None:
        scored &= weights > 0
    predicted, true = predicted[scored].astype(np.float64), true[scored].astype(np.float64)
    for what, values in (("predictions", predicted), ("references", true)):
        n_bad = int(np.count_nonzero(~np.isfinite(values)))
        if n_bad:
            raise ValueError(
                f"{what} of label {label} hold {n_bad:,} nan or infinite values; expected numbers, or a reference of "
                "nan if a value was not measured"
            )
    return predicted, true, np.ones(len(true)) if weights is None else weights[scored]


def _rho(x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Compute Spearman's coefficient: Pearson's coefficient of the ranks."""
    return _r(_ranks(x, weights), _ranks(y, weights), weights)


def _ranks(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank values. Equal values share their mean rank, and an item takes as many ranks as its weight."""
    _, place = np.unique(values, return_inverse=True)
    taken = np.bincount(place, weights)
    return (np.cumsum(taken) - taken / 2)[place]


def _r(x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Compute Pearson's coefficient; nan if a side is constant or there are no items.

    Values are shifted by the first and scaled by the largest, so that a constant is exactly 0 and nothing overflows.
    """
    if not len(x):
        return math.nan
    centered = []
    for values in (x, y):
        shifted = values / 2 - values[0] / 2  # halves, because the difference of two doubles may overflow
        largest = np.abs(shifted).max()
        if largest == 0:
            return math.nan
        scaled = shifted / largest
        centered.append(scaled - weights @ scaled / weights.sum())
    dx, dy = centered
    spread_x, spread_y = float(weights @ dx**2), float(weights @ dy**2)
    r = float(weights @ (dx * dy)) / math.sqrt(spread_x * spread_y)
    return max(-1.0, min(1.0, r))
