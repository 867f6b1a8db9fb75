"""Area under the ROC curve of one label or of many, computed from ranks, with the value of each label.

Predictions are any numbers, references 0 and 1, with one column per label. The mean leaves out labels that have one
class, and the result counts them.

>>> import evaluate
>>> evaluate.load("bend/auroc").compute(predictions=[0.1, 0.4, 0.4, 0.8], references=[0, 0, 1, 1])["auroc"]
0.875
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike, NDArray

MAIN = "auroc"  # name of the result that stands for the metric
PERFECT = 1.0  # its best value
HIGHER_IS_BETTER = True
RANGE = (0.0, 1.0)  # what it can be; a record with another value is refused

_Batch = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64] | None]  # scores, references, weights
_Weighted = tuple[NDArray[Any], Any]  # sorted scores and their weights; None without weights
_SMALL = 1 << 14  # cells; smaller batches are joined from time to time, so that single items cost little
_WEIGHTS = (1e-100, 1e100)  # products and sums of weights in between neither overflow nor vanish

_DESCRIPTION = """
Area under the receiver operating characteristic: the probability that a positive item scores above a negative one, with
ties counted half. 1 is perfect, 0.5 is chance. Exact, from ranks; equal to sklearn.metrics.roc_auc_score. With several
labels, it is the mean over the labels that have both classes.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Scores, higher for positive; shape (items,) or (items, labels). Any monotone scale: logits do.
        Scored values may be infinite, but not nan.
    references: 0 or 1, of the same shape; `ignore_index` if a value is not to be scored.
    ignore_index (`int` or `None`): References of this value are left out, by default -100. None scores all.
    names (sequence of `str`, optional): Names of the labels in order; they are returned in the result.
    sample_weight (optional): A weight of 0, or from 1e-100 to 1e100, for each item, shape (items,), with
        `predictions`. An item of weight 2 counts as two items. An item of weight 0 is left out, whatever its
        score and reference are.

Returns:
    `auroc` (`float`): Mean over the labels that have both classes; nan if none has.
    `per_label` (`list` of `float`): One value per label; nan if the label has one class or no item.
    `n_labels_left_out` (`int`): Number of labels that are nan.
    `n_positive`, `n_negative` (`list` of `int`): Number of scored items of each label.
    `names` (`list` of `str`): Only if they were given.

Example:
    >>> import evaluate
    >>> auroc = evaluate.load("bend/auroc")
    >>> auroc.add_batch(predictions=[[0.1, 0.3], [0.9, 0.2]], references=[[0, 1], [1, 1]])
    >>> auroc.add_batch(predictions=[[0.5, 0.1]], references=[[1, -100]])
    >>> auroc.compute()["per_label"]
    [1.0, nan]
