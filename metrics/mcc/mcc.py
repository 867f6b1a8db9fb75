"""Matthews correlation coefficient of any number of classes, with recall, precision and F1 of each class.

Predictions and references are class numbers, for example one per nucleotide. Ten million of them take a tenth of a
second, because only a confusion matrix is kept.

>>> import evaluate
>>> evaluate.load("bend/mcc").compute(predictions=[0, 1, 1, 0], references=[0, 1, 0, 0])["mcc"]
0.5773502691896258
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike, NDArray

MAIN = "mcc"  # name of the result that stands for the metric
PERFECT = 1.0  # its best value
HIGHER_IS_BETTER = True
RANGE = (-1.0, 1.0)  # what it can be; a record with another value is refused

MAX_CLASSES = 1024  # a matrix of 8 MiB; a higher number is not a class but an error
_CHUNK = 1 << 17  # items per step, so that they and their joint index fit into the processor's cache

_DESCRIPTION = """
Gorodkin's R_K, the Matthews correlation coefficient of K classes: 1 for perfect agreement, 0 for chance, -1 only for
two classes that are swapped. For two classes it is Matthews' own coefficient. Computed from the confusion matrix in
exact integers; equal to sklearn.metrics.matthews_corrcoef.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: Predicted class numbers from 0, integers of any width and any shape.
    references: True class numbers, of the same shape; `ignore_index` if an item is not to be scored.
    n_classes (`int`, optional): Number of classes. By default the number of names, or one more than the highest
        class number, at least two.
    ignore_index (`int` or `None`): References of this value are left out, by default -100. None scores all.
    names (sequence of `str`, optional): Names of the classes in order; they are returned in the result.
    sample_weight (optional): How often each item counts: whole numbers from 0, of the shape of `predictions`. An
        item of weight 0 is left out, whatever its labels are.

