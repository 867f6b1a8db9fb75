"""Pearson's correlation of predictions with what was measured, of one label or of many.

For whoever scores numbers, a column a label: the mean leaves out labels where a side is constant, and says how many.

>>> import evaluate
>>> evaluate.load("bend/pearsonr").compute(predictions=[0.0, 1.0, 3.0], references=[0.0, 2.0, 6.0])["pearsonr"]
1.0
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike, NDArray

MAIN = "pearsonr"  # the result that stands for the metric
PERFECT = 1.0  # the best value of it
HIGHER_IS_BETTER = True

_Batch = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64] | None]  # predictions, references, weights
_SMALL = 1 << 14  # batches below this many cells are joined now and then, so that single items cost little

_DESCRIPTION = """
Pearson's product-moment correlation: how well a line describes measured values by predicted ones. 1 for a rising line,
-1 for a falling one, 0 for none. Equal to scipy.stats.pearsonr. Of many labels it is the plain mean over those where
neither side is constant.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Numbers, shape (items,) or (items, labels).
    references: What was measured, of the same shape; `ignore_index` where a cell is not to be scored.
    ignore_index (`int` or `None`): References of this value are left out, by default -100. None scores all.
    names (sequence of `str`, optional): Names of the labels in order; they are handed back in the result.
    sample_weight (optional): A weight of 0 or more for each item, shape (items,), with `predictions`. An item of
        weight 2 counts as two, one of weight 0 as none, whatever its prediction and reference are.

Returns:
    `pearsonr` (`float`): Mean over the labels where neither side is constant; nan where there is none.
    `per_label` (`list` of `float`): One a label; nan where a side is constant, or nothing is left.
    `n_labels_left_out` (`int`): How many labels are nan.
    `n_items` (`list` of `int`): Items scored of each label.
    `names` (`list` of `str`): Only where they were given.

Example:
    >>> import evaluate
    >>> pearsonr = evaluate.load("bend/pearsonr")
    >>> pearsonr.add_batch(predictions=[[0.0, 1.0], [1.0, 0.0]], references=[[1.0, 3.0], [2.0, 5.0]])
    >>> pearsonr.compute()["per_label"]
    [1.0, -1.0]
"""

_CITATION = """
@article{pearson1895note,
    author = {Pearson, Karl},
    title = {Note on regression and inheritance in the case of two parents},
    journal = {Proceedings of the Royal Society of London},
    volume = {58},
    pages = {240--242},
    year = {1895},
    doi = {10.1098/rspl.1895.0041}
}
"""


class Pearsonr(evaluate.Metric):
    """Keeps predictions and references as they came, and looks at each label once at the end."""

    def __init__(self, config_name: str | None = None, num_process: int = 1, **loading: Any) -> None:
        """As `evaluate.Metric`, but for one process; `take_items` hands the items of the others to one of them."""
        if num_process != 1:
            raise ValueError(
                f"num_process is {num_process}, but this metric scores in one process; gather each batch first "
                "(accelerator.gather_for_metrics), or gather take_items() and add_batch(**items) in one process"
            )
        super().__init__(config_name=config_name, num_process=num_process, **loading)
        self._reset()

    def _info(self) -> evaluate.MetricInfo:
        """What the metric takes and where it comes from."""
        score = label = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features({"predictions": score, "references": label}),
                datasets.Features({"predictions": datasets.Sequence(score), "references": datasets.Sequence(label)}),
            ],
            reference_urls=["https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.pearsonr.html"],
        )

    def _reset(self) -> None:
        self._batches: list[_Batch] = []
        self._n_small = 0  # how many of the last batches are small

    def __len__(self) -> int:
        """How many items were added since the last result, ignored ones included."""
        return sum(len(references) for _, references, _ in self._batches)

    def add(
        self,
        *,
        prediction: ArrayLike | None = None,
        reference: ArrayLike | None = None,
        predictions: ArrayLike | None = None,
        references: ArrayLike | None = None,
    ) -> None:
        """Add one item: a prediction and its reference, or one row of each. `evaluate.combine` gives them under the plural names."""
        prediction = _as_array(predictions if prediction is None else prediction)
        reference = _as_array(references if reference is None else reference)
        self.add_batch(predictions=prediction[None], references=reference[None])

    def add_batch(
        self, *, predictions: ArrayLike, references: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """Add many items, shape (items,) or (items, labels). They are copied; a batch that raises adds nothing."""
        said, true = _pair(predictions, references)
        self._keep(said.copy(), true.copy(), _weights(sample_weight, len(true)))

    def take_items(self) -> dict[str, NDArray[Any]]:
        """Hand over the items gathered so far and start anew: what one process gives to another's `add_batch`.

        Returns:
            `predictions` and `references`, each of shape (items,) or (items, labels), and `sample_weight` where
            weights were given.
        """
        if not self._batches:
            raise ValueError("nothing was added, so that there are no items to take")
        said, true, weights = _joined(self._batches)
        self._reset()
        items = {"predictions": said, "references": true}
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
        """Score what was added, and the items given here if any. Then, error or not, the metric is empty."""
        try:
            if predictions is not None or references is not None:
                if predictions is None or references is None:
                    raise ValueError("predictions and references go together; one of them is None")
                said, true = _pair(predictions, references)
                self._keep(said, true, _weights(sample_weight, len(true)))
            elif sample_weight is not None:
                raise ValueError("sample_weight goes with predictions and references; give it to add_batch instead")
            if not self._batches:
                raise ValueError("nothing to score; give predictions and references, or call add_batch first")
            result = _result(self._batches, ignore_index, names)
        finally:
            self._reset()
        return result

    def _keep(self, said: NDArray[Any], true: NDArray[Any], weights: NDArray[np.float64] | None) -> None:
        """Put a batch to the others, if it is of their shape."""
        if self._batches and self._batches[0][0].shape[1:] != said.shape[1:]:
            raise ValueError(
                f"a batch of shape {said.shape} after one of shape {self._batches[0][0].shape}; "
                "each batch needs the same labels"
            )
        self._batches.append((said, true, weights))
        self._n_small = self._n_small + 1 if said.size < _SMALL else 0
        if self._n_small == 256:
            self._batches[-256:] = [_joined(self._batches[-256:])]
            self._n_small = 0


def _joined(batches: list[_Batch]) -> _Batch:
    """Predictions, references and weights of batches as one batch."""
    said, true = np.concatenate([batch[0] for batch in batches]), np.concatenate([batch[1] for batch in batches])
    return said, true, _joined_weights(batches)


def _joined_weights(batches: list[_Batch]) -> NDArray[np.float64] | None:
    """Weights of batches, 1 where none were given; None where no batch has any."""
    if all(weights is None for _, _, weights in batches):
        return None
    return np.concatenate([np.ones(len(true)) if weights is None else weights for _, true, weights in batches])


def _weights(sample_weight: Any, n_items: int) -> NDArray[np.float64] | None:
    """A copy of the weights, one an item; None where none were given."""
    if sample_weight is None:
        return None
    weights = np.array(_as_array(sample_weight), np.float64)
    if weights.shape != (n_items,) or not np.all(np.isfinite(weights) & (weights >= 0)):
        raise ValueError(
            f"sample_weight has shape {weights.shape} for {n_items} items; expected (items,), finite, 0 or more each"
        )
    return weights


def _as_array(values: Any) -> NDArray[Any]:
    """A numpy array of a list, an array, a torch tensor or a column of a `datasets.Dataset`."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    elif isinstance(values, Sequence) and not isinstance(values, list | tuple):
        values = values[:]  # a datasets.Column is read at once, where numpy would ask it item by item
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(
            "rows of different lengths make no array; join them with numpy.concatenate, or add_batch each"
        ) from None


