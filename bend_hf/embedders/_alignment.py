"""Turns tokens into nucleotides; the only place that does.

A family says which tokens a sequence has and how many nucleotides each stands for; ``assemble`` cuts them into
inputs that the model can take and keeps the account of which token gives which row. Three letters of one token each:

>>> tokens = TokenStream(ids=np.array([7, 8, 9]), token_bp=np.array([1, 1, 1]), starts=np.array([0, 3]))
>>> cut = assemble(tokens, Window(context_tokens=4, prefix=(0,), suffix=(1,)))
>>> cut.ids.tolist(), cut.chunk_starts.tolist(), cut.embedding_token.tolist()
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
class Tokenized:
    """S sequences cut into P pieces (model inputs) of N tokens in all, and the R embedding rows they give.

    Attributes:
        ids: Token ids of all pieces, special tokens included, piece after piece, shape (N,).
        chunk_starts: Where each piece starts in ids, shape (P + 1,).
        chunk_sequence: Which sequence a piece belongs to, rising, shape (P,).
        special: True for CLS, SEP, BOS, EOS, shape (N,).
        embedding_token: Index into ids of the token that gives row r, shape (R,); a token may be listed twice.
        embedding_bp: How many nucleotides that row stands for, 1 or more, shape (R,).
        embedding_starts: Where each sequence's rows start, shape (S + 1,).
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
        """How many sequences, S."""
        return len(self.embedding_starts) - 1

    def token_starts(self) -> Ints:
        """Where each sequence's tokens start in ids, shape (S + 1,)."""
        pieces = np.searchsorted(self.chunk_sequence, np.arange(self.n_sequences + 1))
        starts: Ints = self.chunk_starts[pieces]
        return starts

    def check(self, lengths_bp: Sequence[int] | Ints, *, name: str = "this embedder") -> None:
        """Make sure that each sequence's rows cover it exactly.

        Args:
            lengths_bp: Nucleotides of each sequence, shape (S,).
            name: Who made the tokens, for the message.

        Raises:
            AlignmentError: A sequence has rows for more or fewer nucleotides than it has, or a row takes its
                vector from another sequence's token.
        """
        lengths = np.asarray(lengths_bp, dtype=np.int64)
        if len(lengths) != self.n_sequences:
            raise AlignmentError(f"{name} gave rows for {self.n_sequences} sequences; expected {len(lengths)}")
        if len(self.embedding_bp) and self.embedding_bp.min() < 1:
            raise AlignmentError(
                f"{name} gave a row for {self.embedding_bp.min()} nucleotides; each row stands for 1 or more"
            )
        covered = sums(self.embedding_bp, self.embedding_starts)
        wrong = np.flatnonzero(covered != lengths)
        if len(wrong):
            first = int(wrong[0])
            raise AlignmentError(
                f"{name} gave rows for {covered[first]} nucleotides of sequence {first}, which has "
                f"{lengths[first]} ({len(wrong)} sequences differ); each nucleotide needs exactly one row. "
                f"Check its _tokenize()"
            )
        owner = np.repeat(np.arange(self.n_sequences), np.diff(self.embedding_starts))
        token_starts = self.token_starts()
        stray = (self.embedding_token < token_starts[owner]) | (self.embedding_token >= token_starts[owner + 1])
        if stray.any():
            raise AlignmentError(
                f"{name} takes row {int(np.flatnonzero(stray)[0])} from a token of another sequence; "
                f"check embedding_token in its _tokenize()"
            )


@dataclass(frozen=True, kw_only=True)
class TokenStream:
    """What a tokenizer says of S sequences, before specials are added and inputs are cut: N content tokens.

    Attributes:
        ids: Token ids without specials, sequence after sequence, shape (N,).
        token_bp: Nucleotides that each token stands for, shape (N,); may be anything where ``rows`` are given.
        starts: Where each sequence's tokens start, shape (S + 1,).
    """

    ids: NDArray[np.integer]
    token_bp: Ints
    starts: Ints


@dataclass(frozen=True, kw_only=True)
class TokenMap:
    """Which content token gives which row, where that is not simply one row a token in order.

    Attributes:
        token: Index into ``TokenStream.ids`` for each row, shape (R,); a token may be listed twice.
        bp: Nucleotides of each row, shape (R,).
        starts: Where each sequence's rows start, shape (S + 1,).
    """

    token: Ints
    bp: Ints
    starts: Ints


