"""The structure of predicted genes: counts of each row, from which scores, intervals and resamples follow.

The comparison itself is the metric ``gene_structure`` in ``metrics/``, which runs without this package.

>>> predictions = Predictions(item=np.arange(2), windows=np.array([0, 3, 5]), label_names=("cds+", "donor+"),
...                           target=np.array([0, 0, 8, 4, 8], np.int16), score=None,
...                           predicted=np.array([0, 0, 8, 8, 8], np.int16))
>>> structure_counts(predictions)[:, :3].tolist()  # true, predicted and right exons
[[1, 1, 1], [1, 0, 0]]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from bend_hf.errors import ConfigError
from bend_hf.evaluation.metrics import load_metric
from bend_hf.evaluation.predictions import Predictions
from bend_hf.tasks._labels import NucleotideClasses
from bend_hf.types import IGNORE_LABEL, Ints

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.tasks import TaskSpec

NAME: Final = "gene_structure"
READ_FROM_SEQUENCE: Final = ("genes_read", "genes_with_stop")  # results that the labels alone do not give


class _Metric(Protocol):
    """What is used of the module of the metric."""

    N_CLASSES: int

    def counts_of_rows(
        self, predictions: NDArray[Any], references: NDArray[Any], lengths: Ints, *, ignore_index: int | None
    ) -> Ints: ...

    def f1_of(self, counts: NDArray[Any]) -> NDArray[np.float64]: ...

    def structure_of(self, labels: NDArray[Any], lengths: Ints) -> Structure: ...


class Intervals(Protocol):
    """Intervals of nucleotides, ordered by place; arrays of shape (intervals,).

    Attributes:
        row: Number of the row.
        start_bp: First nucleotide, counted over all rows.
        end_bp: Position after the last nucleotide.
        strand: 1 or -1.
    """

    row: Ints
    start_bp: Ints
    end_bp: Ints
    strand: NDArray[np.int8]

    def __len__(self) -> int: ...


class Structure(Protocol):
    """The genes of some rows.

    Attributes:
        exons: Coding exons.
        introns: Introns with their splice sites.
        transcripts: Stretches of one strand that hold an exon, from the first to the last exon or intron.
        is_whole: Whether a transcript begins and ends with an exon within its row, shape (transcripts,).
        transcript_of_exon: The transcript of each exon.
    """

    exons: Intervals
    introns: Intervals
    transcripts: Intervals
    is_whole: NDArray[np.bool_]
    transcript_of_exon: Ints


@cache
def _metric() -> _Metric:
    return cast("_Metric", sys.modules[type(load_metric(NAME)).__module__])


def structure_of(labels: NDArray[Any], lengths: Ints) -> Structure:
    """Read genes from classes.

    Args:
        labels: Classes from 0 to 8, shape (nucleotides,).
        lengths: Nucleotides of each row, shape (rows,).
    """
    return _metric().structure_of(labels, lengths)


def structure_counts(predictions: Predictions) -> Ints:
    """Count true, predicted and right exons and what else the metric compares.

    Args:
        predictions: Classes of gene finding.

    Returns:
        Shape (items, counts).

    Raises:
        ConfigError: The predictions are not the nine classes of gene finding.
    """
    check_structure(predictions)
    counts = _metric().counts_of_rows(
        predictions.values, predictions.target, np.diff(predictions.windows), ignore_index=IGNORE_LABEL
    )
    return counts.astype(np.int64, copy=False)


def check_structure(predictions: Predictions) -> None:
    """Check that predictions are classes of gene finding.

    Raises:
        ConfigError: They are scores, or hold other classes.
    """
    if predictions.score is not None:
        raise ConfigError(f"{NAME} needs classes, but these predictions hold scores; choose another metric")
    n_classes = _metric().N_CLASSES
    labels = predictions.target[predictions.target != IGNORE_LABEL]
    found = max(int(predictions.values.max(initial=0)), int(labels.max(initial=0)))
    lowest = min(int(predictions.values.min(initial=0)), int(labels.min(initial=0)))
    if found >= n_classes or lowest < 0:
        raise ConfigError(
            f"{NAME} takes the classes 0 to {n_classes - 1} of gene finding, but the predictions hold "
            f"{lowest if lowest < 0 else found}; choose another metric"
        )


@dataclass(frozen=True, kw_only=True)
class StructureCounts:
    """The counts of each cluster.

    Attributes:
        counts: Float64, shape (clusters, counts).
    """

    counts: NDArray[np.float64]

    @classmethod
    def of(cls, predictions: Predictions, cluster: Ints, n_clusters: int) -> StructureCounts:
        """Sum the counts of items.

        Args:
            predictions: The predictions.
            cluster: Cluster of each item, shape (items,).
            n_clusters: Number of clusters.
        """
        of_item = structure_counts(predictions)
        counts = np.zeros((n_clusters, of_item.shape[1]))
        np.add.at(counts, cluster, of_item)
        return cls(counts=counts)

    def sizes(self, index: int) -> NDArray[np.float64]:
        """Return how many true and predicted ones of a name each cluster holds, shape (clusters,)."""
        held: NDArray[np.float64] = self.counts[:, 3 * index] + self.counts[:, 3 * index + 1]
        return held

    def exon_f1(self, weights: NDArray[np.floating]) -> NDArray[np.float64]:
        """Compute the F1 of exact exons in each resample.

        Args:
            weights: How often each cluster was drawn, shape (clusters, resamples).

        Returns:
            Values, shape (resamples,); nan if there is no exon.
        """
        return self.f1(weights)[:, 0]

    def f1_without(self) -> NDArray[np.float64]:
        """Compute the F1 of everything that is compared without each cluster, shape (clusters, names)."""
        return _metric().f1_of(self.counts.sum(axis=0) - self.counts)

    def f1(self, weights: NDArray[np.floating]) -> NDArray[np.float64]:
        """Compute the F1 of everything that is compared, shape (resamples, names)."""
        return _metric().f1_of(weights.astype(np.float64).T @ self.counts)


def sequence_of(task: TaskSpec, dataset: Dataset, predictions: Predictions) -> NDArray[np.uint8] | None:
    """Return the nucleotides of predictions, from which the metric reads stop codons.

    Args:
        task: The task.
        dataset: The rows that were predicted, in any order.
        predictions: The predictions.

    Returns:
        Letters as bytes, shape (nucleotides,); None if the task does not report the metric.
    """
    if NAME not in task.metrics or not isinstance(task.label, NucleotideClasses) or not len(predictions):
        return None
    letters = letters_of(dataset, predictions)
    return letters if len(letters) == predictions.windows[-1] else None


def letters_of(dataset: Dataset, predictions: Predictions) -> NDArray[np.uint8]:
    """Return the sequences of predicted rows, one after the other, as bytes.

    Args:
        dataset: The rows that were predicted, in any order.
        predictions: The predictions.
    """
    rows = dataset.select_columns(["item", "sequence"]).with_format("arrow")[:]
    item = rows["item"].to_numpy()
    order = np.argsort(item)
    texts = rows["sequence"].take(order[item[order].searchsorted(predictions.item)]).to_pylist()
    return np.frombuffer("".join(texts).encode("ascii"), np.uint8)
