"""Features of the label windows of a split: the fractions of k-mers in and around each window.

Sequences are divided into cells, which are what the labels belong to: the whole sequence, a bin, or a nucleotide.
K-mers are counted once per cell, and a window is a run of cells. Work is done in batches of bounded size, and no step
loops over nucleotides.

>>> gc = KmerFeatures(k=1, feature_of_code=np.array([0, 1, 1, 0]), n_features=2)  # A C G T
>>> cell_counts(Nucleotides.of(["ACGGNT"]), np.array([0, 0, 0, 0, 1, 1]), 2, gc).tolist()
[[1, 3], [1, 0]]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow.compute as pc

from bend_hf.embedders._tokens import Nucleotides, kmer_codes
from bend_hf.embedders.token_embeddings import Targets
from bend_hf.tasks._labels import BinClasses, LabelKind, MultiLabel, NucleotideClasses
from bend_hf.types import Floats, Ints, Labels

if TYPE_CHECKING:
    from datasets import Dataset

BIN_FLANK: Final = 2  # bins on each side: a window of 5 * 128 bp, near the 512 bp of tasks that label whole sequences
NUCLEOTIDE_FLANK_BP: Final = 100  # left and right of a nucleotide, counted separately; about half an exon
_ALPHABET: Final = "ACGT"
_COUNTS_PER_BATCH: Final = 1 << 22  # cells times features, 32 MiB


@dataclass(frozen=True, kw_only=True)
class KmerFeatures:
    """Which k-mers are counted, and which of them are counted as one feature.

    Attributes:
        k: Length of the k-mers.
        feature_of_code: Feature of each k-mer, whose code reads A C G T as digits, shape (4 ** k,).
        n_features: Number of features.
        leave_out: Number of first features to leave out, because the others determine them.
    """

    k: int
    feature_of_code: Ints
    n_features: int
    leave_out: int = 0


def kmer_features(k: int, *, both_strands: bool) -> KmerFeatures:
    """Return all k-mers; with both strands, a k-mer and its reverse complement are one feature."""
    codes = np.arange(4**k)
    if not both_strands:
        return KmerFeatures(k=k, feature_of_code=codes, n_features=len(codes))
    complement, rest = np.zeros_like(codes), codes.copy()
    for _ in range(k):  # the last nucleotide of the k-mer is the first of its reverse complement
        complement = complement * 4 + (3 - rest % 4)
        rest //= 4
    _, feature = np.unique(np.minimum(codes, complement), return_inverse=True)
    return KmerFeatures(k=k, feature_of_code=feature.astype(np.int64), n_features=int(feature.max()) + 1)


def cell_counts(nucleotides: Nucleotides, cell: Ints, n_cells: int, features: KmerFeatures) -> Ints:
    """Count how often each feature starts in each cell.

    K-mers that hold another letter than A C G T, or that run past their sequence, are not counted.

    Args:
        nucleotides: Some sequences.
        cell: Cell of each nucleotide, shape (nucleotides,).
        n_cells: Number of cells.
        features: What to count.

    Returns:
        Counts, int32, shape (cells, features).
    """
    codes = kmer_codes(nucleotides, features.k, _ALPHABET)
    known = codes >= 0
    place = cell[known] * features.n_features + features.feature_of_code[codes[known]]
    counts: Ints = np.bincount(place, minlength=n_cells * features.n_features).astype(np.int32)
    return counts.reshape(n_cells, features.n_features)


def chosen_windows(n: int, most: int, seed: int) -> Ints:
    """Draw at most ``most`` of n windows without replacement, in order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False, shuffle=False))


@dataclass(frozen=True, kw_only=True)
class WindowBatch:
    """Label windows of some items.

    Attributes:
        rows: Rows of the items in the split, shape (n,).
        features: Fractions of k-mers, float32, shape (windows, features).
        target: Classes, shape (windows,), or 0 and 1, shape (windows, labels); -100 if a window has no label.
    """

    rows: Ints
    features: Floats
    target: Labels


