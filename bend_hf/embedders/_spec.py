"""What a model declares about itself, which keywords embedders take, and what they return.

A model's module holds a tuple ``MODELS`` of ``ModelSpec``. The registry, the cards and the tables read it without
loading torch:

>>> ModelSpec(key="onehot", embedder="onehot:OneHotEmbedder", family="one-hot", source="none", width=5).module
'bend_hf.embedders.onehot'
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, TypedDict, get_args

import numpy as np

from bend_hf.data.download import RemoteFile
from bend_hf.errors import ConfigError, ModelError, did_you_mean
from bend_hf.files import write_text
from bend_hf.types import DtypeChoice, Floats, Ints, Offload, ProtocolName

if TYPE_CHECKING:
    from torch import Tensor

Direction: TypeAlias = Literal["masked", "causal", "none"]
Source: TypeAlias = Literal["hub", "erda", "zenodo", "package", "none", "unknown"]
Verified: TypeAlias = Literal["golden", "transformers", "config only", ""]
Option: TypeAlias = int | float | str | bool

DTYPES: Final[tuple[DtypeChoice, ...]] = get_args(DtypeChoice)
OFFLOADS: Final[tuple[Offload, ...]] = get_args(Offload)
TINY_CONTEXT_TOKENS: Final = 24  # context of tiny checkpoints: short, so that tests cut sequences into chunks

_EMBEDDER = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class TinyCheckpoint:
    """Configuration and vocabulary of a small network of a model's family, from which tests build random weights.

    It has the layout of the published checkpoint, so that the family reads it as it reads the real one.

    Attributes:
        config: Content of ``config.json``.
        vocabulary: Lines of ``vocab.txt``; empty: the model has no such file.
        vocabulary_json: Content of ``vocab.json``, the id of each token; empty: the model has no such file.
        tokenizer: Content of ``tokenizer.json``; empty: the model has no such file.
        tokenizer_config: Content of ``tokenizer_config.json``; empty: the model has no such file.
    """

    config: Mapping[str, object]
    vocabulary: Sequence[str] = ()
    vocabulary_json: Mapping[str, int] = field(default_factory=dict)
    tokenizer: Mapping[str, object] = field(default_factory=dict)
    tokenizer_config: Mapping[str, object] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write the files into a folder, which is created if needed, and return the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.json", json.dumps(dict(self.config)))
        if self.vocabulary:
            write_text(folder / "vocab.txt", "\n".join(self.vocabulary) + "\n")
        if self.vocabulary_json:
            write_text(folder / "vocab.json", json.dumps(dict(self.vocabulary_json)))
        if self.tokenizer:
            write_text(folder / "tokenizer.json", json.dumps(dict(self.tokenizer)))
        if self.tokenizer_config:
            write_text(folder / "tokenizer_config.json", json.dumps(dict(self.tokenizer_config)))
        return folder


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model: where its code and its checkpoint are, and the facts that cards and tables show.

    Attributes:
        key: Registry key and command-line name, for example ``dnabert2``.
        embedder: Module and class, ``module:Class``. A module without a dot is one of ``bend_hf.embedders`` if there
            is one of that name. A declaration outside the package writes ``f"{__name__}:Class"``.
        family: Name of the architecture in tables, for example ``DNABERT``.
        checkpoint: Hub id, address of the folder outside the Hub, or name in ``bend_hf/pretrained``. Empty if there is
            nothing to load, or if the address is not confirmed.
        revision: Commit on the Hub. None if it is not pinned; the result record then names the commit that was used.
        source: Who hosts the files. ``none``: there is nothing to load. ``unknown``: no source confirms the address, so
            that users name the checkpoint.
        files: The files to fetch, for sources outside the Hub.
        width: Embedding width D; None if no source confirms it.
        n_parameters: Number of weights; None if it is not published.
        context_tokens: Maximum number of tokens in one input, special tokens included; None: no limit.
        tokenization: A short phrase, for example ``overlapping 6-mers``.
        direction: Which tokens a token embedding depends on.
        training_data: A short phrase; ``unknown``, or what of it is unknown, if no source confirms it.
        trained_on_human_genome: Whether the human genome is, or may be, among the training data, and no file at hand
            says which part of it. No test row of a human task can then be taken as unseen.
        license: SPDX name, or ``unknown``.
        paper: Address of the paper.
        options: Keywords that this entry passes to its class, for example ``{"kmer": 6}``.
        aliases: Other names that find the entry. Results carry ``key``.
        offloads: Whether the blocks of the network can stay outside the device, see ``LoadedModel``.
        verified: What proves the outputs. ``golden``: outputs of the original code for small random weights, with the
            same network and tokens (``tests/parity``). ``transformers``: hidden states of the network of transformers
            for small random weights, and published rules of the tokens. ``config only``: only the number and shapes of
            the weights. Empty: the declaration does not say.
        tiny: Makes a tiny checkpoint of the family, from which the contract tests build the model. None: the model
            needs no checkpoint.
    """

    key: str
    embedder: str
    family: str = ""
    checkpoint: str = ""
    revision: str | None = None
    source: Source = "hub"
    files: tuple[RemoteFile, ...] = ()
    width: int | None
    n_parameters: int | None = None
    context_tokens: int | None = None
    tokenization: str = "single nucleotides"
    direction: Direction = "masked"
    training_data: str = ""
    trained_on_human_genome: bool = False
    license: str = "unknown"
    paper: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    offloads: bool = False
    verified: Verified = ""
    tiny: Callable[[], TinyCheckpoint] | None = None

    def __post_init__(self) -> None:
        if not _EMBEDDER.fullmatch(self.embedder):
            raise ModelError(
                f"model {self.key!r} names its embedder {self.embedder!r}; expected 'module:Class', "
                f"for example 'dnabert:DNABertEmbedder'"
            )
        if (self.source in ("none", "unknown")) != (not self.checkpoint):
            raise ModelError(
                f"model {self.key!r} has source {self.source!r} and checkpoint {self.checkpoint!r}; "
                f"a checkpoint needs a source, and sources 'none' and 'unknown' have no checkpoint"
            )
        if self.verified not in get_args(Verified):
            raise ModelError(
                f"model {self.key!r} is verified by {self.verified!r}; expected one of "
                f"{', '.join(repr(value) for value in get_args(Verified))}"
            )
        if self.width is not None and self.width < 1:
            raise ModelError(f"model {self.key!r} has width {self.width}; expected 1 or more")

    @property
    def names(self) -> tuple[str, ...]:
        """Key and aliases."""
        return (self.key, *self.aliases)

    @property
    def module(self) -> str:
        """Dotted name of the module that holds the class."""
        name = self.embedder.partition(":")[0]
        inside = f"bend_hf.embedders.{name}"
        return inside if "." not in name and importlib.util.find_spec(inside) is not None else name

    @property
    def class_name(self) -> str:
        """Name of the class in that module."""
        return self.embedder.partition(":")[2]