def assemble(tokens: TokenStream, window: Window, *, rows: TokenMap | None = None) -> Tokenized:
    """Add special tokens, cut into pieces, and say which token gives which row.

    Args:
        tokens: Content tokens of S sequences; each sequence has at least one.
        window: How to cut.
        rows: Where rows are not one a token in order.

    Returns:
        The model inputs and the rows; not yet checked against the sequences' lengths.
    """
    n_tokens = np.diff(tokens.starts)
    if len(n_tokens) and n_tokens.min() < 1:
        raise AlignmentError(
            f"sequence {int(n_tokens.argmin())} has no token at all; its rows need one. Check _tokenize()"
        )
    layout = layout_of(tokens.starts, window)
    ids = np.empty(layout.chunk_starts[-1], dtype=np.int32)
    special = np.ones(len(ids), dtype=np.bool_)
    within = ramp(layout.run_tokens)
    source = np.repeat(layout.run_source, layout.run_tokens) + within
    place = np.repeat(layout.run_place, layout.run_tokens) + within
    ids[place] = tokens.ids[source]
    special[place] = False
    for places, token in zip(layout.special_places, (*window.prefix, *window.suffix), strict=True):
        ids[places] = token
    owned = source >= np.repeat(layout.run_owned_from, layout.run_tokens)
    owned &= source < np.repeat(layout.run_owned_to, layout.run_tokens)
    place_of = np.empty(len(tokens.ids), dtype=np.int64)
    place_of[source[owned]] = place[owned]
    if rows is None:
        rows = TokenMap(token=np.arange(len(tokens.ids)), bp=tokens.token_bp, starts=tokens.starts)
    return Tokenized(
        ids=ids,
        chunk_starts=layout.chunk_starts,
        chunk_sequence=layout.chunk_sequence,
        special=special,
        embedding_token=place_of[rows.token],
        embedding_bp=np.asarray(rows.bp, dtype=np.int64),
        embedding_starts=np.asarray(rows.starts, dtype=np.int64),
    )


def output_tokens(tokenized: Tokenized, *, specials: bool, per_nucleotide: bool) -> TokenMap:
    """Which token gives which output row.

    Args:
        tokenized: The account of ``assemble``.
        specials: Keep special tokens, each where it stands, as one row.
        per_nucleotide: The rows that stand for nucleotides, with how many; otherwise each token once.

    Returns:
        Indices into ``tokenized.ids`` and nucleotides (1 for a special token).
    """
    special = np.flatnonzero(tokenized.special) if specials else np.zeros(0, dtype=np.int64)
    if per_nucleotide:
        # A row that is repeated out of order does not move the specials behind it.
        behind = np.maximum.accumulate(tokenized.embedding_token)
        order = np.argsort(np.concatenate([behind, special]), kind="stable")
        token = np.concatenate([tokenized.embedding_token, special])[order]
        bp = np.concatenate([tokenized.embedding_bp, np.ones_like(special)])[order]
        place = np.concatenate([behind, special])[order]
    else:
        gives = tokenized.special & specials
        gives[tokenized.embedding_token] = True
        token = place = np.flatnonzero(gives)
        bp = np.ones_like(token)
    return TokenMap(token=token, bp=bp, starts=np.searchsorted(place, tokenized.token_starts()))


def merge_sections(tokenized: Tokenized, section_starts: Ints) -> Tokenized:
    """Join sections, tokenized as if they were sequences, into the sequences they were cut from.

    Args:
        tokenized: The sections.
        section_starts: Where each sequence's sections start, shape (S + 1,), as ``cut_nucleotides`` gives it.
    """
    owner = np.repeat(np.arange(len(section_starts) - 1), np.diff(section_starts))
    return replace(
        tokenized,
        chunk_sequence=owner[tokenized.chunk_sequence],
        embedding_starts=tokenized.embedding_starts[section_starts],
    )


def sums(values: Ints, starts: Ints) -> Ints:
    """The sum of each group of values; groups may be empty."""
    running = np.concatenate([[0], np.cumsum(values)])
    return np.diff(running[starts])
