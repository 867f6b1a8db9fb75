"""How a model's tokens became one row a nucleotide, in words and measured on the run's own sequences.

For the result record and the card; nothing is embedded.

>>> from bend_hf.embedders import OneHotEmbedder
>>> alignment_of(OneHotEmbedder(), ["ACGT"])["rows"]
'one row a nucleotide'
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.errors import ModelError
from bend_hf.types import Ints, Json

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.embedders._alignment import Tokenized
    from bend_hf.embedders._embedder import Embedder

_SEQUENCES: Final = 32
_MOST_BP: Final = 65_536  # tokenized; some long genes, or 32 windows of any other task


def alignment_of(embedder: Embedder, sequences: Iterable[str]) -> dict[str, Json]:
    """What a record says of tokens and nucleotides.

    Args:
        embedder: What made the embeddings.
        sequences: Some of those that it embedded, at least one.

    Returns:
        Sentences ``tokens``, ``rows`` and ``inputs``; ``rows_per_nucleotide`` where a row can stand for several;
        ``special_tokens`` where there are any.
    """
    said: dict[str, Json] = {"tokens": embedder.spec.tokenization if embedder.spec else "by the model's own tokenizer"}
    try:
        cut = embedder.tokenize([sequence for sequence in sequences if sequence])
    except ModelError:  # a model of the user's own hands over rows, not tokens
        return {"tokens": "known to the user's own model alone", "rows": "one row a nucleotide, checked"}
    n_bp = int(cut.embedding_bp.sum())
    said["rows"] = _rows(cut.embedding_bp)
    if len(cut.embedding_bp) < n_bp:
        said["rows_per_nucleotide"] = round(len(cut.embedding_bp) / n_bp, 4)
    said["inputs"] = _inputs(cut, embedder)
    if cut.special.any():
        said["special_tokens"] = f"{_specials(cut)}; they give no row"
    if embedder.reverse_complement_average:
        said["strands"] = "each nucleotide's row is the mean over both strands"
    return said


def some_sequences(dataset: Dataset) -> list[str]:
    """Sequences spread evenly over a dataset, as many as are quickly tokenized, the first in any case."""
    found: list[str] = []
    n_bp = 0
    for row in np.unique(np.linspace(0, len(dataset) - 1, _SEQUENCES).astype(np.int64)) if len(dataset) else ():
        sequence: str = dataset[int(row)]["sequence"]
        n_bp += len(sequence)
        if found and n_bp > _MOST_BP:
            break
        found.append(sequence)
    return found


def _rows(embedding_bp: Ints) -> str:
    low, high = int(embedding_bp.min(initial=1)), int(embedding_bp.max(initial=1))
    if high == 1:
        return "one row a nucleotide"
    longer = float((embedding_bp > 1).mean())
    if longer < 0.5:  # words that overlap: those at an edge stand for what no other begins or ends on
        return f"one row a nucleotide, but for {longer:.1%} of the rows, which stand for up to {high}"
    span = f"{low} to {high}" if low < high else str(high)
    return f"one row a token of {span} nucleotides, repeated for each of them"


def _inputs(cut: Tokenized, embedder: Embedder) -> str:
    pieces = np.bincount(cut.chunk_sequence, minlength=cut.n_sequences)
    longest = int(np.diff(cut.chunk_starts).max(initial=0))
    if pieces.max(initial=1) == 1:
        return f"each sequence whole, up to {longest:,} tokens"
    overlap = f"sharing {embedder.overlap_tokens:,} tokens" if embedder.overlap_tokens else "without overlap"
    return f"long sequences in pieces of at most {longest:,} tokens, {overlap}"


def _specials(cut: Tokenized) -> str:
    """How many special tokens an input has, as far as they are alike."""
    counts = np.add.reduceat(cut.special.astype(np.int64), cut.chunk_starts[:-1])
    low, high = int(counts.min()), int(counts.max())
    return f"{low} to {high} in an input" if low < high else f"{high} in each input"
