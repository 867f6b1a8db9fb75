"""Matthews correlation coefficient of any number of classes, with recall, precision and F1 of each class.

For whoever scores class numbers, a label a nucleotide included: ten million of them take a tenth of a second,
because only a confusion matrix is kept.

>>> import evaluate
>>> evaluate.load("bend/mcc").compute(predictions=[0, 1, 1, 0], references=[0, 1, 0, 0])["mcc"]
0.5773502691896258
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike, NDArray

MAIN = "mcc"  # the result that stands for the metric
PERFECT = 1.0  # the best value of it
HIGHER_IS_BETTER = True

MAX_CLASSES = 1024  # a matrix of 8 MiB; a higher number is no class but a mistake
_CHUNK = 1 << 17  # items counted at a time, so that they and their joint index stay in the processor's cache

_DESCRIPTION = """
Gorodkin's R_K, the Matthews correlation coefficient of K classes: 1 for perfect agreement, 0 for what chance
gives, -1 only for two classes swapped. For two classes it is Matthews' own coefficient. Computed from the
confusion matrix in exact integers; equal to sklearn.metrics.matthews_corrcoef.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Predicted class numbers from 0, integers of any width and any shape.
    references: True class numbers, of the same shape; `ignore_index` where an item is not to be scored.
    n_classes (`int`, optional): How many classes there are. Default: as many as there are names, else one
        more than the highest number that occurs, at least two.
    ignore_index (`int` or `None`): References of this value are left out, by default -100. None scores all.
    names (sequence of `str`, optional): Names of the classes in order; they are handed back in the result.
    sample_weight (optional): How often each item counts, whole numbers from 0 of the shape of `predictions`. An
        item of weight 0 is left out, whatever its labels are.

Returns:
    `mcc` (`float`): 0.0 where references or predictions hold one class only; nan where nothing was scored.
    `recall`, `precision`, `f1` (`list` of `float`): One a class; nan where the ratio is 0 / 0, that is recall
        of a class without references, precision of one never predicted, F1 of one with neither.
    `support` (`list` of `int`): References of each class.
    `confusion_matrix` (`list` of `list` of `int`): Rows are references, columns predictions.
    `names` (`list` of `str`): Only where they were given.

Example:
    >>> import evaluate
    >>> mcc = evaluate.load("bend/mcc")
    >>> mcc.add_batch(predictions=[0, 1], references=[0, 1])
    >>> mcc.add_batch(predictions=[2, 2], references=[2, -100])
    >>> mcc.compute(n_classes=3)["mcc"]
    1.0