Returns:
    `mcc` (`float`): 0.0 if references or predictions have one class; nan if no item was scored.
    `recall`, `precision`, `f1` (`list` of `float`): One value per class; nan if the ratio is 0 / 0: the recall of a
        class without references, the precision of a class that is never predicted, the F1 of a class with neither.
    `support` (`list` of `int`): Number of references of each class.
    `confusion_matrix` (`list` of `list` of `int`): Rows are references, columns predictions.
    `names` (`list` of `str`): Only if they were given.

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
    """Count label pairs in a confusion matrix, and compute all results from it."""

    def __init__(self, config_name: str | None = None, num_process: int = 1, **loading: object) -> None:
        """Take the arguments of `evaluate.Metric`, for one process; `take_counts` and `merge` join those of several."""
        if num_process != 1:
            raise ValueError(
                f"num_process is {num_process}, but this metric counts in one process; "
                "sum take_counts(n_classes) over the processes and merge() the sum in one of them"
            )
        super().__init__(config_name=config_name, num_process=num_process, **loading)
        self._reset()

    def _info(self) -> evaluate.MetricInfo:
        """Describe the metric and its inputs."""
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
        self._below_zero: dict[int, int] = {}  # number of references of each negative value
        self._touched = False

    def __len__(self) -> int:
        """Number of items that were added since the last result, including ignored ones."""
        return int(self._counts.sum()) + sum(self._below_zero.values())

    def add(
        self,
        *,
        prediction: ArrayLike | None = None,
        reference: ArrayLike | None = None,
        predictions: ArrayLike | None = None,
        references: ArrayLike | None = None,
    ) -> None:
        """Add one item, or the labels of one sequence.

        `evaluate.combine` passes them under the plural names.
        """
        prediction = _as_array(predictions if prediction is None else prediction)
        reference = _as_array(references if reference is None else reference)
        self.add_batch(predictions=prediction, references=reference)

    def add_batch(
        self, *, predictions: ArrayLike, references: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """Add items. Only counts of them are kept. A batch that raises adds nothing."""
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
        """Return the counts of this process, for a sum over processes, and start again.

        Args:
            n_classes: Number of classes, the same in each process.
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
                "of shape (classes, classes) with a row per reference class, as take_counts() returns"
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
        """Score the added labels and those given here. Afterwards the metric is empty, even after an error."""
        try:
            if predictions is not None or references is not None:
                if predictions is None or references is None:
                    raise ValueError("predictions and references go together, but one of them is None")
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
        """Compute the confusion matrix without ignored references, for the given number of classes."""
        wrong = {value: n for value, n in self._below_zero.items() if value != ignore_index}
        if wrong:
            value, n = min(wrong.items())
            raise ValueError(
                f"reference {value} occurs {n:,} times; expected a class number from 0 on, or {ignore_index} "
                "(ignore_index) if an item is not to be scored"
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
                f"{where} hold class {highest} {n_items:,} times, but n_classes is {n}, so classes are "
                f"0 to {n - 1}; raise n_classes or correct the labels"
            )
        return _sum(np.zeros((n, n), np.int64), counts[:n, :n])


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


def _labels(values: ArrayLike, what: str) -> NDArray[Any]:
    array = _as_array(values)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise ValueError(
            f"{what} are {array.dtype}, shape {array.shape}; expected class numbers as integers "
            "(take the argmax of scores over classes first)"
        )
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _pair(predictions: ArrayLike, references: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Convert both to flat integer arrays of one length."""
    predicted, true = _labels(predictions, "predictions"), _labels(references, "references")
    if predicted.shape != true.shape:
        raise ValueError(f"predictions have shape {predicted.shape}, references {true.shape}; each item needs both")
    return predicted.reshape(-1), true.reshape(-1)


def _count(predicted: NDArray[Any], true: NDArray[Any]) -> tuple[NDArray[np.int64], dict[int, int]]:
    """Count the confusion matrix of flat arrays, and the references of each value below zero.

    Row t + 1 of the joint index is reference class t; row 0 holds the references below zero and is dropped.
    """
    counts, below_zero = np.zeros((0, 0), np.int64), dict[int, int]()
    for start in range(0, len(true), _CHUNK):
        p = predicted[start : start + _CHUNK].astype(np.int64, copy=False)
        t = true[start : start + _CHUNK].astype(np.int64, copy=False)
        if t.min() < 0:
            for value, n_items in _values_below_zero(t).items():
                below_zero[value] = below_zero.get(value, 0) + n_items
            t = np.maximum(t, -1)
        if p.min() < 0 or max(p.max(), t.max()) >= len(counts):  # a new class, or an error
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


def _weights(values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Convert weights to a flat array of whole numbers."""
    weights = _as_array(values)
    whole = weights.shape == shape and weights.dtype.kind in "iubf" and np.all(weights == np.rint(weights))
    if not whole or (weights.size and (weights.min() < 0 or float(weights.sum(dtype=np.float64)) >= 2**53)):
        raise ValueError(
            f"sample_weight is {weights.dtype} of shape {weights.shape}, references have shape {shape}; expected a "
            "whole number from 0 on per item: how often it counts"
        )
    return weights.astype(np.int64).reshape(-1)


def _count_weighted(
    predicted: NDArray[Any], true: NDArray[Any], weights: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[int, int]]:
    """Count items as often as their weights say, with one `_count` per distinct weight."""
    counts, below_zero = np.zeros((0, 0), np.int64), dict[int, int]()
    for weight in np.unique(weights[weights > 0]).tolist():
        chosen = weights == weight
        more, more_below = _count(predicted[chosen], true[chosen])
        counts = _sum(counts, more * weight)
        for value, n_items in more_below.items():
            below_zero[value] = below_zero.get(value, 0) + n_items * weight
    return counts, below_zero


def _values_below_zero(true: NDArray[np.int64]) -> dict[int, int]:
    """Count the references of each value below zero; fast for a single value, such as padding."""
    lowest, n_items = int(true.min()), int(np.count_nonzero(true < 0))
    if np.count_nonzero(true == lowest) == n_items:
        return {lowest: n_items}
    values, counts = np.unique(true[true < 0], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _what_is_wrong(predicted: NDArray[Any], true: NDArray[Any]) -> str:
    """Describe the first scored item whose prediction or reference cannot be a class."""
    bad = (true >= 0) & ((predicted < 0) | (predicted >= MAX_CLASSES) | (true >= MAX_CLASSES))
    item = int(np.flatnonzero(bad)[0])
    return (
        f"item {item:,} has prediction {predicted[item]} and reference {true[item]}; expected class numbers from 0 "
        f"to {MAX_CLASSES - 1:,} unless the reference is ignored"
    )


def _sum(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add two confusion matrices; the sum has the size of the larger one."""
    n = max(len(a), len(b))
    total = np.zeros((n, n), np.int64)
    total[: len(a), : len(a)] += a
    total[: len(b), : len(b)] += b
    return total


def _r_k(counts: NDArray[np.int64]) -> float:
    """Compute Gorodkin's coefficient of a confusion matrix. Python integers do not overflow."""
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
        return covariance / spread_true  # exact: a perfect prediction gives 1.0 and not the next double
    return covariance / math.sqrt(spread_true * spread_predicted)


def _result(counts: NDArray[np.int64]) -> dict[str, Any]:
    """Compute the result as plain Python numbers."""
    right = np.diag(counts)
    true, predicted = counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is nan, as documented; n / 0 cannot occur
        recall, precision, f1 = right / true, right / predicted, 2 * right / (true + predicted)
    return {
        "mcc": _r_k(counts),
        "recall": recall.tolist(),
        "precision": precision.tolist(),
        "f1": f1.tolist(),
        "support": true.tolist(),
        "confusion_matrix": counts.tolist(),
    }
