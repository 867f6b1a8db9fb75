"""Small splits of random embeddings with labels that can be learnt, for tests of training.

>>> len(gene_like(8))
8
"""

from __future__ import annotations

import datasets
import numpy as np

from bend_hf.embedders.token_embeddings import Targets, TokenBatch, pad_embeddings
from bend_hf.tasks._labels import LabelKind, MultiLabel, NucleotideClasses
from bend_hf.training.batches import Split
from bend_hf.types import Ints

WIDTH = 6
CLASSES = NucleotideClasses(names=("a", "b", "c"))


class Rows:
    """Embeddings in memory: ragged token rows of 3 nucleotides each."""

    def __init__(self, rows: list[np.ndarray]) -> None:
        self._rows = rows
        self.asked: list[list[int]] = []

    @property
    def width(self) -> int:
        return self._rows[0].shape[1]

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, rows: Ints) -> TokenBatch:
        self.asked.append(rows.tolist())
        chosen = [self._rows[row] for row in rows]
        starts = np.concatenate([[0], np.cumsum([len(one) for one in chosen])])
        return pad_embeddings(np.concatenate(chosen), starts, np.full(starts[-1], 3))


def _dataset(labels: list[list[int]], kind: LabelKind) -> datasets.Dataset:
    features = datasets.Features(
        {"item": datasets.Value("int64"), "labels": datasets.List(datasets.ClassLabel(names=list(kind.names)))}
    )
    return datasets.Dataset.from_dict({"item": list(range(len(labels))), "labels": labels}, features=features)


def gene_like(n: int, *, seed: int = 0) -> Split:
    """Sequences of different lengths with a class a nucleotide, which its token's row tells."""
    rng = np.random.default_rng(seed)
    rows = [rng.normal(size=(int(rng.integers(2, 9)), WIDTH)).astype(np.float32) for _ in range(n)]
    labels = [np.repeat(one[:, :3].argmax(axis=1), 3).tolist() for one in rows]
    dataset = _dataset(labels, CLASSES)
    return Split(dataset=dataset, embeddings=Rows(rows), targets=Targets(dataset, CLASSES))


def window_like(n: int, *, n_labels: int = 4, n_tokens: int = 4, seed: int = 0) -> Split:
    """Sequences of one length with several labels each."""
    rng = np.random.default_rng(seed)
    kind = MultiLabel(names=tuple(f"label{number}" for number in range(n_labels)))
    rows = [rng.normal(size=(n_tokens, WIDTH)).astype(np.float32) for _ in range(n)]
    labels = [np.flatnonzero(one.mean(axis=0)[:n_labels] > 0).tolist() for one in rows]
    dataset = _dataset(labels, kind)
    return Split(dataset=dataset, embeddings=Rows(rows), targets=Targets(dataset, kind))