"""

_CITATION = """
@article{gorodkin2004comparing,
    author = {Gorodkin, Jan},
    title = {Comparing two {K}-category assignments by a {K}-category correlation coefficient},
    journal = {Computational Biology and Chemistry},
    volume = {28},
    pages = {367--374},
    year = {2004},
    doi = {10.1016/j.compbiolchem.2004.09.006}
}
"""


class Mcc(evaluate.Metric):
    """Counts label pairs into a confusion matrix as they come, and reads all its numbers off that matrix."""

    def __init__(self, config_name: str | None = None, num_process: int = 1, **loading: Any) -> None:
        """As `evaluate.Metric`, but for one process; `take_counts` and `merge` join the counts of several."""
        if num_process != 1:
            raise ValueError(
                f"num_process is {num_process}, but this metric counts in one process; "
                "sum take_counts(n_classes) over the processes and merge() the sum in one of them"
            )
        super().__init__(config_name=config_name, num_process=num_process, **loading)
        self._reset()

    def _info(self) -> evaluate.MetricInfo:
        """What the metric takes and where it comes from."""
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[
                datasets.Features({"predictions": item, "references": item})
                for item in (datasets.Value("int64"), datasets.Sequence(datasets.Value("int64")))
            ],
            reference_urls=["https://scikit-learn.org/stable/modules/generated/sklearn.metrics.matthews_corrcoef.html"],
        )

    def _reset(self) -> None:
        self._counts = np.zeros((0, 0), np.int64)
        self._below_zero: dict[int, int] = {}  # how many references have each negative value
        self._touched = False

    def __len__(self) -> int:
        """How many items were added since the last result, ignored ones included."""
        return int(self._counts.sum()) + sum(self._below_zero.values())

    def add(
        self,
        *,
        prediction: ArrayLike | None = None,
        reference: ArrayLike | None = None,
        predictions: ArrayLike | None = None,
        references: ArrayLike | None = None,
    ) -> None:
        """Add one item, or the labels of one sequence. `evaluate.combine` gives them under the plural names."""
        prediction = _as_array(predictions if prediction is None else prediction)
        reference = _as_array(references if reference is None else reference)
        self.add_batch(predictions=prediction, references=reference)

    def add_batch(
        self, *, predictions: ArrayLike, references: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """Add many items; nothing is kept of them but counts. A batch that raises adds nothing."""
        predicted, true = _pair(predictions, references)
        weights = None if sample_weight is None else _weights(sample_weight, np.shape(_as_array(references)))
        if weights is None:
            counts, below_zero = _count(predicted, true)
        else:
            counts, below_zero = _count_weighted(predicted, true, weights)
        self._counts = _sum(self._counts, counts)
        for value, n in below_zero.items():
            self._below_zero[value] = self._below_zero.get(value, 0) + n
        self._touched = True

    def take_counts(self, n_classes: int, ignore_index: int | None = -100) -> NDArray[np.int64]:
        """Hand over the counts gathered so far and start anew: what a process gives to a sum over processes.

        Args:
            n_classes: How many classes there are, the same in each process.
            ignore_index: References of this value are left out.

        Returns:
            Confusion matrix, int64, shape (classes, classes), rows are references; zero if nothing was added.
        """
        try:
            return self._scored(n_classes, ignore_index)
        finally:
            self._reset()

    def merge(self, confusion: ArrayLike) -> None:
        """Add the counts of another process, or their sum over processes.

        Args:
            confusion: Confusion matrix, integers, shape (classes, classes); rows are references.
        """
        matrix = _as_array(confusion)
        square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
        if not square or matrix.dtype.kind not in "iu" or (matrix.size and matrix.min() < 0):
            raise ValueError(
                f"confusion is {matrix.dtype} of shape {matrix.shape}; expected counts, integers from 0 on, "
                "of shape (classes, classes) with a row for each reference class, as take_counts() gives"
            )
        self._counts = _sum(self._counts, matrix.astype(np.int64))
        self._touched = True

    def compute(
        self,
        *,
        predictions: ArrayLike | None = None,
        references: ArrayLike | None = None,
        n_classes: int | None = None,
        ignore_index: int | None = -100,
        names: Sequence[str] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> dict[str, Any]:
        """Score what was added, and the labels given here if any. Then, error or not, the metric is empty."""
        try:
            if predictions is not None or references is not None:
                if predictions is None or references is None:
                    raise ValueError("predictions and references go together; one of them is None")
                self.add_batch(predictions=predictions, references=references, sample_weight=sample_weight)
            elif sample_weight is not None:
                raise ValueError("sample_weight goes with predictions and references; give it to add_batch instead")
            if not self._touched:
                raise ValueError("nothing to score; give predictions and references, or call add_batch first")
            if names is not None:
                if n_classes not in (None, len(names)):
                    raise ValueError(f"n_classes is {n_classes}, but there are {len(names)} names, {list(names)}")
                n_classes = len(names)
            result = _result(self._scored(n_classes, ignore_index))
        finally:
            self._reset()
        return result if names is None else {**result, "names": list(names)}

    def _scored(self, n_classes: int | None, ignore_index: int | None) -> NDArray[np.int64]:
        """The confusion matrix without ignored references, cut or grown to the number of classes."""
        wrong = {value: n for value, n in self._below_zero.items() if value != ignore_index}
        if wrong:
            value, n = min(wrong.items())
            raise ValueError(
                f"reference {value} occurs {n:,} times; expected a class number from 0 on, or {ignore_index} "
                "(ignore_index) where an item is not to be scored"
            )
        counts = self._counts.copy()
        if ignore_index is not None and 0 <= ignore_index < len(counts):
            counts[ignore_index] = 0
        seen = np.flatnonzero(counts.any(axis=0) | counts.any(axis=1))
        highest = int(seen[-1]) if len(seen) else -1
        n = max(2, highest + 1) if n_classes is None else n_classes
        if n < 1 or n > MAX_CLASSES:
            raise ValueError(f"n_classes is {n}; expected a number from 1 to {MAX_CLASSES:,}")
        if highest >= n:
            where = "references" if counts[highest].any() else "predictions"
            n_items = int((counts[highest] if where == "references" else counts[:, highest]).sum())
            raise ValueError(
                f"{where} hold class {highest} {n_items:,} times, but n_classes is {n}, so that classes are "
                f"0 to {n - 1}; raise n_classes, or mend the labels"
            )
        return _sum(np.zeros((n, n), np.int64), counts[:n, :n])


def _as_array(values: Any) -> NDArray[Any]:
    """A numpy array of a list, an array, a torch tensor or a column of a `datasets.Dataset`."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    elif isinstance(values, Sequence) and not isinstance(values, list | tuple):
        values = values[:]  # a datasets.Column is read at once, where numpy would ask it item by item
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(
            "rows of different lengths make no array; join them with numpy.concatenate, or add_batch each"
        ) from None


