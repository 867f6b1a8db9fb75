"""Align tokens with nucleotides. No other module does this.

The steps from sequences to token embeddings:

1. A family tokenizes S sequences into a ``TokenStream``: the content tokens and the number of nucleotides of each.
2. ``assemble`` adds special tokens and cuts the stream into chunks that fit the model (``_windows``). The result,
   ``Tokenized``, holds the inputs of the model and says which token gives which token embedding.
3. ``Tokenized.check`` makes sure that the embeddings of each sequence cover its nucleotides exactly.
4. The model runs on the chunks (``_batching``), and ``output_tokens`` says which of its outputs to return.

Usually each content token gives one embedding, in order. ``TokenMap`` describes the exceptions: BEND repeats
DNABERT's first embedding near the end of a sequence, for example.

Three tokens of one nucleotide each, with a context of four tokens of which two are special:

>>> tokens = TokenStream(ids=np.array([7, 8, 9]), token_bp=np.array([1, 1, 1]), starts=np.array([0, 3]))
>>> tokenized = assemble(tokens, Window(context_tokens=4, prefix=(0,), suffix=(1,)))
>>> tokenized.ids.tolist(), tokenized.chunk_starts.tolist(), tokenized.embedding_token.tolist()
([0, 7, 8, 1, 0, 9, 1], [0, 4, 7], [1, 2, 5])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._windows import Window as Window
from bend_hf.embedders._windows import layout_of, ramp
from bend_hf.errors import AlignmentError
from bend_hf.types import Bools, Ints


@dataclass(frozen=True, kw_only=True)
class TokenStream:
    """The N content tokens of S sequences, before special tokens are added and chunks are cut.

    Attributes:
        ids: Token ids without special tokens, one sequence after the other, shape (N,).
        token_bp: Number of nucleotides that each token stands for, shape (N,). A token of 0 nucleotides, such as a
            blank that a tokenizer puts in front of a text, is an input of the model, but gives no embedding. Ignored
            if ``assemble`` is given a ``TokenMap``.
        starts: Where the tokens of each sequence start, shape (S + 1,).
    """

    ids: NDArray[np.integer]
    token_bp: Ints
    starts: Ints


@dataclass(frozen=True, kw_only=True)
class TokenMap:
    """Which token gives which of R embeddings, if it is not one embedding per token in order.

    Attributes:
        token: Index of the token of each embedding, shape (R,). A token may occur more than once.
        bp: Number of nucleotides that each embedding stands for, shape (R,).
        starts: Where the embeddings of each sequence start, shape (S + 1,).
    """

    token: Ints
    bp: Ints
    starts: Ints


@dataclass(frozen=True, kw_only=True)
class Tokenized:
    """S sequences as P chunks of N tokens in total, and the R token embeddings that these give.

    Attributes:
        ids: Token ids of all chunks, special tokens included, one chunk after the other, shape (N,).
        chunk_starts: Where each chunk starts in ``ids``, shape (P + 1,).
        chunk_sequence: Index of the sequence that each chunk belongs to, ascending, shape (P,).
        special: True for special tokens such as CLS and SEP, shape (N,).
        embedding_token: Index into ``ids`` of the token that gives each embedding, shape (R,). A token may occur more
            than once.
        embedding_bp: Number of nucleotides that each embedding stands for, at least 1, shape (R,).
        embedding_starts: Where the embeddings of each sequence start, shape (S + 1,).
    """

    ids: NDArray[np.int32]
    chunk_starts: Ints
    chunk_sequence: Ints
    special: Bools
    embedding_token: Ints
    embedding_bp: Ints
    embedding_starts: Ints

    @property
    def n_sequences(self) -> int:
        """Number of sequences, S."""
        return len(self.embedding_starts) - 1

    def token_starts(self) -> Ints:
        """Return where the tokens of each sequence start in ``ids``, shape (S + 1,)."""
        chunks = np.searchsorted(self.chunk_sequence, np.arange(self.n_sequences + 1))
        starts: Ints = self.chunk_starts[chunks]
        return starts

    def check(self, lengths_bp: Sequence[int] | Ints, *, name: str = "this embedder") -> None:
        """Check that the embeddings of each sequence cover its nucleotides exactly.

        Args:
            lengths_bp: Nucleotides of each sequence, shape (S,).
            name: Name of the embedder, for the message.

        Raises:
            AlignmentError: A sequence has embeddings for more or fewer nucleotides than it has, or an embedding comes
                from a token of another sequence.
        """
        lengths = np.asarray(lengths_bp, dtype=np.int64)
        if len(lengths) != self.n_sequences:
            raise AlignmentError(f"{name} returned tokens of {self.n_sequences} sequences; expected {len(lengths)}")
        if len(self.embedding_bp) and self.embedding_bp.min() < 1:
            raise AlignmentError(
                f"{name} returned an embedding for {self.embedding_bp.min()} nucleotides; expected at least 1"
            )
        covered = sums(self.embedding_bp, self.embedding_starts)
        wrong = np.flatnonzero(covered != lengths)
        if len(wrong):
            first = int(wrong[0])
            raise AlignmentError(
                f"{name} returned embeddings for {covered[first]} nucleotides of sequence {first}, which has "
                f"{lengths[first]} ({len(wrong)} sequences differ); expected exactly one per nucleotide. "
                f"Check its _tokenize()"
            )
        token_starts = self.token_starts()
        filled = np.flatnonzero(np.diff(self.embedding_starts))
        starts = self.embedding_starts[:-1][filled]
        lowest = np.minimum.reduceat(self.embedding_token, starts) if len(starts) else starts
        highest = np.maximum.reduceat(self.embedding_token, starts) if len(starts) else starts
        if (lowest < token_starts[filled]).any() or (highest >= token_starts[filled + 1]).any():
            owner = np.repeat(np.arange(self.n_sequences), np.diff(self.embedding_starts))
            stray = (self.embedding_token < token_starts[owner]) | (self.embedding_token >= token_starts[owner + 1])
            raise AlignmentError(
                f"{name} takes embedding {int(np.flatnonzero(stray)[0])} from a token of another sequence; "
                f"check embedding_token in its _tokenize()"
            )


def assemble(tokens: TokenStream, window: Window, *, token_map: TokenMap | None = None) -> Tokenized:
    """Add special tokens, cut into chunks, and find the token that gives each embedding.

    Args:
        tokens: Content tokens of S sequences, at least one for each sequence.
        window: How to cut.
        token_map: Which content token gives which embedding; None: one embedding per token, in order.

    Returns:
        Inputs of the model and their alignment, not yet checked against the lengths of the sequences.

    Raises:
        AlignmentError: A sequence has no token.
    """
    n_tokens = np.diff(tokens.starts)
    if len(n_tokens) and n_tokens.min() < 1:
        raise AlignmentError(f"sequence {int(n_tokens.argmin())} has no tokens; expected at least 1. Check _tokenize()")
    layout = layout_of(tokens.starts, window)
    ids = np.empty(layout.chunk_starts[-1], dtype=np.int32)
    special = np.ones(len(ids), dtype=np.bool_)
    for positions, token in zip(layout.special_positions, (*window.prefix, *window.suffix), strict=True):
        ids[positions] = token
    if window.overlap_tokens:
        within = ramp(layout.run_tokens)
        source = np.repeat(layout.run_source, layout.run_tokens) + within
        target = np.repeat(layout.run_target, layout.run_tokens) + within
        ids[target] = tokens.ids[source]
        owned = source >= np.repeat(layout.run_owned_from, layout.run_tokens)
        owned &= source < np.repeat(layout.run_owned_to, layout.run_tokens)
        position_of = np.empty(len(tokens.ids), dtype=np.int64)
        position_of[source[owned]] = target[owned]
    else:  # the runs are the tokens one after the other
        target = np.repeat(layout.run_target - layout.run_source, layout.run_tokens)
        target += np.arange(len(tokens.ids))
        ids[target] = tokens.ids
        position_of = target
    special[target] = False
    if token_map is None:
        token_map = _one_for_each(tokens)
    return Tokenized(
        ids=ids,
        chunk_starts=layout.chunk_starts,
        chunk_sequence=layout.chunk_sequence,
        special=special,
        embedding_token=position_of if _is_ramp(token_map.token, len(position_of)) else position_of[token_map.token],
        embedding_bp=np.asarray(token_map.bp, dtype=np.int64),
        embedding_starts=np.asarray(token_map.starts, dtype=np.int64),
    )


def _is_ramp(indices: Ints, n: int) -> bool:
    """Whether indices are 0, 1, ... n - 1."""
    return len(indices) == n and np.array_equal(indices, np.arange(n))


def _one_for_each(tokens: TokenStream) -> TokenMap:
    """Give each token one embedding, except for tokens that stand for no nucleotide."""
    if tokens.token_bp.all():
        return TokenMap(token=np.arange(len(tokens.ids)), bp=tokens.token_bp, starts=tokens.starts)
    kept = np.flatnonzero(tokens.token_bp)
    return TokenMap(token=kept, bp=tokens.token_bp[kept], starts=np.searchsorted(kept, tokens.starts).astype(np.int64))


def output_tokens(tokenized: Tokenized, *, specials: bool, per_nucleotide: bool) -> TokenMap:
    """Find the token of each output.

    Args:
        tokenized: Result of ``assemble``.
        specials: Keep special tokens where they stand, each as one output.
        per_nucleotide: Return each embedding with its number of nucleotides, as often as ``tokenized`` lists it;
            otherwise return each token once.

    Returns:
        Indices into ``tokenized.ids`` and numbers of nucleotides (1 for a special token).
    """
    if per_nucleotide and not specials:
        token, bp = tokenized.embedding_token, tokenized.embedding_bp
        return TokenMap(token=token, bp=bp, starts=tokenized.embedding_starts)
    special = np.flatnonzero(tokenized.special) if specials else np.zeros(0, dtype=np.int64)
    if per_nucleotide:
        # An embedding that is repeated out of order does not move the special tokens behind it.
        behind = np.maximum.accumulate(tokenized.embedding_token)
        order = np.argsort(np.concatenate([behind, special]), kind="stable")
        token = np.concatenate([tokenized.embedding_token, special])[order]
        bp = np.concatenate([tokenized.embedding_bp, np.ones_like(special)])[order]
        position = np.concatenate([behind, special])[order]
    else:
        kept = tokenized.special & specials
        kept[tokenized.embedding_token] = True
        token = position = np.flatnonzero(kept)
        bp = np.ones_like(token)
    return TokenMap(token=token, bp=bp, starts=np.searchsorted(position, tokenized.token_starts()))


def merge_sections(tokenized: Tokenized, section_starts: Ints) -> Tokenized:
    """Join sections, which were tokenized like sequences, into the sequences that they were cut from.

    Args:
        tokenized: The sections.
        section_starts: Where the sections of each sequence start, shape (S + 1,), from ``cut_nucleotides``.
    """
    owner = np.repeat(np.arange(len(section_starts) - 1), np.diff(section_starts))
    return replace(
        tokenized,
        chunk_sequence=owner[tokenized.chunk_sequence],
        embedding_starts=tokenized.embedding_starts[section_starts],
    )


def sums(values: Ints, starts: Ints) -> Ints:
    """Sum each group of values; groups may be empty."""
    running = np.concatenate([[0], np.cumsum(values)])
    return np.diff(running[starts])
