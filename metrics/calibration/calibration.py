"""Brier score and expected calibration error of probabilities, of one label or of many.

Use it if probabilities must be right, and not only in the right order. There is one column per label.

>>> import evaluate
>>> evaluate.load("bend/calibration").compute(predictions=[0.5, 0.5, 1.0], references=[0, 1, 1])["ece"]
0.0
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike, NDArray

MAIN = "ece"  # name of the result that stands for the metric
PERFECT = 0.0  # its best value
HIGHER_IS_BETTER = False
RANGE = (0.0, 1.0)  # what it can be; a record with another value is refused

_Batch = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64] | None]  # predictions, references, weights
_SMALL = 1 << 14  # cells; smaller batches are joined from time to time, so that single items cost little
_WEIGHTS = (1e-100, 1e100)  # products and sums of weights in between neither overflow nor vanish

_DESCRIPTION = """
Whether predictions with a probability of 0.8 are true eight times out of ten. The expected calibration error is the
mean distance between the two over bins of equal width. The Brier score is the mean squared error of the probabilities,
equal to sklearn.metrics.brier_score_loss. 0 is best for both. With several labels, they are means over the labels.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Probabilities of the positive class, from 0 to 1; shape (items,) or (items, labels).
    references: 0 or 1, of the same shape; `ignore_index` if a value is not to be scored.
    ignore_index (`int` or `None`): References of this value are left out, by default -100. None scores all.
    names (sequence of `str`, optional): Names of the labels in order; they are returned in the result.
    sample_weight (optional): A weight of 0, or from 1e-100 to 1e100, for each item, shape (items,), with
        `predictions`. An item of weight 2 counts as two items. An item of weight 0 is left out, whatever its
        prediction and reference are.
    n_bins (`int`): Number of bins of equal width between 0 and 1, by default 10. Each contains its lower edge, the
        last also 1.

Returns:
    `ece` (`float`): Expected calibration error, the mean over the labels that have items; nan if none has.
    `brier` (`float`): Brier score, the mean over the same labels.
    `ece_per_label`, `brier_per_label` (`list` of `float`): One value per label; nan if no item is left.
    `n_labels_left_out` (`int`): Number of labels that are nan.
    `n_items` (`list` of `int`): Number of scored items of each label.
    `bin_weight` (`list` of `float`): Number or weight of the items in each bin, over all labels.
    `bin_predicted`, `bin_positive` (`list` of `float`): Mean probability and fraction of positives in it; nan if empty.
    `names` (`list` of `str`): Only if they were given.

Example:
    >>> import evaluate
    >>> calibration = evaluate.load("bend/calibration")
    >>> calibration.add_batch(predictions=[0.75, 0.75], references=[1, 0])
    >>> calibration.add_batch(predictions=[0.75, 0.75], references=[1, 1])
    >>> calibration.compute()["ece"]
    0.0
"""

_CITATION = """
@article{brier1950verification,
    author = {Brier, Glenn W.},
    title = {Verification of forecasts expressed in terms of probability},
    journal = {Monthly Weather Review},
    volume = {78},
    pages = {1--3},
    year = {1950},
    doi = {10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2}
}
@inproceedings{naeini2015obtaining,
    author = {Naeini, Mahdi Pakdaman and Cooper, Gregory F. and Hauskrecht, Milos},
    title = {Obtaining well calibrated probabilities using {Bayesian} binning},
    booktitle = {Proceedings of the Twenty-Ninth AAAI Conference on Artificial Intelligence},
    pages = {2901--2907},
    year = {2015}
}
"""


class Calibration(evaluate.Metric):
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
        score, label = datasets.Value("float32"), datasets.Value("int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features({"predictions": score, "references": label}),
                datasets.Features({"predictions": datasets.Sequence(score), "references": datasets.Sequence(label)}),
            ],
            reference_urls=["https://scikit-learn.org/stable/modules/generated/sklearn.metrics.brier_score_loss.html"],
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
        ignore_index: int | None = -100,
        names: Sequence[str] | None = None,
        sample_weight: ArrayLike | None = None,
        n_bins: int = 10,
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
            result = _result(self._batches, ignore_index, names, n_bins)
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


def _result(
    batches: list[_Batch], ignore_index: int | None, names: Sequence[str] | None, n_bins: int
) -> dict[str, Any]:
    """Compute the result as plain Python numbers. Only one label at a time is in memory as doubles."""
    n_labels = 1 if batches[0][0].ndim == 1 else batches[0][0].shape[1]
    if names is not None and len(names) != n_labels:
        raise ValueError(f"there are {len(names)} names and {n_labels} labels; give one name per label")
    if ignore_index in (0, 1):
        raise ValueError(f"ignore_index is {ignore_index}, which is a label; expected another number or None")
    if n_bins < 1:
        raise ValueError(f"n_bins is {n_bins}; expected 1 or more")
    weights = _joined_weights(batches)
    ece, brier, n_items = [], [], []
    sums = np.zeros((3, n_bins))  # weight, predicted and positive in each bin, over all labels
    for label in range(n_labels):
        predicted, true, weighs = _column(batches, label, ignore_index, weights)
        place = np.minimum((predicted * n_bins).astype(np.int64), n_bins - 1)
        own = np.stack([np.bincount(place, weighs * part, minlength=n_bins) for part in (1.0, predicted, true)])
        total = float(weighs.sum())
        ece.append(float(np.abs(own[1] - own[2]).sum()) / total if total else math.nan)
        brier.append(float(weighs @ (predicted - true) ** 2) / total if total else math.nan)
        n_items.append(len(predicted))
        sums += own
    weight = sums[0]
    fraction = np.divide(sums[1:], weight, out=np.full((2, n_bins), np.nan), where=weight > 0)
    result = {
        "ece": _mean(ece),
        "brier": _mean(brier),
        "ece_per_label": ece,
        "brier_per_label": brier,
        "n_labels_left_out": sum(map(math.isnan, ece)),
        "n_items": n_items,
        "bin_weight": weight.tolist(),
        "bin_predicted": fraction[0].tolist(),
        "bin_positive": fraction[1].tolist(),
    }
    return result if names is None else {**result, "names": list(names)}


def _mean(values: list[float]) -> float:
    """Compute the mean of the values that are not nan."""
    held = [value for value in values if not math.isnan(value)]
    return math.fsum(held) / len(held) if held else math.nan


def _column(
    batches: list[_Batch], label: int, ignore_index: int | None, weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Select the scored items of one label: probabilities, references and weights as doubles."""
    predicted, true = (
        np.concatenate([part if part.ndim == 1 else part[:, label] for part in parts])
        for parts in ([batch[0] for batch in batches], [batch[1] for batch in batches])
    )
    scored = np.ones(len(true), np.bool_) if ignore_index is None else true != ignore_index
    if weights is not None:
        scored &= weights > 0
    predicted, true = predicted[scored].astype(np.float64), true[scored].astype(np.float64)
    wrong = true[(true != 0) & (true != 1)]
    if len(wrong):
        raise ValueError(
            f"references of label {label} hold {wrong[0]:g} ({len(wrong):,} of {len(true):,} references); expected 0, "
            f"1, or {ignore_index} (ignore_index) if a value is not to be scored"
        )
    outside = predicted[~((predicted >= 0) & (predicted <= 1))]
    if len(outside):
        raise ValueError(
            f"predictions of label {label} hold {outside[0]} ({len(outside):,} of {len(predicted):,} predictions); "
            "expected probabilities from 0 to 1 (take the sigmoid of logits first)"
        )
    return predicted, true, np.ones(len(true)) if weights is None else weights[scored]
