"""Predict labels from one feature, without a model: length, composition, position.

Each feature is cut into bins at quantiles of the training split. The rule predicts how frequent a label is in the bin
on the training split, so a rule may rise, fall or bend. All features and labels are counted in one pass over the rows;
the scores are computed from the counts.

>>> auroc(np.array([1.0, 9.0]), np.array([9.0, 1.0]), np.array([0.9, 0.1])) < 0.2
True
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.evaluation.audit.kmers import OTHER
from bend_hf.evaluation.audit.rows import AuditRows
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import BinClasses, MultiLabel, NucleotideClasses
from bend_hf.types import Ints, Json

Numbers = NDArray[np.float64]

N_BINS: Final = 32
_ROW_FEATURES: Final = ("length", "GC", "CpG observed / expected", "share of N", "place on the chromosome")
_BIN_FEATURES: Final = ("GC of the bin", "CpG of the bin")
_INSIDE: Final = ("position in the row", "distance to the end of the row")
_SAMPLE: Final = 1 << 20  # labeled places from which the quantiles are taken
_CHUNK: Final = 1 << 20  # labeled places counted at once
_FOLDS: Final = 5  # groups of 1-Mb blocks, if a task has no splits
_BLOCK_BP: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class RuleScores:
    """What rules of one feature score on rows that they were not fitted on.

    Attributes:
        metric: ``auroc``, ``auprc`` or ``mcc``, as the task's main metric.
        fitted_on: In words.
        scored_on: In words.
        value: The main metric of the best rules: mean over the labels, each with its best feature.
        best: For each label its best feature, chosen without the scored rows, and AUROC and AUPRC of that rule.
        features: For each feature the mean AUROC over the labels.
    """

    metric: str
    fitted_on: str
    scored_on: str
    value: float | None
    best: dict[str, dict[str, Json]]
    features: dict[str, float | None]

    def as_json(self) -> dict[str, Json]:
        """The scores as an audit stores them."""
        return {
            "metric": self.metric,
            "fitted_on": self.fitted_on,
            "scored_on": self.scored_on,
            "value": self.value,
            "best_by_label": {name: dict(entry) for name, entry in self.best.items()},
            "auroc_by_feature": dict(self.features),
        }


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """Labeled places by group of rows, feature and bin: all, shape (G, F, bins), and by label, (G, F, bins, C)."""

    all: Numbers
    positive: Numbers

    def of(self, groups: Ints) -> _Counts:
        return _Counts(all=self.all[groups].sum(axis=0), positive=self.positive[groups].sum(axis=0))


def fit_rules(rows: AuditRows, task: TaskSpec) -> RuleScores:
    """Fit a rule of each feature to each label on the training rows, and score it on the test rows."""
    folds = _folds(rows)
    group = rows.split if folds is None else folds
    units = _Units(rows, task)
    names = list(rows.split_names)
    fit_groups = np.flatnonzero(np.isin(names, ["train"])) if folds is None else np.unique(group)
    edges = units.edges(np.flatnonzero(np.isin(group, fit_groups)))
    counts = units.counts(group, edges, int(group.max()) + 1)
    if folds is None:
        test, chosen_on = (
            names.index("test"),
            names.index("validation") if "validation" in names else names.index("train"),
        )
        trials = [(counts.of(fit_groups), counts.of(np.array([chosen_on])), counts.of(np.array([test])))]
        words = ("train", "test")
    else:
        trials = []
        for held_out in np.unique(group):
            fitted = counts.of(np.setdiff1d(fit_groups, [held_out]))
            trials.append((fitted, fitted, counts.of(np.array([held_out]))))
        words = ("all other folds", "each fold")
        if not rows.references.any():
            words = ("four of five groups of 1-Mb blocks", "the fifth, five times")
    return _scores(trials, units.features, task, words)


def _folds(rows: AuditRows) -> Ints | None:
    """Groups for cross-validation; None if the splits are train and test."""
    if {"train", "test"} <= set(rows.split_names):
        return None
    if rows.references.any():
        return rows.split
    return (rows.start_bp // _BLOCK_BP + rows.chromosome) % _FOLDS


def _scores(
    trials: list[tuple[_Counts, _Counts, _Counts]], features: tuple[str, ...], task: TaskSpec, words: tuple[str, str]
) -> RuleScores:
    n_labels = len(task.label_names)
    found = np.full(
        (3, len(trials), len(features), n_labels), np.nan
    )  # AUROC where chosen, AUROC and AUPRC of the test
    for number, (fitted, chosen_on, test) in enumerate(trials):
        rate = (fitted.positive + 0.5) / (fitted.all[..., None] + 1)
        for feature in range(len(features)):
            for label in range(n_labels):
                score = rate[feature, :, label]
                for kind, (counts, measure) in enumerate(((chosen_on, auroc), (test, auroc), (test, auprc))):
                    positive = counts.positive[feature, :, label]
                    found[kind, number, feature, label] = measure(positive, counts.all[feature] - positive, score)
    chosen, test_auroc, test_auprc = (_mean(kind, axis=0) for kind in found)
    best = np.argmax(np.nan_to_num(chosen, nan=-1.0), axis=0)
    labels = np.arange(n_labels)
    value: float | None
    if task.metric == "mcc":
        value = _finite(_mean(np.array([_mcc(fitted, on, test) for fitted, on, test in trials]), axis=0))
        metric = "mcc"
    else:
        metric = "auprc" if task.metric == "auprc" else "auroc"
        picked = (test_auprc if metric == "auprc" else test_auroc)[best, labels]
        value = _finite(_mean(picked[_scored_labels(task)], axis=0))
    return RuleScores(
        metric=metric,
        fitted_on=words[0],
        scored_on=words[1],
        value=value,
        best={
            name: {
                "feature": features[best[label]],
                "auroc": _finite(test_auroc[best[label], label]),
                "auprc": _finite(test_auprc[best[label], label]),
            }
            for label, name in enumerate(task.label_names)
        },
        features={
            name: _finite(_mean(test_auroc[feature][_scored_labels(task)], axis=0))
            for feature, name in enumerate(features)
        },
    )


def _scored_labels(task: TaskSpec) -> slice:
    """The labels that the main metric is taken of: the positive one of two classes, otherwise all."""
    return slice(1, 2) if not isinstance(task.label, MultiLabel) and len(task.label_names) == 2 else slice(None)


def _mcc(fitted: _Counts, chosen_on: _Counts, test: _Counts) -> float:
    """The MCC on the test rows of the feature whose most frequent class by bin is best where it is chosen."""
    predicted = fitted.positive.argmax(axis=-1)  # (F, bins)
    values = [
        [mcc(_confusion(counts.positive[feature], predicted[feature])) for feature in range(len(predicted))]
        for counts in (chosen_on, test)
    ]
    return values[1][int(np.argmax(np.nan_to_num(values[0], nan=-1.0)))]


def _confusion(positive: Numbers, predicted: Ints) -> Numbers:
    """Count the places by true and predicted class, shape (C, C)."""
    table = np.zeros((positive.shape[1], positive.shape[1]))
    np.add.at(table.T, predicted, positive)
    return table


def mcc(table: Numbers) -> float:
    """Matthews correlation of a confusion matrix; nan if either side has one class only."""
    true, predicted, n = table.sum(axis=1), table.sum(axis=0), table.sum()
    spread = (n**2 - (true**2).sum()) * (n**2 - (predicted**2).sum())
    return float((np.trace(table) * n - true @ predicted) / math.sqrt(spread)) if spread > 0 else math.nan


def auroc(positive: Numbers, negative: Numbers, score: Numbers) -> float:
    """AUROC of bins, from their numbers of positives and negatives and their scores; nan without either.

    Args:
        positive: Positives by bin, shape (bins,).
        negative: Negatives by bin, shape (bins,).
        score: Score of each bin, shape (bins,).
    """
    if not positive.sum() or not negative.sum():
        return math.nan
    positive, negative = _by_score(positive, negative, score)
    above = positive.sum() - np.cumsum(positive)  # bins go from the lowest score to the highest
    return float((negative * (above + positive / 2)).sum() / (positive.sum() * negative.sum()))


def auprc(positive: Numbers, negative: Numbers, score: Numbers) -> float:
    """Average precision of bins, as ``auroc``."""
    if not positive.sum() or not negative.sum():
        return math.nan
    positive, negative = _by_score(positive, negative, score)
    hits, all_above = np.cumsum(positive[::-1]), np.cumsum((positive + negative)[::-1])
    return float((positive[::-1] * hits / np.maximum(all_above, 1)).sum() / positive.sum())


def _by_score(positive: Numbers, negative: Numbers, score: Numbers) -> tuple[Numbers, Numbers]:
    """Join bins of equal scores, ordered by score."""
    _, number = np.unique(score, return_inverse=True)
    return np.bincount(number, positive).astype(np.float64), np.bincount(number, negative).astype(np.float64)


def _mean(values: Numbers, axis: int) -> Numbers:
    """The mean of the values that are defined; nan if none is."""
    defined = np.isfinite(values)
    total = np.where(defined, values, 0).sum(axis=axis)
    n = defined.sum(axis=axis)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _finite(value: float | Numbers) -> float | None:
    return float(value) if math.isfinite(float(value)) else None


class _Units:
    """The labeled places of the rows (rows, bins or nucleotides) and their features."""

    def __init__(self, rows: AuditRows, task: TaskSpec) -> None:
        self.rows = rows
        self.n_labels = len(task.label_names)
        self.many = isinstance(task.label, MultiLabel)  # several labels, or none, of one place
        self.bin_bp = 0  # the label is of the whole row
        self.features: tuple[str, ...] = _ROW_FEATURES
        if isinstance(task.label, NucleotideClasses):
            self.bin_bp, self.features = 1, _ROW_FEATURES + _INSIDE
        elif isinstance(task.label, BinClasses):
            self.bin_bp, self.features = task.label.bin_bp, _ROW_FEATURES + _INSIDE + _BIN_FEATURES
        counts, length = rows.sequences.counts(), rows.sequences.length_bp
        known = np.maximum(counts[:, :OTHER].sum(axis=1), 1)
        expected = counts[:, 1] * counts[:, 2] / known
        self.of_row = np.stack(
            [
                length,
                (counts[:, 1] + counts[:, 2]) / known,
                np.divide(counts[:, 5], expected, out=np.zeros(len(rows)), where=expected > 0),
                counts[:, OTHER] / np.maximum(length, 1),
                rows.chromosome * (1 << 40) + rows.start_bp,
            ],
            axis=1,
        ).astype(np.float64)
        self.n_units = np.diff(rows.labels.offsets) if self.bin_bp else np.ones(len(rows), np.int64)

    def chunks(self, chosen: Ints) -> Iterator[tuple[Ints, Numbers]]:
        """Yield some rows at a time with the features of their places, shape (places, F)."""
        total = np.cumsum(self.n_units[chosen])
        at_once = _CHUNK // max(1, self.bin_bp)
        edges = np.searchsorted(total, np.arange(at_once, int(total[-1]) if len(total) else 0, at_once))
        for some in np.split(chosen, np.unique(edges)):
            if len(some):
                yield some, self._features(some)

    def _features(self, some: Ints) -> Numbers:
        of_row = np.repeat(self.of_row[some], self.n_units[some], axis=0)
        if not self.bin_bp:
            return of_row
        n_units = self.n_units[some]
        index = np.arange(int(n_units.sum())) - np.repeat(np.cumsum(n_units) - n_units, n_units)
        inside = [index, np.minimum(index, np.repeat(n_units, n_units) - 1 - index)]
        if self.bin_bp > 1:
            inside += self._of_bins(some, index)
        return np.concatenate([of_row, np.stack(inside, axis=1)], axis=1)

    def _of_bins(self, some: Ints, index: Ints) -> list[Numbers]:
        sequences, n_units = self.rows.sequences, self.n_units[some]
        start = np.repeat(sequences.offsets[some], n_units) + index * self.bin_bp
        window = start[:, None] + np.arange(self.bin_bp)
        codes = sequences.codes[np.minimum(window, len(sequences.codes) - 1)]
        gc = ((codes == 1) | (codes == 2)).mean(axis=1)
        cpg = ((codes[:, :-1] == 1) & (codes[:, 1:] == 2)).sum(axis=1)
        return [gc, cpg.astype(np.float64)]

    def edges(self, fit: Ints) -> Numbers:
        """Return the inner edges of the bins of each feature, shape (F, bins - 1)."""
        total = int(self.n_units[fit].sum())
        every = max(1, -(-total // _SAMPLE))
        sample = np.concatenate([features for _, features in self.chunks(fit[::every])])
        edges: Numbers = np.quantile(sample, np.linspace(0, 1, N_BINS + 1)[1:-1], axis=0, method="higher").T
        return edges

    def counts(self, group: Ints, edges: Numbers, n_groups: int) -> _Counts:
        """Count the places of all rows."""
        shape = (n_groups, len(self.features), N_BINS)
        places, positive = np.zeros(shape), np.zeros((*shape, self.n_labels))
        offsets = self.rows.labels.offsets
        for some, features in self.chunks(np.arange(len(self.rows))):
            values = self.rows.labels.values[offsets[some[0]] : offsets[some[-1] + 1]]
            n_values = np.diff(offsets)[some] if self.many else np.ones(len(features), np.int64)
            unit = np.repeat(np.arange(len(features)), n_values)
            labeled = values >= 0
            group_of = np.repeat(group[some], self.n_units[some])
            counted = np.ones(len(features), np.bool_) if self.many else labeled
            for feature, of_feature in enumerate(edges):
                cell = group_of * N_BINS + np.searchsorted(of_feature, features[:, feature], side="right")
                n = np.bincount(cell[counted], minlength=n_groups * N_BINS)
                places[:, feature] += n.reshape(n_groups, N_BINS)
                label = cell[unit[labeled]] * self.n_labels + values[labeled]
                n = np.bincount(label, minlength=n_groups * N_BINS * self.n_labels)
                positive[:, feature] += n.reshape(n_groups, N_BINS, self.n_labels)
        return _Counts(all=places, positive=positive)
