"""The perplexity of n-gram tables, a baseline for language models.

A table counts each nucleotide with its neighbors in the training regions, adds one half to every count, and predicts
the held-out nucleotides:

>>> half = np.tile(np.array([0, 1], np.uint8), 50)
>>> round(causal_table_perplexity([half], [half], order=1).perplexity, 3)
1.03
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.data.genome import Genome
from bend_hf.errors import ConfigError
from bend_hf.training.pretraining.families import Objective
from bend_hf.training.pretraining.nucleotides import NUCLEOTIDES, OTHER, read_codes
from bend_hf.training.pretraining.regions import Regions
from bend_hf.training.pretraining.splits import TrainingSplit
from bend_hf.types import Bytes, Ints

_log = logging.getLogger(__name__)

CAUSAL_ORDERS: Final = (0, 3, 6, 9)
MASKED_SIDES: Final = (1, 2, 3, 4, 5)
ADDED: Final = 0.5  # Krichevsky and Trofimov 1981, IEEE Trans. Inf. Theory 27:199, "add-half"
_LONGEST: Final = 13  # nucleotides: 4^13 counts are half a gigabyte
_CHUNK: Final = 1 << 22


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """The score of one table.

    Attributes:
        name: Name of the table in ``tables.json``, for example ``3 letters on each side``.
        order: Nucleotides before the predicted one, or on each side of it.
        perplexity: exp of the mean negative log-likelihood of a held-out nucleotide, in nats.
        n_positions: Held-out nucleotides that were scored: those that are A, C, G or T, with only such neighbors.
    """

    name: str
    order: int
    perplexity: float
    n_positions: int


def causal_table_perplexity(train: Iterable[Bytes], held_out: Iterable[Bytes], *, order: int) -> TableRow:
    """Predict each nucleotide from those before it.

    Args:
        train: Codes of stretches, 0 to 3 for A, C, G and T and 4 for unknown nucleotides, shape (nucleotides,) each;
            a context does not reach from one stretch into another.
        held_out: The same for the stretches to score.
        order: Nucleotides before the predicted one.

    Raises:
        ConfigError: The contexts are too long to count, or no held-out nucleotide has one.
    """
    name = f"{order} letter{'' if order == 1 else 's'} before"
    return _score(_Table(left=order, right=0), name, order, train, held_out)


def masked_table_perplexity(train: Iterable[Bytes], held_out: Iterable[Bytes], *, k: int) -> TableRow:
    """Predict each nucleotide from those on both sides.

    Args:
        train: As in `causal_table_perplexity`.
        held_out: The same for the stretches to score.
        k: Nucleotides on each side.

    Raises:
        ConfigError: The contexts are too long to count, or no held-out nucleotide has one.
    """
    return _score(_Table(left=k, right=k), f"{k} letter{'' if k == 1 else 's'} on each side", k, train, held_out)


def table_rows(split: TrainingSplit, genome: Genome, objective: Objective) -> list[TableRow]:
    """Count the tables that a model is compared with on the training regions, and score them on the held-out ones.

    The genome is read once per table, in bounded memory; about a second each for a chromosome of 63 Mb.

    Args:
        split: Training and held-out regions.
        genome: Their genome.
        objective: ``causal`` for orders 0, 3, 6 and 9, ``masked`` for 1 to 5 nucleotides on each side.
    """

    def codes(regions: Regions, overlap_bp: int) -> Iterable[Bytes]:
        return (batch.codes for batch in read_codes(genome, regions, overlap_bp=overlap_bp))

    rows = []
    sizes = CAUSAL_ORDERS if objective == "causal" else MASKED_SIDES
    for size in sizes:
        overlap_bp = size if objective == "causal" else 2 * size
        parts = codes(split.train, overlap_bp), codes(split.held_out, overlap_bp)
        row = (
            causal_table_perplexity(*parts, order=size)
            if objective == "causal"
            else masked_table_perplexity(*parts, k=size)
        )
        _log.info("table of %s: perplexity %.3f over %s nucleotides", row.name, row.perplexity, f"{row.n_positions:,}")
        rows.append(row)
    return rows


@dataclass(frozen=True, kw_only=True)
class _Table:
    """The shape of a table: the nucleotides on each side of the predicted one."""

    left: int
    right: int

    @property
    def length(self) -> int:
        return self.left + 1 + self.right

    def count(self, stretches: Iterable[Bytes]) -> Ints:
        """Count each nucleotide in each context, shape (4^left, 4, 4^right)."""
        counts = np.zeros(len(NUCLEOTIDES) ** self.length, np.int64)
        for stretch in stretches:
            for low in range(0, len(stretch) - self.length + 1, _CHUNK):
                kmers = _kmers(stretch[low : low + _CHUNK + self.length - 1], self.length)
                counts += np.bincount(kmers, minlength=len(counts))
        return counts.reshape(len(NUCLEOTIDES) ** self.left, len(NUCLEOTIDES), -1)


def _kmers(codes: Bytes, length: int) -> NDArray[np.int32]:
    """Encode every k-mer of known nucleotides as one number, two bits per nucleotide."""
    n_kmers = len(codes) - length + 1
    kmers: NDArray[np.int32] = np.zeros(n_kmers, np.int32)
    for at in range(length):
        kmers <<= 2
        kmers |= codes[at : at + n_kmers] & 3
    if codes.max() < OTHER:
        return kmers
    n_unknown = np.concatenate([[0], np.cumsum(codes == OTHER, dtype=np.int32)])
    known: NDArray[np.int32] = kmers[n_unknown[length:] == n_unknown[:-length]]
    return known


def _score(table: _Table, name: str, order: int, train: Iterable[Bytes], held_out: Iterable[Bytes]) -> TableRow:
    if order < 0 or table.length > _LONGEST:
        raise ConfigError(
            f"a table of {name} would count {table.length}-mers; expected 1 to {_LONGEST} nucleotides in all"
        )
    seen = table.count(train) + ADDED
    scored = table.count(held_out)
    n_positions = int(scored.sum())
    if not n_positions:
        raise ConfigError(
            f"no held-out nucleotide has {name} that are all A, C, G or T; hold out more, or other regions"
        )
    log_chance = np.log(seen / seen.sum(axis=1, keepdims=True))
    mean_nats = -float((scored * log_chance).sum()) / n_positions
    return TableRow(name=name, order=order, perplexity=float(np.exp(mean_nats)), n_positions=n_positions)