class Windows:
    """All label windows of a split.

    Args:
        dataset: The split, with ``sequence`` and its labels.
        kind: Kind of the labels.
        features: What to count; None to read only targets.
    """

    def __init__(self, dataset: Dataset, kind: LabelKind, features: KmerFeatures | None) -> None:
        from bend_hf.training.predict import n_windows

        self._sequences = dataset.select_columns(["sequence"]).with_format("arrow")
        self._targets = Targets(dataset, kind)
        self._kind, self._kmers = kind, features
        lengths = [
            pc.binary_length(self._sequences[start : start + 4096]["sequence"]).to_numpy()
            for start in range(0, len(dataset), 4096)
        ]
        self.lengths_bp: Ints = np.concatenate([np.zeros(0, np.int64), *lengths]).astype(np.int64)
        self.counts = n_windows(kind, self.lengths_bp)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def n_features(self) -> int:
        """Number of features per window."""
        if self._kmers is None:
            return 0
        sides = 2 if isinstance(self._kind, NucleotideClasses) else 1
        return sides * (self._kmers.n_features - self._kmers.leave_out)

    def batches(self) -> Iterator[WindowBatch]:
        """Yield all windows in order, in batches of whole items."""
        n_cells = self.lengths_bp // self._cell_bp() + 1 if self._cell_bp() else np.ones_like(self.lengths_bp)
        size = np.cumsum(np.maximum(n_cells * (self._kmers.n_features if self._kmers else 1), self.lengths_bp // 4))
        first = 0
        while first < len(size):
            before = size[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(size, before + _COUNTS_PER_BATCH, side="right")))
            yield self._batch(np.arange(first, last))
            first = last

    def sample(self, most: int, seed: int) -> tuple[Floats, Labels]:
        """Return features and targets of windows that have a label, drawn without replacement, in order.

        Args:
            most: Largest number of windows; windows without a label are drawn too, and then left out.
            seed: Seed of the draw.
        """
        chosen = chosen_windows(len(self), most, seed)
        features, targets = [], []
        for batch in self.batches():
            start, end = self.starts[batch.rows[0]], self.starts[batch.rows[-1] + 1]
            here = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, end)] - start
            target = batch.target[here]
            has_label = target >= 0 if target.ndim == 1 else (target >= 0).all(axis=1)
            features.append(batch.features[here][has_label])
            targets.append(target[has_label])
        return np.concatenate(features), np.concatenate(targets)

    def _cell_bp(self) -> int:
        """Return the nucleotides of a cell; 0 if the whole sequence is one."""
        match self._kind:
            case NucleotideClasses():
                return 1
            case BinClasses(bin_bp=bin_bp):
                return bin_bp
            case _:
                return 0

    def _batch(self, rows: Ints) -> WindowBatch:
        counts = self.counts[rows]
        padded = self._targets.rows(rows)
        if isinstance(self._kind, MultiLabel):
            target = padded[:, 0]
        else:
            target = padded[np.arange(padded.shape[1]) < counts[:, None]]
        if self._kmers is None:
            features = np.zeros((int(counts.sum()), 0), np.float32)
        else:
            column = self._sequences[rows]["sequence"]
            nucleotides = Nucleotides.of([text.upper() for text in column.to_pylist()])
            features = self._features(nucleotides, counts, self._kmers)
        return WindowBatch(rows=rows, features=features, target=target)

    def _features(self, nucleotides: Nucleotides, counts: Ints, kmers: KmerFeatures) -> Floats:
        """Return the fractions of k-mers around each window, shape (windows, features)."""
        n_sequences, cell_bp = len(nucleotides.lengths_bp), self._cell_bp()
        sequence = np.repeat(np.arange(n_sequences), nucleotides.lengths_bp)
        cells_of = np.ones(n_sequences, np.int64) if not cell_bp else -(-nucleotides.lengths_bp // cell_bp)
        first = np.concatenate([[0], np.cumsum(cells_of)])
        within = np.arange(len(nucleotides.codes)) - nucleotides.starts[sequence]
        cell = first[sequence] + (within // cell_bp if cell_bp else 0)
        counted = cell_counts(nucleotides, cell, int(first[-1]), kmers)
        below = np.zeros((len(counted) + 1, counted.shape[1]), np.int32)  # a batch is far below 2 ** 31 nucleotides
        np.cumsum(counted, axis=0, out=below[1:])
        window_of = np.repeat(np.arange(n_sequences), counts)
        own = first[window_of] + np.arange(len(window_of)) - np.repeat(np.cumsum(counts) - counts, counts)
        low, high = first[:-1][window_of], first[1:][window_of]
        match self._kind:
            case NucleotideClasses():
                flank = NUCLEOTIDE_FLANK_BP
                spans = [(np.maximum(own - flank, low), own), (own, np.minimum(own + flank, high))]
            case BinClasses():
                spans = [(np.maximum(own - BIN_FLANK, low), np.minimum(own + BIN_FLANK + 1, high))]
            case _:
                spans = [(own, own + 1)]
        return np.concatenate([_fractions(below[end] - below[start], kmers) for start, end in spans], axis=1)


def _fractions(counted: Ints, kmers: KmerFeatures) -> Floats:
    """Return counts as fractions of all k-mers of a window; zeros if it holds none."""
    total = np.maximum(counted.sum(axis=1, keepdims=True), 1).astype(np.float32)
    fractions: Floats = counted[:, kmers.leave_out :].astype(np.float32) / total
    return fractions
