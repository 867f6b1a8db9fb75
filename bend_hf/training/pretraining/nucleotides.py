"""Nucleotides of a genome as codes 0 to 4, and random bits that depend on seed, purpose, step and row alone.

>>> CODE_OF[list(b"ACGTacgtNR")].tolist()
[0, 1, 2, 3, 0, 1, 2, 3, 4, 4]

Any process can draw the bits of any rows of any step, and resuming needs only the number of the step:

>>> whole = random_words(Stream.WINDOWS, seed=7, step=3, n_rows=6)
>>> bool((random_words(Stream.WINDOWS, seed=7, step=3, first_row=4, n_rows=2) == whole[4:]).all())
True
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bend_hf.data.genome import Genome
from bend_hf.data.sequences import COMPLEMENT, READ
from bend_hf.training.pretraining.regions import Regions
from bend_hf.types import Bytes, Ints

NUCLEOTIDES: Final = "ACGT"
OTHER: Final = 4
_CHUNK_BP: Final = 1 << 22


def _codes(images: bytes) -> Bytes:
    """Return the code of each byte after it is translated by a table; case does not matter."""
    code = np.full(256, OTHER, np.uint8)
    code[list(NUCLEOTIDES.encode())] = np.arange(len(NUCLEOTIDES))
    return code[np.frombuffer(images, np.uint8)]


CODE_OF: Final[Bytes] = _codes(READ)
COMPLEMENT_CODE_OF: Final[Bytes] = _codes(COMPLEMENT)[list(b"ACGTN")]


@dataclass(frozen=True, kw_only=True)
class CodeBatch:
    """Nucleotides of some intervals, one after the other.

    Attributes:
        codes: 0 to 3 for A, C, G and T, and 4 for anything else, shape (nucleotides + intervals,). Each interval is
            followed by a 4 that is not part of it, so that no k-mer reaches across intervals.
        contig: Number of each interval's contig, shape (intervals,).
        start_bp: First nucleotide of each, shape (intervals,).
        first: Where each begins in ``codes``, shape (intervals,).
    """

    codes: Bytes
    contig: Ints
    start_bp: Ints
    first: Ints


def read_codes(genome: Genome, regions: Regions, *, overlap_bp: int = 0) -> Iterator[CodeBatch]:
    """Read the codes of some regions, a few million at a time.

    Args:
        genome: The genome.
        regions: Regions of the genome.
        overlap_bp: Nucleotides that are repeated where a long interval is split, so that each k-mer of
            ``overlap_bp + 1`` nucleotides is in exactly one batch.

    Yields:
        Batches of codes.
    """
    length_bp = regions.length_bp
    n_cuts = np.maximum(-(-(length_bp - overlap_bp) // _CHUNK_BP), 1)
    owner = np.repeat(np.arange(len(regions)), n_cuts)
    into_bp = (np.arange(len(owner)) - np.repeat(np.cumsum(n_cuts) - n_cuts, n_cuts)) * _CHUNK_BP
    contig, start_bp = regions.contig[owner], regions.start_bp[owner] + into_bp
    end_bp = np.minimum(start_bp + _CHUNK_BP + overlap_bp, regions.end_bp[owner])
    group = np.cumsum(end_bp - start_bp + 1) // _CHUNK_BP
    borders = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(group)]
    for low, high in pairwise(borders):
        if low < high:
            yield _read(genome, regions.names, contig[low:high], start_bp[low:high], end_bp[low:high])


def _read(genome: Genome, names: tuple[str, ...], contig: Ints, start_bp: Ints, end_bp: Ints) -> CodeBatch:
    """Read some intervals as one batch."""
    batch = genome.fetch([names[number] for number in contig.tolist()], start_bp, end_bp)
    codes = np.full(len(batch.bases) + len(batch), OTHER, np.uint8)
    first = batch.offsets[:-1] + np.arange(len(batch))
    if len(batch) == 1:
        codes[:-1] = CODE_OF[batch.bases]
    else:
        codes[np.arange(len(batch.bases)) + np.repeat(np.arange(len(batch)), batch.lengths_bp)] = CODE_OF[batch.bases]
    return CodeBatch(codes=codes, contig=contig, start_bp=start_bp, first=first)


def unknown_runs(genome: Genome, regions: Regions) -> Regions:
    """Find the runs of unknown nucleotides, anything but A, C, G and T, inside some regions."""
    found = [np.zeros((3, 0), np.int64)]
    for batch in read_codes(genome, regions):
        unknown = np.concatenate([[False], batch.codes == OTHER])
        unknown[batch.first[1:]] = False  # the code between two intervals
        unknown[-1] = False
        low, high = np.flatnonzero(unknown[1:] != unknown[:-1]).reshape(-1, 2).T
        owner = np.searchsorted(batch.first, low, side="right") - 1
        shift = (batch.start_bp - batch.first)[owner]
        found.append(np.stack([batch.contig[owner], low + shift, high + shift]))
    return Regions.of_intervals(genome, *np.concatenate(found, axis=1))


RandomWords: TypeAlias = NDArray[np.uint64]

_WORDS_PER_BLOCK: Final = 4  # Philox4x64 gives four words for each value of its counter (numpy.random.Philox)


class Stream(IntEnum):
    """The purpose of the bits. Two purposes never share any."""

    WINDOWS = 1
    MASKS = 2
    VALIDATION_MASKS = 3
    BLOCKS = 4


def random_words(
    stream: Stream, *, seed: int, n_rows: int, step: int = 0, first_row: int = 0, n_words: int = 1
) -> RandomWords:
    """Draw uniform 64-bit words for some rows of a step.

    The bits are the raw output of the counter-based generator Philox4x64-10 (Salmon et al. 2011, SC11), whose counter
    holds purpose, step, row and word. Unlike numpy's distributions they are the same in every release.

    Args:
        stream: Purpose of the bits.
        seed: 0 or more.
        n_rows: Number of rows.
        step: Number of the step, from 0.
        first_row: The first of the rows, counted within the step.
        n_words: Words per row.

    Returns:
        Words, shape (n_rows, n_words).
    """
    blocks_per_row = -(-n_words // _WORDS_PER_BLOCK)
    counter = np.array([first_row * blocks_per_row, 0, step, stream], np.uint64)
    generator = np.random.Philox(key=np.array([seed, 0], np.uint64), counter=counter)
    drawn: RandomWords = generator.random_raw(n_rows * blocks_per_row * _WORDS_PER_BLOCK)
    return drawn.reshape(n_rows, blocks_per_row * _WORDS_PER_BLOCK)[:, :n_words]
