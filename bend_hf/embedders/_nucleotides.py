"""Embedders whose network reads single nucleotides without special tokens and without a maximum length.

BEND's ResNet LM and AWD-LSTM, GPN and bend-mini share the layout of ``tokenizer.json``. A family adds its network.

>>> vocabulary = NucleotideVocabulary(ids={"A": 3, "C": 4, "G": 5, "T": 6}, unknown=2, padding=0)
>>> vocabulary.table[list(b"ACN")].tolist()
[3, 4, 2]
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._alignment import Tokenized, assemble
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._embedder import NetworkEmbedder
from bend_hf.embedders._tokens import Nucleotides, nucleotide_table, single_nucleotides
from bend_hf.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class NucleotideVocabulary:
    """Token ids of upper-case nucleotides.

    Attributes:
        ids: Id of each nucleotide that the model knows.
        unknown: Id of every other nucleotide, including N.
        padding: Id of padding.
    """

    ids: Mapping[str, int]
    unknown: int
    padding: int

    @classmethod
    def read(cls, path: Path) -> NucleotideVocabulary:
        """Read the tokens of single nucleotides from a ``tokenizer.json``.

        If the vocabulary has no unknown token, unknown nucleotides get the mask, which also means "not known".

        Raises:
            ModelError: The vocabulary lacks A, C, G or T, or has neither an unknown token nor a mask.
        """
        model = read_json(path).get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        if not isinstance(model, dict) or not isinstance(vocabulary, dict):
            raise ModelError(f"{path} has no vocabulary; download it again")
        ids = {text.upper(): token for text, token in vocabulary.items() if len(text) == 1}
        if not set("ACGT") <= set(ids):
            raise ModelError(
                f"{path} is not a tokenizer of single nucleotides; expected a vocabulary with a, c, g and t, found "
                f"{', '.join(sorted(vocabulary)[:8]) or 'no tokens'}"
            )
        unknown = vocabulary.get(model.get("unk_token"), vocabulary.get("[MASK]"))
        if unknown is None:
            raise ModelError(f"{path} has neither an unknown token nor a mask; nucleotides such as N need one of them")
        return cls(ids=ids, unknown=int(unknown), padding=int(vocabulary.get("[PAD]", 0)))

    @cached_property
    def table(self) -> NDArray[np.int32]:
        """Token id of each byte value, shape (256,)."""
        return nucleotide_table(dict(self.ids), self.unknown)


class NucleotideEmbedder(NetworkEmbedder):
    """An embedder with one token per nucleotide and one chunk per sequence.

    A family sets ``self.model`` in ``_load_network``.
    """

    def _load(self) -> None:
        self._vocabulary = NucleotideVocabulary.read(self.folder / "tokenizer.json")
        self.pad_id = self._vocabulary.padding
        self._load_network()

    @abstractmethod
    def _load_network(self) -> None:
        """Set ``self.model``."""

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        stream = single_nucleotides(Nucleotides.of(sequences), self._vocabulary.table)
        return assemble(stream, self._window(None))


def tiny_nucleotide_tokenizer() -> dict[str, object]:
    """Make a ``tokenizer.json`` of single nucleotides, for tiny checkpoints."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, "a": 3, "c": 4, "g": 5, "t": 6},
            "unk_token": "[UNK]",
        },
    }
