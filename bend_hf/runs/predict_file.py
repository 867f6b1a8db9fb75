"""Apply a trained head to the intervals of a BED file or the sequences of a FASTA file, in bounded memory.

>>> cut(Intervals.of(["chr1"], [0], [10]), piece_bp=4, least_bp=2).start_bp.tolist()
[0, 4, 8]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.data.bed import read_bed
from bend_hf.data.genome import Genome
from bend_hf.errors import InputError
from bend_hf.runs.prediction_writers import BIGWIG, Rows, writer_of
from bend_hf.training.kept_head import one_row_each
from bend_hf.types import Ints

if TYPE_CHECKING:
    from bend_hf.training.trained_head import HeadPrediction, TrainedHead

_PIECES_PER_READ: Final = 64


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Places in a genome; every array has the length of the intervals.

    Attributes:
        chromosome: Contig names, a dictionary array.
        start_bp: First nucleotide, 0-based.
        end_bp: Position after the last nucleotide.
        strand: 1 or -1; None if all are read as the plus strand.
        describe: Names an interval, given its number, in messages.
    """

    chromosome: pa.DictionaryArray
    start_bp: Ints
    end_bp: Ints
    strand: NDArray[np.int8] | None = None
    describe: Callable[[int], str] = "interval {}".format

    @classmethod
    def of(cls, names: Sequence[str], start_bp: Sequence[int], end_bp: Sequence[int]) -> Intervals:
        """Make intervals on the plus strand."""
        return cls(
            chromosome=pa.array(names, pa.string()).dictionary_encode(),
            start_bp=np.asarray(start_bp, np.int64),
            end_bp=np.asarray(end_bp, np.int64),
        )


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What was written.

    Attributes:
        path: The file.
        n_intervals: Intervals or sequences that were read.
        n_rows: Predictions.
        n_left_out_bp: Nucleotides at ends of intervals that fill no label window.
        gff3: The file of genes; None if none was asked for.
        n_genes: Genes in it.
    """

    path: Path
    n_intervals: int
    n_rows: int
    n_left_out_bp: int
    gff3: Path | None = None
    n_genes: int = 0


def intervals_of_bed(bed: Path, *, stranded: bool) -> Intervals:
    """Read the intervals of a BED file.

    Args:
        bed: The file.
        stranded: Whether rows of the minus strand are read as their reverse complement, if the file has strands.

    Raises:
        InputError: The file is no BED file.
    """
    table = read_bed(bed)
    return Intervals(
        chromosome=table.chromosome,
        start_bp=table.start_bp,
        end_bp=table.end_bp,
        strand=table.strand if stranded else None,
        describe=table.describe,
    )


def intervals_of_fasta(genome: Genome) -> Intervals:
    """Return one interval for each sequence of a FASTA file."""
    lengths = list(genome.contigs.values())
    return Intervals.of(list(genome.contigs), [0] * len(lengths), lengths)


def in_genome_order(intervals: Intervals, genome: Genome) -> Intervals:
    """Sort intervals by contig and start, as a bigWig needs them.

    Raises:
        InputError: Two of them overlap, so that a place would have two values.
    """
    rank_of = {name: rank for rank, name in enumerate(genome.contigs)}
    ranks = np.array([rank_of.get(name, len(rank_of)) for name in intervals.chromosome.dictionary.to_pylist()])
    contig = ranks[intervals.chromosome.indices.to_numpy()]
    order = np.lexsort((intervals.start_bp, contig))
    same = contig[order][1:] == contig[order][:-1]
    overlaps = np.flatnonzero(same & (intervals.start_bp[order][1:] < intervals.end_bp[order][:-1]))
    if len(overlaps):
        first, second = order[overlaps[0]], order[overlaps[0] + 1]
        raise InputError(
            f"{intervals.describe(int(second))} overlaps {intervals.describe(int(first))}, but a bigWig holds one "
            "value at each place; give another ending, such as .bedgraph"
        )
    return Intervals(
        chromosome=intervals.chromosome.take(pa.array(order)),
        start_bp=intervals.start_bp[order],
        end_bp=intervals.end_bp[order],
        strand=None if intervals.strand is None else intervals.strand[order],
        describe=lambda number: intervals.describe(int(order[number])),
    )


def cut(intervals: Intervals, *, piece_bp: int, least_bp: int) -> Intervals:
    """Cut intervals into pieces, from left to right; whole pieces start at the 5' end of an interval's strand.

    Args:
        intervals: The intervals.
        piece_bp: Length of a piece.
        least_bp: Shorter pieces are left out.

    Raises:
        InputError: An interval has no piece.
    """
    length = intervals.end_bp - intervals.start_bp
    if short := np.flatnonzero(length < least_bp).tolist():
        raise InputError(
            f"{intervals.describe(short[0])}: the interval has {length[short[0]]} nucleotides ({len(short)} such), but "
            f"the head predicts windows of {least_bp}; give longer intervals"
        )
    counts = -(-length // piece_bp)
    row = np.repeat(np.arange(len(length)), counts)
    number = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    start, end = intervals.start_bp[row], intervals.end_bp[row]
    minus = np.zeros(len(row), np.bool_) if intervals.strand is None else intervals.strand[row] < 0
    from_right = counts[row] - 1 - number
    piece_start = np.where(minus, np.maximum(start, end - (from_right + 1) * piece_bp), start + number * piece_bp)
    piece_end = np.where(minus, end - from_right * piece_bp, np.minimum(end, start + (number + 1) * piece_bp))
    kept = np.flatnonzero(piece_end - piece_start >= least_bp)
    return Intervals(
        chromosome=intervals.chromosome.take(pa.array(row[kept])),
        start_bp=piece_start[kept],
        end_bp=piece_end[kept],
        strand=None if intervals.strand is None else intervals.strand[row[kept]],
        describe=lambda piece: intervals.describe(int(row[kept[piece]])),
    )


def predict_file(
    head: TrainedHead, intervals: Intervals, genome: Genome, out: Path, *, label: str | None = None
) -> Predicted:
    """Predict all intervals and write the predictions.

    Args:
        head: The trained head.
        intervals: Where to predict.
        genome: Holds the sequences.
        out: ``.parquet``, ``.bed``, ``.bedgraph`` or ``.bw``; an older file is replaced.
        label: The label of a ``.bedgraph`` or ``.bw``.

    Raises:
        ConfigError: The ending or the label is unknown.
        InputError: An interval is shorter than a label window, or two overlap in a ``.bw``.
        GenomeError: An interval is not in the genome.
    """
    opens = writer_of(out, head.config.label, label, genome.contigs)
    if out.suffix.lower() in BIGWIG:
        intervals = in_genome_order(intervals, genome)
    least_bp = head.piece_bp if one_row_each(head.config.label) else head.row_bp
    pieces = cut(intervals, piece_bp=head.piece_bp, least_bp=least_bp)
    batches = genome.fetch_iter(
        pieces.chromosome,
        pieces.start_bp,
        pieces.end_bp,
        pieces.strand,
        rows_per_batch=_PIECES_PER_READ,
        describe=pieces.describe,
    )
    n_rows = 0
    with opens(out) as write:
        at = 0
        for batch in batches:
            predictions = head.predict(batch.to_arrow().to_pylist())
            rows = _rows(pieces, at, predictions)
            write(rows)
            at, n_rows = at + len(predictions), n_rows + len(rows)
    total_bp = int((intervals.end_bp - intervals.start_bp).sum())
    return Predicted(
        path=out,
        n_intervals=len(intervals.start_bp),
        n_rows=n_rows,
        n_left_out_bp=total_bp - n_rows * head.row_bp,
    )


def _rows(pieces: Intervals, at: int, predictions: Sequence[HeadPrediction]) -> Rows:
    """Give the predictions of neighboring pieces their coordinates, from left to right in each piece."""
    counts = np.array([len(one) for one in predictions])
    piece = at + np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(piece)) - np.repeat(np.cumsum(counts) - counts, counts)
    window_bp = predictions[0].window_bp
    minus = np.zeros(len(piece), np.bool_) if pieces.strand is None else pieces.strand[piece] < 0
    place = np.where(minus, np.repeat(counts, counts) - 1 - number, number)  # in the order of the strand
    order = np.arange(len(piece)) - number + place
    start = np.where(minus, pieces.end_bp[piece] - (place + 1) * window_bp, pieces.start_bp[piece] + number * window_bp)
    scores = np.concatenate([one.scores for one in predictions])[order]
    classes = [one.predicted for one in predictions if one.predicted is not None]
    return Rows(
        chromosome=pieces.chromosome.take(pa.array(piece)),
        start_bp=start,
        end_bp=start + window_bp,
        strand=None if pieces.strand is None else pieces.strand[piece],
        scores=scores,
        predicted=np.concatenate(classes)[order] if classes else None,
    )
