"""Embedders of networks that read single letters, lower-cased, without special tokens and without a limit of length.

The convolutional models, AWD-LSTM and GPN share one tokenizer.json; a family adds its network:

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
    """Token ids of upper-case letters.

    Attributes:
        ids: Of each letter that the model knows.
        unknown: Of every other letter, N among them.
        padding: Of padding.
    """

    ids: Mapping[str, int]
    unknown: int
    padding: int

    @classmethod
    def read(cls, path: Path) -> NucleotideVocabulary:
        """From a ``tokenizer.json`` with a vocabulary of words, of which the letters are taken.

        A vocabulary without a token for unknown letters gives them the mask: both say that a letter is not known.

        Raises:
            ModelError: It holds no letters, or nothing for unknown ones.
        """
        model = read_json(path).get("model")
        words = model.get("vocab") if isinstance(model, dict) else None
        ids = (
            {word.upper(): token for word, token in words.items() if len(word) == 1} if isinstance(words, dict) else {}
        )
        if not isinstance(model, dict) or not isinstance(words, dict) or not set("ACGT") <= set(ids):
            raise ModelError(
                f"{path} is no tokenizer of single letters: expected a vocabulary with a, c, g and t, found "
                f"{', '.join(sorted(words)[:8]) if isinstance(words, dict) else 'none'}"
            )
        unknown = words.get(model.get("unk_token"), words.get("[MASK]"))
        if unknown is None:
            raise ModelError(
                f"{path} has a token neither for unknown letters nor for a mask; letters such as N need one"
            )
        return cls(ids=ids, unknown=int(unknown), padding=int(words.get("[PAD]", 0)))

    @cached_property
    def table(self) -> NDArray[np.int32]:
        """Token id of each byte value, shape (256,)."""
        return nucleotide_table(dict(self.ids), self.unknown)


class NucleotideEmbedder(NetworkEmbedder):
    """One token a letter, the whole sequence in one piece; a family sets ``self.model`` in ``_load_network``."""

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