"""

_CITATION = """
@article{hanley1982meaning,
    author = {Hanley, James A. and McNeil, Barbara J.},
    title = {The meaning and use of the area under a receiver operating characteristic ({ROC}) curve},
    journal = {Radiology},
    volume = {143},
    pages = {29--36},
    year = {1982},
    doi = {10.1148/radiology.143.1.7063747}
}
"""


class Auroc(evaluate.Metric):
    """Keep scores as they are given and references as bytes, and rank each label once at the end."""

    def __init__(self, config_name: str | None = None, num_process: int = 1, **loading: object) -> None:
        """Take the arguments of `evaluate.Metric`, for one process; `take_items` joins the items of several."""
        if num_process != 1:
            raise ValueError(
                f"num_process is {num_process}, but this metric ranks in one process; gather each batch first "
                "(accelerator.gather_for_metrics), or gather take_items() and add_batch(**items) in one process"
            )
        super().__init__(config_name=config_name, num_process=num_process, **loading)
        self._reset()

    def _info(self) -> evaluate.MetricInfo:
        """Describe the metric and its inputs."""
        score, label = datasets.Value("float32"), datasets.Value("int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features({"predictions": score, "references": label}),
                datasets.Features({"predictions": datasets.Sequence(score), "references": datasets.Sequence(label)}),
            ],
            reference_urls=["https://scikit-learn.org/stable/modules/generated/sklearn.metrics.roc_auc_score.html"],
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
        """Add one item: a score and its reference, or one row of each.

        `evaluate.combine` passes them under the plural names.
        """
        prediction = _as_array(predictions if prediction is None else prediction)
        reference = _as_array(references if reference is None else reference)
        self.add_batch(predictions=prediction[None], references=reference[None])

    def add_batch(
        self, *, predictions: ArrayLike, references: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """Add items of shape (items,) or (items, labels). They are copied. A batch that raises adds nothing."""
        scores, labels = _pair(predictions, references)
        self._keep(scores.copy(), labels.copy(), _weights(sample_weight, len(labels)))

    def take_items(self) -> dict[str, NDArray[Any]]:
        """Return the items that were added, for `add_batch` in another process, and start again.

        Returns:
            `predictions` and `references`, each of shape (items,) or (items, labels), and `sample_weight` if
            weights were given.
        """
        if not self._batches:
            raise ValueError("nothing was added, so there are no items to take")
        scores, labels, weights = _joined(self._batches)
        self._reset()
        items = {"predictions": scores, "references": labels}
        return items if weights is None else {**items, "sample_weight": weights}

    def compute(
        self,
        *,
        predictions: ArrayLike | None = None,
        references: ArrayLike | None = None,
        ignore_index: int | None = -100,
        names: Sequence[str] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> dict[str, Any]:
        """Score the added items and those given here. Afterwards the metric is empty, even after an error."""
        try:
            if predictions is not None or references is not None:
                if predictions is None or references is None:
                    raise ValueError("predictions and references go together, but one of them is None")
                scores, labels = _pair(predictions, references)
                self._keep(scores, labels, _weights(sample_weight, len(labels)))
            elif sample_weight is not None:
                raise ValueError("sample_weight goes with predictions and references; give it to add_batch instead")
            if not self._batches:
                raise ValueError("nothing to score; give predictions and references, or call add_batch first")
            result = _result(self._batches, ignore_index, names)
        finally:
            self._reset()
        return result

    def _keep(self, scores: NDArray[Any], labels: NDArray[Any], weights: NDArray[np.float64] | None) -> None:
        """Keep a batch if it has the shape of the others. An empty batch has none and fits all."""
        if self._batches and not len(scores):
            return
        if self._batches and not len(self._batches[0][0]):
            self._batches, self._n_small = [], 0
        if self._batches and self._batches[0][0].shape[1:] != scores.shape[1:]:
            raise ValueError(
                f"a batch of shape {scores.shape} after one of shape {self._batches[0][0].shape}; "
                "each batch must have the same labels"
            )
        self._batches.append((scores, labels, weights))
        self._n_small = self._n_small + 1 if scores.size < _SMALL else 0
        if self._n_small == 256:
            self._batches[-256:] = [_joined(self._batches[-256:])]
            self._n_small = 0


def _joined(batches: list[_Batch]) -> _Batch:
    """Join batches to one batch."""
    scores, labels = np.concatenate([batch[0] for batch in batches]), np.concatenate([batch[1] for batch in batches])
    return scores, labels, _joined_weights(batches)


def _joined_weights(batches: list[_Batch]) -> NDArray[np.float64] | None:
    """Join the weights of batches, 1 for batches without weights; None if no batch has weights."""
    if all(weights is None for _, _, weights in batches):
        return None
    return np.concatenate([np.ones(len(labels)) if weights is None else weights for _, labels, weights in batches])


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
    """Convert scores to numbers and references to integers, to bytes if they fit; (items,) or (items, labels)."""
    scores, labels = _as_array(predictions), _as_array(references)
    if scores.shape != labels.shape or scores.ndim not in (1, 2):
        raise ValueError(
            f"predictions have shape {scores.shape}, references {labels.shape}; expected the same for both, (items,) "
            "or (items, labels). Windows of a sequence are items: reshape to (sequences * windows, labels)"
        )
    if scores.dtype.kind not in "fiub":
        raise ValueError(f"predictions are {scores.dtype}; expected numbers, higher for positive")
    whole = labels.dtype.kind != "f" or np.all(np.isfinite(labels) & (labels == np.rint(labels)))
    if labels.dtype.kind not in "fiub" or not whole:
        raise ValueError(f"references are {labels.dtype} and not whole numbers; expected 0, 1 or ignore_index")
    if labels.dtype.kind in "fb":
        labels = labels.astype(np.int64)
    fits = labels.size == 0 or (labels.min() >= -128 and labels.max() <= 127)
    return scores, labels.astype(np.int8, copy=False) if fits else labels


def _result(batches: list[_Batch], ignore_index: int | None, names: Sequence[str] | None) -> dict[str, Any]:
    """Compute the result as plain Python numbers. Only one label at a time is in memory in sorted order."""
    n_labels = 1 if batches[0][0].ndim == 1 else batches[0][0].shape[1]
    if names is not None and len(names) != n_labels:
        raise ValueError(f"there are {len(names)} names and {n_labels} labels; give one name per label")
    if ignore_index in (0, 1):
        raise ValueError(f"ignore_index is {ignore_index}, which is a label; expected another number or None")
    weights = _joined_weights(batches)
    per_label, n_positive, n_negative = [], [], []
    for label in range(n_labels):
        positive, negative = _split(batches, label, ignore_index, weights)
        per_label.append(_area(positive[0], negative[0]) if weights is None else _weighted_area(positive, negative))
        n_positive.append(len(positive[0]))
        n_negative.append(len(negative[0]))
    held = [area for area in per_label if not math.isnan(area)]
    result = {
        "auroc": math.fsum(held) / len(held) if held else math.nan,
        "per_label": per_label,
        "n_labels_left_out": n_labels - len(held),
        "n_positive": n_positive,
        "n_negative": n_negative,
    }
    return result if names is None else {**result, "names": list(names)}


def _split(
    batches: list[_Batch], label: int, ignore_index: int | None, weights: NDArray[np.float64] | None
) -> tuple[_Weighted, _Weighted]:
    """Select the scores of the positive and of the negative items of one label, in rising order, with weights."""
    scores, true = (
        np.concatenate([part if part.ndim == 1 else part[:, label] for part in parts])
        for parts in ([batch[0] for batch in batches], [batch[1] for batch in batches])
    )
    if weights is not None:
        weighs = weights > 0
        scores, true, weights = scores[weighs], true[weighs], weights[weighs]
    n_ignored = 0 if ignore_index is None else np.count_nonzero(true == ignore_index)
    if np.count_nonzero((true == 0) | (true == 1)) + n_ignored != len(true):
        wrong = true[(true != 0) & (true != 1) & (true != ignore_index)]
        raise ValueError(
            f"references of label {label} hold {wrong[0]} ({len(wrong):,} of {len(true):,} references); expected 0, 1, "
            f"or {ignore_index} (ignore_index) if a value is not to be scored"
        )
    positive, negative = (_sorted(scores, weights, true == value) for value in (1, 0))
    n_nan = sum(int(np.isnan(part).sum()) for part, _ in (positive, negative) if len(part) and np.isnan(part[-1]))
    if n_nan:
        raise ValueError(f"predictions of label {label} hold {n_nan:,} nan; find out which items the model gives nan")
    return positive, negative


def _sorted(scores: NDArray[Any], weights: NDArray[np.float64] | None, chosen: NDArray[np.bool_]) -> _Weighted:
    """Sort the chosen scores in rising order, with their weights if there are any."""
    if weights is None:
        return np.sort(scores[chosen]), None
    order = np.argsort(scores[chosen], kind="stable")
    return scores[chosen][order], weights[chosen][order]


def _area(positive: NDArray[Any], negative: NDArray[Any]) -> float:
    """Compute the fraction of pairs that the positive item wins, with ties counted half; nan if there are no pairs.

    Each item of the smaller class is located among the sorted others, left and right of its equals. The sum of both
    positions is twice the pairs that it wins. All numbers are whole up to the division.

    Args:
        positive: Sorted scores, shape (positive items,).
        negative: Sorted scores, shape (negative items,).
    """
    twice_all = 2 * len(positive) * len(negative)
    if twice_all == 0:
        return math.nan
    few, many = (positive, negative) if len(positive) <= len(negative) else (negative, positive)
    twice_won = sum(int(np.searchsorted(many, few, side=side).sum()) for side in ("left", "right"))
    return (twice_won if few is positive else twice_all - twice_won) / twice_all


def _weighted_area(positive: _Weighted, negative: _Weighted) -> float:
    """Compute `_area` of weighted items; a pair has the product of their weights."""
    (scores, weights), (others, other_weights) = positive, negative
    all_pairs = float(weights.sum() * other_weights.sum())
    if all_pairs == 0:
        return math.nan
    below = np.concatenate([[0.0], np.cumsum(other_weights)])
    won = sum(below[np.searchsorted(others, scores, side=side)] for side in ("left", "right"))
    return min(1.0, float(weights @ won) / 2 / all_pairs)
