"""Outputs of BEND's code for its BERT-like models, for the parity tests of DNABERT, GROVER and GENA-LM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.parity import golden
from tests.shared_data import GOLDEN

TOLERANCE = 1e-4  # the golden set's own for batched and SDPA attention


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One sequence and what the reference gave for it.

    Attributes:
        sequence: Letters as they were given.
        ids: Token ids of all model calls, shape (N,).
        call_lengths: Tokens of each call.
        raw: Rows with the special tokens that the reference keeps, shape (rows, D).
        removed: Rows without special tokens.
        upsampled: One row per nucleotide; None where the reference raises or gives another number of rows.
        logits: Scores of all tokens; None where they are not stored.
    """

    sequence: str
    ids: NDArray[np.int64]
    call_lengths: list[int]
    raw: NDArray[np.float32]
    removed: NDArray[np.float32]
    upsampled: NDArray[np.float32] | None
    logits: NDArray[np.float32] | None

    @property
    def is_upper(self) -> bool:
        """Whether the sequence has no lower-case letter, which the reference takes for unknown ones."""
        return self.sequence == self.sequence.upper()


def cases(*names: str, only: Callable[[str, Reference], bool] = lambda name, golden: True) -> list[object]:
    """Parameters (checkpoint, sequence name) for each sequence of some checkpoints that ``only`` takes.

    One skipped case where there is no data.
    """
    if not GOLDEN.is_dir():
        return [pytest.param("", "", marks=pytest.mark.skip(reason="the golden references are not here"))]
    return [
        pytest.param(name, sequence, id=f"{name}-{sequence}")
        for name, sequence in golden.cases(*names)
        if only(name, reference(name, sequence))
    ]


@cache
def reference(name: str, sequence: str) -> Reference:
    """One recorded case."""
    record = golden.entry_of(name)["sequences"][sequence]
    stored = golden.arrays(name)
    raw = stored[f"{sequence}/raw"]
    front, behind = record["removed"]
    up = stored.get(f"{sequence}/up_idx")
    matches = record.get("upsample_matches_len", False) and up is not None
    return Reference(
        sequence=golden.sequence_of(name, sequence),
        ids=stored[f"{sequence}/ids"].astype(np.int64),
        call_lengths=record["ids_call_lengths"],
        raw=raw,
        removed=raw[front : len(raw) - behind],
        upsampled=raw[up] if matches else None,
        logits=stored.get(f"{sequence}/logits"),
    )
