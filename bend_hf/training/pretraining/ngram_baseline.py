"""How well a letter is guessed from the letters next to it by counting: what a language model has to beat.

A table counts, over the training regions, which letter stands with which neighbours, adds one half to every count,
and guesses the held-out letters by it. For whoever reads a validation perplexity:

>>> half = np.tile(np.array([0, 1], np.uint8), 50)
>>> round(causal_table_perplexity([half], [half], order=1).perplexity, 3)
1.03
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bend_hf.data.genome import Genome
from bend_hf.errors import ConfigError
from bend_hf.training.pretraining.nucleotides import LETTERS, OTHER, pieces
from bend_hf.training.pretraining.regions import Regions
from bend_hf.training.pretraining.splits import TrainingSplit
from bend_hf.types import Bytes, Ints

_log = logging.getLogger(__name__)

Objective: TypeAlias = Literal["masked", "causal"]
CAUSAL_ORDERS: Final = (0, 3, 6, 9)
MASKED_SIDES: Final = (1, 2, 3, 4, 5)
ADDED: Final = 0.5  # Krichevsky and Trofimov 1981, IEEE Trans. Inf. Theory 27:199, "add-half"
_LONGEST: Final = 13  # letters in all: 4^13 counts are half a gigabyte
_CHUNK: Final = 1 << 22


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """What one table scores.

    Attributes:
        name: Which table, for example ``3 letters on each side``.
        order: Letters before the guessed one, or on each side of it.
        perplexity: exp of the mean negative log-likelihood of a held-out nucleotide, in nats.
        n_positions: How many held-out nucleotides were scored: those that are, like all their neighbours, one of
            A, C, G and T.
    """

    name: str
    order: int
    perplexity: float
    n_positions: int


def causal_table_perplexity(train: Iterable[Bytes], held_out: Iterable[Bytes], *, order: int) -> TableRow:
    """Guess each letter from those before it.

    Args:
        train: Codes of stretches of letters, 0 to 3 for A, C, G and T and 4 for any other, shape (letters,) each;
            a context never reaches from one stretch into another.
        held_out: The same of what is scored.
        order: How many letters before.

    Raises:
        ConfigError: The contexts are too long to be counted, or no held-out letter has one.
    """
    name = f"{order} letter{'' if order == 1 else 's'} before"
    return _score(_Table(left=order, right=0), name, order, train, held_out)


def masked_table_perplexity(train: Iterable[Bytes], held_out: Iterable[Bytes], *, k: int) -> TableRow:
    """Guess each letter from those on both of its sides.

    Args:
        train: As in `causal_table_perplexity`.
        held_out: The same of what is scored.
        k: How many letters on each side.

    Raises:
        ConfigError: The contexts are too long to be counted, or no held-out letter has one.
    """
    return _score(_Table(left=k, right=k), f"{k} letter{'' if k == 1 else 's'} on each side", k, train, held_out)


def table_rows(split: TrainingSplit, genome: Genome, objective: Objective) -> list[TableRow]:
    """The tables to set beside a model: counted on the training regions, scored on all of the held-out ones.

    Reads the genome once a table, in bounded memory; on a chromosome of 63 Mb about a second each.

    Args:
        split: The regions.
        genome: The genome that they lie on.
        objective: ``causal`` for orders 0, 3, 6 and 9, ``masked`` for 1 to 5 letters on each side.
    """

    def codes(regions: Regions, overlap_bp: int) -> Iterable[Bytes]:
        return (piece.codes for piece in pieces(genome, regions, overlap_bp=overlap_bp))

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
        _log.info("table of %s: perplexity %.3f over %s letters", row.name, row.perplexity, f"{row.n_positions:,}")
        rows.append(row)
    return rows


@dataclass(frozen=True, kw_only=True)
class _Table:
    """The shape of a table: how many letters on each side of the guessed one."""

    left: int
    right: int

    @property
    def length(self) -> int:
        return self.left + 1 + self.right

    def count(self, stretches: Iterable[Bytes]) -> Ints:
        """How often each letter stands in each context, shape (4^left, 4, 4^right)."""
        counts = np.zeros(len(LETTERS) ** self.length, np.int64)
        for stretch in stretches:
            for low in range(0, len(stretch) - self.length + 1, _CHUNK):
                words = _words(stretch[low : low + _CHUNK + self.length - 1], self.length)
                counts += np.bincount(words, minlength=len(counts))
        return counts.reshape(len(LETTERS) ** self.left, len(LETTERS), -1)


def _words(codes: Bytes, length: int) -> NDArray[np.int32]:
    """Every run of so many known letters as one number, two bits a letter."""
    n_words = len(codes) - length + 1
    words: NDArray[np.int32] = np.zeros(n_words, np.int32)
    for at in range(length):
        words <<= 2
        words |= codes[at : at + n_words] & 3
    if codes.max() < OTHER:
        return words
    n_unknown = np.concatenate([[0], np.cumsum(codes == OTHER, dtype=np.int32)])
    known: NDArray[np.int32] = words[n_unknown[length:] == n_unknown[:-length]]
    return known


def _score(table: _Table, name: str, order: int, train: Iterable[Bytes], held_out: Iterable[Bytes]) -> TableRow:
    if order < 0 or table.length > _LONGEST:
        raise ConfigError(
            f"a table of {name} would count words of {table.length} letters; expected 1 to {_LONGEST} letters in all"
        )
    seen = table.count(train) + ADDED
    scored = table.count(held_out)
    n_positions = int(scored.sum())
    if not n_positions:
        raise ConfigError(f"no held-out letter has {name} that are all A, C, G or T; hold out more, or other regions")
    log_chance = np.log(seen / seen.sum(axis=1, keepdims=True))
    mean_nats = -float((scored * log_chance).sum()) / n_positions
    return TableRow(name=name, order=order, perplexity=float(np.exp(mean_nats)), n_positions=n_positions)
