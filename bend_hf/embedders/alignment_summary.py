"""Describe how the tokens of a model were aligned with nucleotides, for the result record and the card.

The sentences are measured on sequences of the run itself; nothing is embedded.

>>> from bend_hf.embedders import OneHotEmbedder
>>> alignment_of(OneHotEmbedder(), ["ACGT"])["rows"]
'one embedding per nucleotide'
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.errors import ModelError
from bend_hf.files import json_sha256
from bend_hf.types import Ints, Json

if TYPE_CHECKING:
    from datasets import Dataset

    from bend_hf.embedders._alignment import Tokenized
    from bend_hf.embedders._embedder import Embedder

_MAX_SEQUENCES: Final = 32
_MAX_BP: Final = 65_536  # to tokenize: a few long genes, or 32 windows of any other task


def alignment_of(embedder: Embedder, sequences: Iterable[str]) -> dict[str, Json]:
    """Summarize tokens and nucleotides for a record.

    Args:
        embedder: The embedder of the run.
        sequences: Some of the embedded sequences, at least one.

    Returns:
        Sentences ``tokens``, ``rows`` and ``inputs``; ``rows_per_nucleotide`` if an embedding can stand for several
        nucleotides; ``special_tokens`` if there are any.
    """
    sequences = list(sequences)
    if not embedder.is_loaded and (recalled := embedder.recalled_alignment(sequences_sha256(sequences))) is not None:
        return recalled
    summary: dict[str, Json] = {
        "tokens": embedder.spec.tokenization if embedder.spec else "by the model's own tokenizer"
    }
    try:
        tokenized = embedder.tokenize([sequence for sequence in sequences if sequence])
    except ModelError:  # a user's model returns embeddings, not tokens
        return {"tokens": "known only to the user's model", "rows": "one embedding per nucleotide, checked"}
    n_bp = int(tokenized.embedding_bp.sum())
    summary["rows"] = _rows(tokenized.embedding_bp)
    if len(tokenized.embedding_bp) < n_bp:
        summary["rows_per_nucleotide"] = round(len(tokenized.embedding_bp) / n_bp, 4)
    summary["inputs"] = _inputs(tokenized, embedder)
    if tokenized.special.any():
        summary["special_tokens"] = f"{_specials(tokenized)}; they give no embedding"
    if embedder.reverse_complement_average:
        summary["strands"] = "the embedding of each nucleotide is the mean over both strands"
    return summary


def sequences_sha256(sequences: Iterable[str]) -> str:
    """Hash some sequences, by which a cache keeps how they were aligned."""
    return json_sha256(list(sequences))


def some_sequences(dataset: Dataset) -> list[str]:
    """Take a few sequences, spread evenly over a dataset, that are quick to tokenize; always the first."""
    found: list[str] = []
    n_bp = 0
    for item in np.unique(np.linspace(0, len(dataset) - 1, _MAX_SEQUENCES).astype(np.int64)) if len(dataset) else ():
        sequence: str = dataset[int(item)]["sequence"]
        n_bp += len(sequence)
        if found and n_bp > _MAX_BP:
            break
        found.append(sequence)
    return found


def _rows(embedding_bp: Ints) -> str:
    low, high = int(embedding_bp.min(initial=1)), int(embedding_bp.max(initial=1))
    if high == 1:
        return "one embedding per nucleotide"
    longer = float((embedding_bp > 1).mean())
    if longer < 0.5:  # overlapping k-mers: those at an edge stand for several nucleotides
        return f"one embedding per nucleotide, except {longer:.1%} of the embeddings, which stand for up to {high}"
    span = f"{low} to {high}" if low < high else str(high)
    return f"one embedding per token of {span} nucleotides, repeated for each nucleotide"


def _inputs(tokenized: Tokenized, embedder: Embedder) -> str:
    chunks = np.bincount(tokenized.chunk_sequence, minlength=tokenized.n_sequences)
    longest = int(np.diff(tokenized.chunk_starts).max(initial=0))
    if chunks.max(initial=1) == 1:
        return f"each sequence in one input of up to {longest:,} tokens"
    overlap = f"sharing {embedder.overlap_tokens:,} tokens" if embedder.overlap_tokens else "without overlap"
    return f"long sequences in chunks of at most {longest:,} tokens, {overlap}"


def _specials(tokenized: Tokenized) -> str:
    """Say how many special tokens an input has."""
    counts = np.add.reduceat(tokenized.special.astype(np.int64), tokenized.chunk_starts[:-1])
    low, high = int(counts.min()), int(counts.max())
    return f"{low} to {high} per input" if low < high else f"{high} per input"
