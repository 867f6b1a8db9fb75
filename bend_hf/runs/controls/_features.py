"""The label windows of a split, with counts of words in and around each: what the controls learn from.

Sequences are cut into cells: the whole sequence, a bin, or a nucleotide, as the labels are. Words are counted once by
cell; a window is a run of cells. Work goes in batches of bounded size, and no step loops over bases.

>>> gc = Words(k=1, feature_of_code=np.array([0, 1, 1, 0]), n_features=2)  # A C G T
>>> cell_counts(Nucleotides.of(["ACGGNT"]), np.array([0, 0, 0, 0, 1, 1]), 2, gc).tolist()
[[1, 3], [1, 0]]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from bend_hf.embedders._tokens import Nucleotides, kmer_codes
from bend_hf.embedders.token_embeddings import Targets
from bend_hf.tasks._labels import BinClasses, LabelKind, MultiLabel, NucleotideClasses
from bend_hf.types import Floats, Ints

if TYPE_CHECKING:
    from datasets import Dataset

BIN_FLANK: Final = 2  # bins on each side: a window of 5 * 128 bp, near the 512 bp of the tasks of whole sequences
NUCLEOTIDE_FLANK_BP: Final = 100  # left and right of a nucleotide, counted apart; about half an exon
_ALPHABET: Final = "ACGT"
_COUNTS_AT_ONCE: Final = 1 << 22  # cells times features, 32 MiB


@dataclass(frozen=True, kw_only=True)
class Words:
    """Which words are counted, and which of them are counted as one.

    Attributes:
        k: Length of the words.
        feature_of_code: For each word, A C G T counting as digits, the feature it adds to, shape (4 ** k,).
        n_features: How many features there are.
        leave_out: Features at the start that the others give already.
    """

    k: int
    feature_of_code: Ints
    n_features: int
    leave_out: int = 0


def kmer_words(k: int, *, both_strands: bool) -> Words:
    """All words of k letters; with both strands a word and its reverse complement are one feature."""
    codes = np.arange(4**k)
    if not both_strands:
        return Words(k=k, feature_of_code=codes, n_features=len(codes))
    turned, rest = np.zeros_like(codes), codes.copy()
    for _ in range(k):  # the last letter of the word is the first of its reverse complement
        turned = turned * 4 + (3 - rest % 4)
        rest //= 4
    _, feature = np.unique(np.minimum(codes, turned), return_inverse=True)
    return Words(k=k, feature_of_code=feature.astype(np.int64), n_features=int(feature.max()) + 1)


def cell_counts(letters: Nucleotides, cell: Ints, n_cells: int, words: Words) -> Ints:
    """How often each feature begins in each cell, int64, shape (cells, features).

    A word that holds another letter than A C G T, or runs past its sequence, is not counted.

    Args:
        letters: Of some sequences.
        cell: Cell of each letter, shape (letters,).
        n_cells: How many cells there are.
        words: What to count.
    """
    codes = kmer_codes(letters, words.k, _ALPHABET)
    known = codes >= 0
    place = cell[known] * words.n_features + words.feature_of_code[codes[known]]
    return np.bincount(place, minlength=n_cells * words.n_features).reshape(n_cells, words.n_features)


@dataclass(frozen=True, kw_only=True)
class WindowBatch:
    """Label windows of some items.

    Attributes:
        rows: Items of the split, shape (n,).
        features: Shares of words, float32, shape (windows, features).
        target: Classes, shape (windows,), or 0 and 1, shape (windows, labels); -100 where there is none.
    """

    rows: Ints
    features: Floats
    target: NDArray[np.int16]


class Windows:
    """All label windows of a split.

    Args:
        dataset: The split, with ``sequence`` and its labels.
        kind: What the labels are.
        words: What to count; None to read targets alone.
    """

    def __init__(self, dataset: Dataset, kind: LabelKind, words: Words | None) -> None:
        from bend_hf.training.predict import n_windows

        self._sequences = dataset.select_columns(["sequence"]).with_format("arrow")
        self._targets = Targets(dataset, kind)
        self._kind, self._words = kind, words
        pieces = [
            pc.binary_length(self._sequences[start : start + 4096]["sequence"]).to_numpy()
            for start in range(0, len(dataset), 4096)
        ]
        self.lengths_bp: Ints = np.concatenate([np.zeros(0, np.int64), *pieces]).astype(np.int64)
        self.counts = n_windows(kind, self.lengths_bp)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def n_features(self) -> int:
        """Numbers a window."""
        if self._words is None:
            return 0
        sides = 2 if isinstance(self._kind, NucleotideClasses) else 1
        return sides * (self._words.n_features - self._words.leave_out)

    def batches(self) -> Iterator[WindowBatch]:
        """All windows in order, some items at a time."""
        n_cells = self.lengths_bp // self._cell_bp() + 1 if self._cell_bp() else np.ones_like(self.lengths_bp)
        size = np.cumsum(np.maximum(n_cells * (self._words.n_features if self._words else 1), self.lengths_bp // 4))
        first = 0
        while first < len(size):
            before = size[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(size, before + _COUNTS_AT_ONCE, side="right")))
            yield self._batch(np.arange(first, last))
            first = last

    def sample(self, most: int, seed: int) -> tuple[Floats, NDArray[np.int16]]:
        """Features and targets of some windows that have a label, drawn without replacement, in order.

        Args:
            most: How many at most; fewer where some that were drawn have no label.
            seed: Of the draw.
        """
        n = len(self)
        chosen = np.arange(n)
        if n > most:
            chosen = np.sort(np.random.default_rng(seed).choice(n, most, replace=False, shuffle=False))
        features, targets = [], []
        for batch in self.batches():
            start, end = self.starts[batch.rows[0]], self.starts[batch.rows[-1] + 1]
            here = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, end)] - start
            target = batch.target[here]
            labelled = target >= 0 if target.ndim == 1 else (target >= 0).all(axis=1)
            features.append(batch.features[here][labelled])
            targets.append(target[labelled])
        return np.concatenate(features), np.concatenate(targets)

    def _cell_bp(self) -> int:
        """Letters of a cell; 0 where the whole sequence is one."""
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
        if self._words is None:
            features = np.zeros((int(counts.sum()), 0), np.float32)
        else:
            column = self._sequences[rows]["sequence"]
            features = self._features(Nucleotides.of([text.upper() for text in column.to_pylist()]), counts)
        return WindowBatch(rows=rows, features=features, target=target)

    def _features(self, letters: Nucleotides, counts: Ints) -> Floats:
        """Shares of words around each window, shape (windows, features)."""
        assert self._words is not None
        n_sequences, cell_bp = len(letters.lengths_bp), self._cell_bp()
        sequence = np.repeat(np.arange(n_sequences), letters.lengths_bp)
        cells_of = np.ones(n_sequences, np.int64) if not cell_bp else -(-letters.lengths_bp // cell_bp)
        first = np.concatenate([[0], np.cumsum(cells_of)])
        within = np.arange(len(letters.codes)) - letters.starts[sequence]
        cell = first[sequence] + (within // cell_bp if cell_bp else 0)
        counted = cell_counts(letters, cell, int(first[-1]), self._words)
        below = np.zeros((len(counted) + 1, counted.shape[1]), np.int64)
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
        return np.concatenate([self._shares(below[end] - below[start]) for start, end in spans], axis=1)

    def _shares(self, counted: Ints) -> Floats:
        """Counts as shares of all words of a window; zeros where it holds none."""
        assert self._words is not None
        total = np.maximum(counted.sum(axis=1, keepdims=True), 1).astype(np.float32)
        shares: Floats = counted[:, self._words.leave_out :].astype(np.float32) / total
        return shares
