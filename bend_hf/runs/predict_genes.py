"""Apply a trained head to new sequences, and decode whole genes with the grammar that the head keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.data.genome import Genome
from bend_hf.errors import ConfigError, RecordError
from bend_hf.files import atomic_path, explain_write_errors
from bend_hf.runs.gff3 import HEADER, genes_of, gff3_text
from bend_hf.runs.predict_file import Intervals, Predicted, cut, in_genome_order
from bend_hf.runs.prediction_writers import BIGWIG, Rows, writer_of
from bend_hf.training.gene_grammar import Grammar, decode
from bend_hf.types import Floats

if TYPE_CHECKING:
    from bend_hf.training.trained_head import TrainedHead

_AT_ONCE_BP: Final = 1 << 22
_LONGEST_BP: Final = 1 << 23  # longer intervals are decoded in stretches of this length
_PIECES_PER_READ: Final = 64
_LEAST: Final = np.float32(1e-30)  # probabilities below it, whose logarithm would not be finite


def grammar_of(head: TrainedHead) -> Grammar:
    """Return the grammar that a head keeps.

    Raises:
        ConfigError: It was trained without one.
        RecordError: The header holds something else.
    """
    kept = head.config.grammar
    if kept is None:
        raise ConfigError(
            f"the head of {head.config.task} was trained without a grammar of genes; leave --decode out, or train it "
            "with --task gene_finding --protocol bend-hf-1 --decode grammar"
        )
    try:
        return Grammar.from_json(dict(kept))
    except ValueError as error:
        raise RecordError(f"the header of the head of {head.config.task} is damaged: {error}") from error


def predict_genes(
    head: TrainedHead,
    intervals: Intervals,
    genome: Genome,
    out: Path | None,
    *,
    gff3: Path | None = None,
    label: str | None = None,
) -> Predicted:
    """Decode all intervals and write what was asked for.

    Args:
        head: The trained head, which keeps a grammar.
        intervals: Where to predict; no gene goes on from one into the next.
        genome: Holds the sequences.
        out: As for ``predict_file``, with the classes of the best gene structures; None writes none.
        gff3: File of the genes; None writes none. An older file is replaced.
        label: The label of a ``.bedgraph`` or ``.bw``.

    Raises:
        ConfigError: The head keeps no grammar, neither file is asked for, or the ending or the label is unknown.
        InputError: Two intervals overlap in a ``.bw``.
        GenomeError: An interval is not in the genome.
    """
    grammar = grammar_of(head)
    shown = out or gff3
    if shown is None:
        raise ConfigError("neither --out nor --gff3 is given; give the file to write")
    opens = None if out is None else writer_of(out, head.config.label, label, genome.contigs)
    if out is not None and out.suffix.lower() in BIGWIG:
        intervals = in_genome_order(intervals, genome)
    names = np.array(intervals.chromosome.dictionary.to_pylist(), object)
    n_rows = n_genes = 0
    with ExitStack() as stack:
        write = None if opens is None or out is None else stack.enter_context(opens(out))
        genes_file = None
        if gff3 is not None:
            stack.enter_context(explain_write_errors(gff3))
            genes_file = stack.enter_context(stack.enter_context(atomic_path(gff3)).open("w", encoding="utf-8"))
            genes_file.write(HEADER)
        for group in _groups(cut(intervals, piece_bp=_LONGEST_BP, least_bp=1)):
            scores, letters = _scores(head, group, genome)
            lengths = group.end_bp - group.start_bp
            classes = decode(np.log(np.maximum(scores, _LEAST)), lengths, letters, grammar)
            if write is not None:
                write(_rows(group, scores, classes))
            if genes_file is not None:
                genes = genes_of(classes, lengths)
                contigs = names[group.chromosome.indices.to_numpy()].tolist()
                genes_file.write(gff3_text(genes, contigs, group.start_bp, n_before=n_genes))
                n_genes += len(genes)
            n_rows += len(classes)
    return Predicted(
        path=shown, n_intervals=len(intervals.start_bp), n_rows=n_rows, n_left_out_bp=0, gff3=gff3, n_genes=n_genes
    )


def _groups(intervals: Intervals) -> Iterator[Intervals]:
    """Yield neighboring intervals whose lengths add up to what is decoded at once, or single longer ones."""
    ends = np.cumsum(intervals.end_bp - intervals.start_bp)
    first = 0
    while first < len(ends):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _AT_ONCE_BP, "right")))
        chosen = np.arange(first, last)
        yield Intervals(
            chromosome=intervals.chromosome.take(pa.array(chosen)),
            start_bp=intervals.start_bp[chosen],
            end_bp=intervals.end_bp[chosen],
            describe=lambda number, first=first: intervals.describe(first + number),  # type: ignore[misc]  # bound now
        )
        first = last


def _scores(head: TrainedHead, intervals: Intervals, genome: Genome) -> tuple[Floats, NDArray[np.uint8]]:
    """Predict some intervals: probabilities, shape (nucleotides, classes), and the letters."""
    pieces = cut(intervals, piece_bp=head.piece_bp, least_bp=1)
    batches = genome.fetch_iter(
        pieces.chromosome,
        pieces.start_bp,
        pieces.end_bp,
        None,
        rows_per_batch=_PIECES_PER_READ,
        describe=pieces.describe,
    )
    scores, texts = [], []
    for batch in batches:
        sequences = batch.to_arrow().to_pylist()
        scores += [one.scores for one in head.predict(sequences)]
        texts += sequences
    return np.concatenate(scores), np.frombuffer("".join(texts).encode("ascii"), np.uint8)


def _rows(intervals: Intervals, scores: Floats, classes: NDArray[np.int16]) -> Rows:
    lengths = intervals.end_bp - intervals.start_bp
    row = np.repeat(np.arange(len(lengths)), lengths)
    start = np.repeat(intervals.start_bp - np.cumsum(lengths) + lengths, lengths) + np.arange(len(classes))
    return Rows(
        chromosome=intervals.chromosome.take(pa.array(row)),
        start_bp=start,
        end_bp=start + 1,
        strand=None,
        scores=scores,
        predicted=classes.astype(np.int64),
    )