def _labels(values: Any, what: str) -> NDArray[Any]:
    array = _as_array(values)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise ValueError(
            f"{what} are {array.dtype}, shape {array.shape}; expected class numbers as integers "
            "(of scores take the argmax over classes first)"
        )
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _pair(predictions: Any, references: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both as flat integer arrays of one length."""
    predicted, true = _labels(predictions, "predictions"), _labels(references, "references")
    if predicted.shape != true.shape:
        raise ValueError(
            f"predictions have shape {predicted.shape}, references {true.shape}; each item needs one of both"
        )
    return predicted.reshape(-1), true.reshape(-1)


def _count(predicted: NDArray[Any], true: NDArray[Any]) -> tuple[NDArray[np.int64], dict[int, int]]:
    """The confusion matrix of flat arrays, and how many references have each value below zero.

    Row t + 1 of the joint index is reference class t; row 0 takes the references below zero and is dropped.
    """
    counts, below_zero = np.zeros((0, 0), np.int64), dict[int, int]()
    for start in range(0, len(true), _CHUNK):
        p = predicted[start : start + _CHUNK].astype(np.int64, copy=False)
        t = true[start : start + _CHUNK].astype(np.int64, copy=False)
        if t.min() < 0:
            for value, n_items in _values_below_zero(t).items():
                below_zero[value] = below_zero.get(value, 0) + n_items
            t = np.maximum(t, -1)
        if p.min() < 0 or max(p.max(), t.max()) >= len(counts):  # a class not seen before, or a mistake
            scored = t >= 0
            p, t = p[scored], t[scored]
            if not len(t):
                continue
            n_seen = int(max(p.max(), t.max())) + 1
            if p.min() < 0 or n_seen > MAX_CLASSES:
                raise ValueError(_what_is_wrong(predicted, true))
            counts = _sum(counts, np.zeros((n_seen, n_seen), np.int64))
        n = len(counts)
        counts += np.bincount((t + 1) * n + p, minlength=(n + 1) * n)[n:].reshape(n, n)
    return counts, below_zero


def _weights(values: Any, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Whole weights, flat."""
    weights = _as_array(values)
    whole = weights.shape == shape and weights.dtype.kind in "iubf" and np.all(weights == np.rint(weights))
    if not whole or (weights.size and (weights.min() < 0 or float(weights.sum(dtype=np.float64)) >= 2**53)):
        raise ValueError(
            f"sample_weight is {weights.dtype} of shape {weights.shape}, references have shape {shape}; expected for "
            "each item how often it counts, a whole number from 0 on"
        )
    return weights.astype(np.int64).reshape(-1)


def _count_weighted(
    predicted: NDArray[Any], true: NDArray[Any], weights: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[int, int]]:
    """As `_count`, each item as often as its weight says; items are counted once for each weight that occurs."""
    counts, below_zero = np.zeros((0, 0), np.int64), dict[int, int]()
    for weight in np.unique(weights[weights > 0]).tolist():
        chosen = weights == weight
        more, more_below = _count(predicted[chosen], true[chosen])
        counts = _sum(counts, more * weight)
        for value, n_items in more_below.items():
            below_zero[value] = below_zero.get(value, 0) + n_items * weight
    return counts, below_zero


def _values_below_zero(true: NDArray[np.int64]) -> dict[int, int]:
    """How many of the references have each value below zero; quick where that is one value, as padding is."""
    lowest, n_items = int(true.min()), int(np.count_nonzero(true < 0))
    if np.count_nonzero(true == lowest) == n_items:
        return {lowest: n_items}
    values, counts = np.unique(true[true < 0], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _what_is_wrong(predicted: NDArray[Any], true: NDArray[Any]) -> str:
    """The first scored item whose prediction or reference cannot be a class, in words."""
    bad = (true >= 0) & ((predicted < 0) | (predicted >= MAX_CLASSES) | (true >= MAX_CLASSES))
    item = int(np.flatnonzero(bad)[0])
    return (
        f"item {item:,} has prediction {predicted[item]} and reference {true[item]}; expected class numbers from 0 "
        f"to {MAX_CLASSES - 1:,} wherever the reference is not ignored"
    )


def _sum(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Two confusion matrices added, as large as the larger."""
    n = max(len(a), len(b))
    total = np.zeros((n, n), np.int64)
    total[: len(a), : len(a)] += a
    total[: len(b), : len(b)] += b
    return total


def _r_k(counts: NDArray[np.int64]) -> float:
    """Gorodkin's coefficient of a confusion matrix, in Python integers, which do not overflow, to the last step."""
    true = [int(n) for n in counts.sum(axis=1)]
    predicted = [int(n) for n in counts.sum(axis=0)]
    total, right = sum(true), int(np.trace(counts))
    if total == 0:
        return math.nan
    covariance = right * total - sum(t * p for t, p in zip(true, predicted, strict=True))
    spread_true = total**2 - sum(t**2 for t in true)
    spread_predicted = total**2 - sum(p**2 for p in predicted)
    if spread_true == 0 or spread_predicted == 0:
        return 0.0
    if spread_true == spread_predicted:
        return covariance / spread_true  # exact: a perfect prediction gives 1.0 and not its neighbour
    return covariance / math.sqrt(spread_true * spread_predicted)


def _result(counts: NDArray[np.int64]) -> dict[str, Any]:
    """All that `compute` gives, as plain Python numbers."""
    right = np.diag(counts)
    true, predicted = counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is nan, as documented; n / 0 cannot be
        recall, precision, f1 = right / true, right / predicted, 2 * right / (true + predicted)
    return {
        "mcc": _r_k(counts),
        "recall": recall.tolist(),
        "precision": precision.tolist(),
        "f1": f1.tolist(),
        "support": true.tolist(),
        "confusion_matrix": counts.tolist(),
    }
