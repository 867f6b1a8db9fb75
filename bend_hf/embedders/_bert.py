"""What the BERT-like families share: names in their files, the encoder without its head, the head.

DNABERT, GROVER and GENA-LM publish ``bert.`` + encoder names with a ``cls.`` head, or the bare encoder:

>>> bert_key("encoder.layer.0.output.dense.bias"), bert_key("cls.predictions.bias")
('bert.encoder.layer.0.output.dense.bias', 'cls.predictions.bias')
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

import numpy as np

from bend_hf.embedders._alignment import Tokenized
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._embedder import NetworkEmbedder
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

M = TypeVar("M", bound="PreTrainedModel")

HEAD_KEYS: Final = ("cls.*",)
# Places of files that the embedding and the language-model head do not use.
UNUSED_KEYS: Final = (
    "bert.embeddings.position_ids",  # buffers that transformers 4 stored
    "bert.embeddings.token_type_ids",
    "bert.pooler.*",
    "cls.seq_relationship.*",  # models saved as BertForPreTraining
    "tied.*",
)
TIED_KEYS: Final = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")


def bert_key(key: str) -> str:
    """The name with the encoder's prefix, which files of a bare encoder lack."""
    return key if key.startswith(("bert.", "cls.")) else f"bert.{key}"


def tied_key(key: str) -> str:
    """As ``bert_key``; copies of tied weights step aside, as the input embedding is the one that counts."""
    key = bert_key(key)
    return f"tied.{key}" if key in TIED_KEYS else key


def outer_specials(tokenized: Tokenized) -> Tokenized:
    """As BEND keeps special tokens of byte-pair models: the first and the last of a sequence, none between pieces."""
    special = np.zeros_like(tokenized.special)
    starts = tokenized.token_starts()
    special[starts[:-1]] = special[starts[1:] - 1] = True
    return replace(tokenized, special=special)


class BertEmbedder(NetworkEmbedder):
    """An embedder over a BERT whose files have the names above."""

    head_keys: ClassVar[tuple[str, ...]] = HEAD_KEYS

    def _build_bert(
        self,
        make: Callable[[], M],
        *,
        tied: bool,
        allow_missing: Sequence[str] = (),
        allow_unexpected: Sequence[str] = (),
    ) -> M:
        """A masked language model whose file may lack the head, the prefix or both; see ``_build``."""

        def make_tied() -> M:
            model = make()
            if tied:  # transformers leaves it out where weights are not initialised
                model.tie_weights()
            return model

        return self._build(
            make_tied,
            allow_missing=(*HEAD_KEYS, "bert.pooler.*", *allow_missing),
            allow_unexpected=(*UNUSED_KEYS, *allow_unexpected),
            rename=tied_key if tied else bert_key,
        )

    def _build_plain_bert(self, vocabulary_size: int) -> None:
        """Set ``self.model`` to transformers' BERT with its head, by the folder's ``config.json``."""
        from transformers import BertConfig, BertForMaskedLM

        keys = read_json(self.folder / "config.json")
        if keys.get("position_embedding_type", "absolute") != "absolute":
            raise ModelError(
                f"{self.folder}/config.json has position_embedding_type {keys['position_embedding_type']!r}; "
                f"expected 'absolute'"
            )
        config = BertConfig.from_dict(keys)
        if config.vocab_size < vocabulary_size:
            raise ModelError(
                f"{self.folder} has a vocabulary of {vocabulary_size} tokens and a model of {config.vocab_size}; "
                f"vocabulary and config.json do not belong together"
            )
        self.context_tokens = int(config.max_position_embeddings)
        self.model = self._build_bert(lambda: BertForMaskedLM(config), tied=config.tie_word_embeddings)
