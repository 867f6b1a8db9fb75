"""The keywords that every embedder takes, and what it gives.

>>> DTYPES
('float32', 'bfloat16', 'float16')
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, TypedDict, get_args

import numpy as np

from bend_hf.embedders._spec import ModelSpec
from bend_hf.errors import ConfigError, did_you_mean
from bend_hf.shapes import Floats, Ints
from bend_hf.shapes import Protocol as ProtocolName

if TYPE_CHECKING:
    from torch import Tensor

DtypeName: TypeAlias = Literal["float32", "bfloat16", "float16"]
DTYPES: Final[tuple[DtypeName, ...]] = get_args(DtypeName)


class EmbedderOptions(TypedDict, total=False):
    """The keywords that every embedder takes, for a family's ``__init__(..., **options: Unpack[EmbedderOptions])``.

    The base's constructor names each, so that a wrong one is a TypeError.
    """

    spec: ModelSpec | None
    revision: str | None
    protocol: ProtocolName
    layer: int
    dtype: DtypeName
    device: str | None
    random_init: bool
    seed: int
    reverse_complement_average: bool
    overlap_tokens: int
    batch_tokens: int | None
    compile: bool


class ModelOutput(Protocol):
    """What a base model gives: transformers' BaseModelOutput or its like."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None


@dataclass(frozen=True, kw_only=True)
class TokenEmbeddings:
    """One sequence as rows of token embeddings; what a cache stores.

    Attributes:
        rows: Embeddings without special tokens, shape (R, D).
        row_bp: Nucleotides that each row stands for, shape (R,); their sum is the sequence's length.
    """

    rows: Floats
    row_bp: Ints

    def upsampled(self) -> Floats:
        """One row per nucleotide, shape (L, D)."""
        return np.repeat(self.rows, self.row_bp, axis=0)


def one_of(what: str, value: str, known: Sequence[str]) -> None:
    """Raise a ConfigError where a value is not among the known ones."""
    if value not in known:
        raise ConfigError(f"unknown {what} {value!r}; {did_you_mean(value, list(known))}")
