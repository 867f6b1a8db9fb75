"""Cut the tokens of long sequences into chunks that fit the context of a model.

A *chunk* is one input of the model: content tokens with special tokens around them. A sequence that fits the context
is one chunk. A longer one becomes several, in one of three ways (``Window``):

- ``each-chunk``: every chunk has its own special tokens, and chunks do not overlap;
- ``each-chunk`` with ``overlap_tokens``: neighboring chunks share tokens. Each token is computed in several chunks,
  and its embedding is taken from the chunk that shows the model most of its surroundings;
- ``mid-sequence``: special tokens are added once to the whole sequence, which is then cut. This is what BEND does for
  DNABERT and the Nucleotide Transformer.

``layout_of`` only computes positions; ``_alignment.assemble`` moves the token ids there. Five tokens with a context
of three, of which one is special, make three chunks of two, two and one content tokens:

>>> layout = layout_of(np.array([0, 5]), Window(context_tokens=3, prefix=(0,)))
>>> layout.run_source.tolist(), layout.run_tokens.tolist()
([0, 2, 4], [2, 2, 1])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from bend_hf.errors import ConfigError
from bend_hf.types import Ints

Cut: TypeAlias = Literal["each-chunk", "mid-sequence"]


@dataclass(frozen=True, kw_only=True)
class Window:
    """How to cut the tokens of a sequence into chunks.

    Attributes:
        context_tokens: Maximum number of tokens in a chunk, special tokens included; None: a sequence is one chunk.
        prefix: Ids of the special tokens in front, for example CLS.
        suffix: Ids of the special tokens at the end, for example SEP.
        cut: ``each-chunk`` gives every chunk its own special tokens. ``mid-sequence`` adds them once to the whole
            sequence and then cuts, so that only the first chunk has the prefix and only the last the suffix.
        overlap_tokens: Content tokens that neighboring chunks share, ``each-chunk`` only; 0: chunks do not overlap.
        causal: With an overlap, take embeddings from the end of a chunk, where a causal model has seen most tokens.
            Otherwise take them from the middle.
    """

    context_tokens: int | None
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    cut: Cut = "each-chunk"
    overlap_tokens: int = 0
    causal: bool = False

    def __post_init__(self) -> None:
        capacity = self.capacity_tokens
        if capacity is not None and capacity < 1:
            raise ConfigError(
                f"a context of {self.context_tokens} tokens has no room for a token besides "
                f"{len(self.prefix) + len(self.suffix)} special tokens; use a longer context"
            )
        if self.overlap_tokens and self.cut != "each-chunk":
            raise ConfigError(
                f"overlap_tokens={self.overlap_tokens} needs special tokens in each chunk, but cut is {self.cut!r}; "
                f"use protocol='bend-hf-1'"
            )
        if self.overlap_tokens < 0 or (capacity is not None and self.overlap_tokens >= capacity):
            raise ConfigError(
                f"overlap_tokens={self.overlap_tokens} does not fit a chunk of {capacity} tokens; "
                f"expected at least 0 and fewer than that"
            )

    @property
    def capacity_tokens(self) -> int | None:
        """Maximum number of content tokens in a chunk of ``each-chunk``."""
        if self.context_tokens is None:
            return None
        return self.context_tokens - len(self.prefix) - len(self.suffix)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where content tokens and special tokens go in the concatenated chunks.

    Content is copied in runs: consecutive tokens of one sequence. S sequences make P chunks and U runs.

    Attributes:
        chunk_starts: Where each chunk starts, shape (P + 1,).
        chunk_sequence: Index of the sequence that each chunk belongs to, shape (P,).
        run_source: First content token of each run, index into ``TokenStream.ids``, shape (U,).
        run_tokens: Content tokens of each run, shape (U,).
        run_target: Where each run goes, index into the concatenated chunks, shape (U,).
        run_owned_from: First content token whose embedding is taken from this run, index into ``TokenStream.ids``,
            shape (U,).
        run_owned_to: End of these tokens, exclusive, shape (U,).
        special_positions: For each special token of prefix and suffix, its positions in the concatenated chunks.
    """

    chunk_starts: Ints
    chunk_sequence: Ints
    run_source: Ints
    run_tokens: Ints
    run_target: Ints
    run_owned_from: Ints
    run_owned_to: Ints
    special_positions: tuple[Ints, ...]