def _pair(predictions: Any, references: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Predictions and references as numbers; both (items,) or (items, labels)."""
    said, true = _as_array(predictions), _as_array(references)
    if said.shape != true.shape or said.ndim not in (1, 2):
        raise ValueError(
            f"predictions have shape {said.shape}, references {true.shape}; expected the same for both, (items,) "
            "or (items, labels). Windows of a sequence are items: reshape to (sequences * windows, labels)"
        )
    for what, values in (("predictions", said), ("references", true)):
        if values.dtype.kind not in "fiub":
            raise ValueError(f"{what} are {values.dtype}; expected numbers")
    return said, true


def _result(batches: list[_Batch], ignore_index: int | None, names: Sequence[str] | None) -> dict[str, Any]:
    """All that `compute` gives, as plain Python numbers; one label is in memory as doubles at a time."""
    n_labels = 1 if batches[0][0].ndim == 1 else batches[0][0].shape[1]
    if names is not None and len(names) != n_labels:
        raise ValueError(f"there are {len(names)} names and {n_labels} labels; give one name a label")
    weights = _joined_weights(batches)
    columns = [_column(batches, label, ignore_index, weights) for label in range(n_labels)]
    per_label = [_r(*column) for column in columns]
    held = [value for value in per_label if not math.isnan(value)]
    result = {
        "pearsonr": math.fsum(held) / len(held) if held else math.nan,
        "per_label": per_label,
        "n_labels_left_out": n_labels - len(held),
        "n_items": [len(said) for said, _, _ in columns],
    }
    return result if names is None else {**result, "names": list(names)}


def _column(
    batches: list[_Batch], label: int, ignore_index: int | None, weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Predictions, references and weights of one label's scored items, as doubles."""
    said, true = (
        np.concatenate([part if part.ndim == 1 else part[:, label] for part in parts])
        for parts in ([batch[0] for batch in batches], [batch[1] for batch in batches])
    )
    scored = np.ones(len(true), np.bool_) if ignore_index is None else true != ignore_index
    if weights is not None:
        scored &= weights > 0
    said, true = said[scored].astype(np.float64), true[scored].astype(np.float64)
    for what, values in (("predictions", said), ("references", true)):
        n_bad = int(np.count_nonzero(~np.isfinite(values)))
        if n_bad:
            raise ValueError(
                f"{what} of label {label} hold {n_bad:,} nan or infinite values; expected numbers, or a reference of "
                f"{ignore_index} (ignore_index) where a cell is not to be scored"
            )
    return said, true, np.ones(len(true)) if weights is None else weights[scored]


def _r(x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Pearson's coefficient; nan where a side is constant or nothing is left.

    Values are shifted by the first and scaled by the largest, so that a constant is exactly 0 and nothing overflows.
    """
    if not len(x):
        return math.nan
    centred = []
    for values in (x, y):
        shifted = values / 2 - values[0] / 2  # halves, as the difference of two doubles may be too large for one
        largest = np.abs(shifted).max()
        if largest == 0:
            return math.nan
        scaled = shifted / largest
        centred.append(scaled - weights @ scaled / weights.sum())
    dx, dy = centred
    spread_x, spread_y = float(weights @ dx**2), float(weights @ dy**2)
    r = float(weights @ (dx * dy)) / math.sqrt(spread_x * spread_y)
    return max(-1.0, min(1.0, r))