class EmbedderOptions(TypedDict, total=False):
    """The keywords that every embedder takes; ``LoadedModel`` describes them.

    For the constructors of families, ``__init__(..., **options: Unpack[EmbedderOptions])``. An unknown keyword is a
    TypeError.
    """

    spec: ModelSpec | None
    revision: str | None
    protocol: ProtocolName
    layer: int | str
    dtype: DtypeChoice
    tf32: bool
    device: str | None
    random_init: bool
    seed: int
    reverse_complement_average: bool
    overlap_tokens: int
    batch_tokens: int | None
    compile: bool
    return_logits: bool
    return_loss: bool
    offload: Offload


class ModelOutput(Protocol):
    """What a base model returns: the BaseModelOutput of transformers, or a class with the same fields."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None


@dataclass(frozen=True, kw_only=True)
class TokenEmbeddings:
    """The token embeddings of one sequence, as a cache stores them.

    Attributes:
        values: One embedding per token, without special tokens, shape (R, D).
        embedding_bp: Number of nucleotides that each embedding stands for, shape (R,). The sum is the length of the
            sequence.
    """

    values: Floats
    embedding_bp: Ints

    @property
    def rows(self) -> Floats:
        """The embeddings, as ``values``."""
        return self.values

    def upsampled(self) -> Floats:
        """Repeat each token embedding for its nucleotides, shape (L, D)."""
        return np.repeat(self.values, self.embedding_bp, axis=0)


def check_choice(what: str, value: str, known: Sequence[str]) -> None:
    """Raise a ConfigError if a value is not one of the known ones."""
    if value not in known:
        raise ConfigError(f"unknown {what} {value!r}; {did_you_mean(value, list(known))}")