def layout_of(starts: Ints, window: Window) -> Layout:
    """Cut sequences into chunks.

    Args:
        starts: Where the content tokens of each sequence start, shape (S + 1,).
        window: How to cut.
    """
    return _mid_sequence(starts, window) if window.cut == "mid-sequence" else _each_chunk(starts, window)


def ramp(counts: Ints) -> Ints:
    """Count from 0 within each group: counts 2 and 3 give 0 1 0 1 2."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def starts_of(counts: Ints | Sequence[int]) -> Ints:
    """Return where each group starts, and the end of the last: counts 2 and 3 give 0 2 5."""
    return np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))]).astype(np.int64)


def _each_chunk(starts: Ints, window: Window) -> Layout:
    n_tokens = np.diff(starts)
    capacity = np.full_like(n_tokens, window.capacity_tokens) if window.capacity_tokens else n_tokens
    stride = capacity - window.overlap_tokens if window.capacity_tokens else n_tokens
    n_chunks = np.where(n_tokens <= capacity, 1, -(-(n_tokens - window.overlap_tokens) // stride))
    sequence = np.repeat(np.arange(len(n_tokens)), n_chunks)
    length, room = n_tokens[sequence], capacity[sequence]
    first = ramp(n_chunks) * stride[sequence]
    if window.overlap_tokens:  # the last chunk moves back until it is full
        first = np.minimum(first, np.maximum(length - room, 0))
    tokens = np.minimum(room, length - first)
    opens = np.concatenate([[True], sequence[1:] != sequence[:-1]])
    previous = np.concatenate([[0], first[:-1]])
    shared_end = previous + room
    turn = shared_end if window.causal else (first + shared_end + 1) // 2
    owned_from = np.where(opens, 0, turn)
    closes = np.concatenate([opens[1:], [True]])
    owned_to = np.where(closes, length, np.concatenate([owned_from[1:], [0]]))
    n_prefix, n_suffix = len(window.prefix), len(window.suffix)
    chunk_starts = starts_of(tokens + n_prefix + n_suffix)
    return Layout(
        chunk_starts=chunk_starts,
        chunk_sequence=sequence,
        run_source=starts[sequence] + first,
        run_tokens=tokens,
        run_target=chunk_starts[:-1] + n_prefix,
        run_owned_from=starts[sequence] + owned_from,
        run_owned_to=starts[sequence] + owned_to,
        special_positions=_special_positions(chunk_starts, n_prefix, n_suffix),
    )


def _mid_sequence(starts: Ints, window: Window) -> Layout:
    n_prefix, n_suffix = len(window.prefix), len(window.suffix)
    n_tokens = np.diff(starts)
    total = n_tokens + n_prefix + n_suffix
    whole = starts_of(total)
    context = np.full_like(total, window.context_tokens) if window.context_tokens else total
    n_chunks = -(-total // context)
    sequence = np.repeat(np.arange(len(total)), n_chunks)
    chunk_starts = np.append(whole[sequence] + ramp(n_chunks) * context[sequence], whole[-1])
    return Layout(
        chunk_starts=chunk_starts,
        chunk_sequence=sequence,
        run_source=starts[:-1],
        run_tokens=n_tokens,
        run_target=whole[:-1] + n_prefix,
        run_owned_from=starts[:-1],
        run_owned_to=starts[1:],
        special_positions=_special_positions(whole, n_prefix, n_suffix),
    )


def _special_positions(starts: Ints, n_prefix: int, n_suffix: int) -> tuple[Ints, ...]:
    front = [starts[:-1] + i for i in range(n_prefix)]
    return (*front, *(starts[1:] - n_suffix + i for i in range(n_suffix)))
