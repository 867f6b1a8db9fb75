"""The declaration of one model: what a registry entry says about a checkpoint, for cards, tables and loading.

>>> ModelSpec(key="onehot", embedder="onehot:OneHotEmbedder", family="onehot", source="none", width=5).checkpoint
''

The keywords that every embedder takes, and what it gives.

>>> DTYPES
('float32', 'bfloat16', 'float16')
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, TypedDict, get_args

import numpy as np

from bend_hf.data.download import RemoteFile
from bend_hf.errors import ConfigError, ModelError, did_you_mean
from bend_hf.types import Floats, Ints, ModelDtype, ProtocolName

if TYPE_CHECKING:
    from torch import Tensor

Direction: TypeAlias = Literal["masked", "causal", "none"]
Source: TypeAlias = Literal["hub", "erda", "zenodo", "package", "none"]
Option: TypeAlias = int | float | str | bool

_EMBEDDER = re.compile(r"[a-z][a-z0-9_]*:[A-Za-z][A-Za-z0-9]*")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One published model.

    Attributes:
        key: Registry key and command-line name, for example ``dnabert2``.
        embedder: Where its class stands, ``module:Class`` below ``bend_hf.embedders``.
        family: The architecture's name in tables, for example ``DNABERT``.
        checkpoint: Hub id, the folder's address outside the Hub, or its name in ``bend_hf/pretrained``; empty where
            there is nothing to load.
        revision: Commit on the Hub; None where it is not pinned yet (the result record then names what was used).
        source: Who holds the files.
        files: For sources outside the Hub: what to fetch.
        width: Embedding width D.
        n_parameters: Count of weights, or None where it is not published.
        context_tokens: Most tokens in one input, specials included; None without a limit.
        tokenization: In words, for example ``overlapping 6-mers``.
        direction: What a token's vector may see.
        training_data: In words.
        license: SPDX name, or ``unknown``.
        paper: Address of the paper.
        options: Keywords that this entry gives its class, for example ``{"kmer": 6}``.
        aliases: Other names it is found by; results are kept under ``key`` alone.
    """

    key: str
    embedder: str
    family: str = ""
    checkpoint: str = ""
    revision: str | None = None
    source: Source = "hub"
    files: tuple[RemoteFile, ...] = ()
    width: int
    n_parameters: int | None = None
    context_tokens: int | None = None
    tokenization: str = "single nucleotides"
    direction: Direction = "masked"
    training_data: str = ""
    license: str = "unknown"
    paper: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _EMBEDDER.fullmatch(self.embedder):
            raise ModelError(
                f"model {self.key!r} names its embedder {self.embedder!r}; expected 'module:Class', "
                f"for example 'dnabert:DNABertEmbedder'"
            )
        if (self.source == "none") != (not self.checkpoint):
            raise ModelError(
                f"model {self.key!r} has source {self.source!r} and checkpoint {self.checkpoint!r}; "
                f"a checkpoint needs a source, and source 'none' goes without one"
            )
        if self.width < 1:
            raise ModelError(f"model {self.key!r} has width {self.width}; expected 1 or more")

    @property
    def names(self) -> tuple[str, ...]:
        """Key and aliases."""
        return (self.key, *self.aliases)

    @property
    def module(self) -> str:
        """Dotted name of the module that holds the class."""
        return f"bend_hf.embedders.{self.embedder.partition(':')[0]}"

    @property
    def class_name(self) -> str:
        """Name of the class in that module."""
        return self.embedder.partition(":")[2]


DTYPES: Final[tuple[ModelDtype, ...]] = get_args(ModelDtype)


class EmbedderOptions(TypedDict, total=False):
    """The keywords that every embedder takes, for a family's ``__init__(..., **options: Unpack[EmbedderOptions])``.

    The base's constructor names each, so that a wrong one is a TypeError.
    """

    spec: ModelSpec | None
    revision: str | None
    protocol: ProtocolName
    layer: int
    dtype: ModelDtype
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
        values: Embeddings without special tokens, shape (R, D).
        embedding_bp: Nucleotides that each row stands for, shape (R,); their sum is the sequence's length.
    """

    values: Floats
    embedding_bp: Ints

    def upsampled(self) -> Floats:
        """One row per nucleotide, shape (L, D)."""
        return np.repeat(self.values, self.embedding_bp, axis=0)


def one_of(what: str, value: str, known: Sequence[str]) -> None:
    """Raise a ConfigError where a value is not among the known ones."""
    if value not in known:
        raise ConfigError(f"unknown {what} {value!r}; {did_you_mean(value, list(known))}")
