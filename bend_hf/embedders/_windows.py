"""Cuts the tokens of long sequences into pieces that fit a model's context, and says where everything goes.

Five tokens in pieces of three, one of them special; the second piece starts at the third token:

>>> layout_of(np.array([0, 5]), Window(context_tokens=3, prefix=(0,))).run_source.tolist()
[0, 2, 4]
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
    """How a sequence's tokens are cut into inputs.

    Attributes:
        context_tokens: Most tokens in an input, specials included; None: the whole sequence is one input.
        prefix: Special tokens in front, for example the id of CLS.
        suffix: Special tokens behind, for example the id of SEP.
        cut: ``each-chunk`` gives every piece its own specials; ``mid-sequence`` adds them once to the whole
            sequence and then cuts, so that only the first piece has the prefix and only the last the suffix.
        overlap_tokens: Content tokens that neighbouring pieces share (sliding mode, ``each-chunk`` only); 0 cuts.
        causal: In sliding mode a causal model has most context at a piece's end, any other in its middle.
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
                f"a context of {self.context_tokens} tokens leaves no room beside "
                f"{len(self.prefix) + len(self.suffix)} special ones; give a longer context"
            )
        if self.overlap_tokens and self.cut != "each-chunk":
            raise ConfigError(
                f"overlap_tokens={self.overlap_tokens} needs pieces with special tokens of their own; "
                f"use protocol='bend-hf-1'"
            )
        if self.overlap_tokens < 0 or (capacity is not None and self.overlap_tokens >= capacity):
            raise ConfigError(
                f"overlap_tokens={self.overlap_tokens} does not fit a piece of {capacity} tokens; "
                f"expected 0 or more and less than that"
            )

    @property
    def capacity_tokens(self) -> int | None:
        """Content tokens that fit into one piece of ``each-chunk``."""
        if self.context_tokens is None:
            return None
        return self.context_tokens - len(self.prefix) - len(self.suffix)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where content and specials go: runs of content tokens, and one array of places for each special token."""

    chunk_starts: Ints
    chunk_sequence: Ints
    run_source: Ints  # first content token of a run, index into TokenStream.ids
    run_tokens: Ints
    run_place: Ints  # where the run starts in the new ids
    run_owned_from: Ints  # content tokens of the run that give rows from here ...
    run_owned_to: Ints  # ... to here, indices into TokenStream.ids
    special_places: tuple[Ints, ...]


def layout_of(starts: Ints, window: Window) -> Layout:
    """Cut sequences.

    Args:
        starts: Where each sequence's content tokens start, shape (S + 1,).
        window: How to cut.
    """
    return _mid_sequence(starts, window) if window.cut == "mid-sequence" else _each_chunk(starts, window)


def ramp(counts: Ints) -> Ints:
    """0, 1, ... for each count, one after the other: counts 2 and 3 give 0 1 0 1 2."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def starts_of(counts: Ints | Sequence[int]) -> Ints:
    """Where each group starts, and the end of the last: counts 2 and 3 give 0 2 5."""
    return np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))]).astype(np.int64)


def _each_chunk(starts: Ints, window: Window) -> Layout:
    n_tokens = np.diff(starts)
    capacity = np.full_like(n_tokens, window.capacity_tokens) if window.capacity_tokens else n_tokens
    stride = capacity - window.overlap_tokens if window.capacity_tokens else n_tokens
    n_chunks = np.where(n_tokens <= capacity, 1, -(-(n_tokens - window.overlap_tokens) // stride))
    sequence = np.repeat(np.arange(len(n_tokens)), n_chunks)
    length, room = n_tokens[sequence], capacity[sequence]
    first = ramp(n_chunks) * stride[sequence]
    if window.overlap_tokens:  # the last window slides back to be full
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
        run_place=chunk_starts[:-1] + n_prefix,
        run_owned_from=starts[sequence] + owned_from,
        run_owned_to=starts[sequence] + owned_to,
        special_places=_special_places(chunk_starts, n_prefix, n_suffix),
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
        run_place=whole[:-1] + n_prefix,
        run_owned_from=starts[:-1],
        run_owned_to=starts[1:],
        special_places=_special_places(whole, n_prefix, n_suffix),
    )


def _special_places(starts: Ints, n_prefix: int, n_suffix: int) -> tuple[Ints, ...]:
    front = [starts[:-1] + i for i in range(n_prefix)]
    return (*front, *(starts[1:] - n_suffix + i for i in range(n_suffix)))
