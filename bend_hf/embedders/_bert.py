"""What the BERT-like families share: keys of their files, an encoder with or without its head, special tokens.

DNABERT, GROVER and GENA-LM publish keys ``bert.*`` with a head ``cls.*``, or the keys of the bare encoder:

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
from bend_hf.embedders._spec import TINY_CONTEXT_TOKENS
from bend_hf.embedders._weights import norm_key
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

M = TypeVar("M", bound="PreTrainedModel")

HEAD_KEYS: Final = ("cls.*",)
# Keys that neither the encoder nor the language-model head uses.
UNUSED_KEYS: Final = (
    "bert.embeddings.position_ids",  # buffers that transformers 4 stored
    "bert.embeddings.token_type_ids",
    "bert.pooler.*",
    "cls.seq_relationship.*",  # models saved as BertForPreTraining
    "tied.*",
)
# Sizes of tiny checkpoints, for every BERT-like family.
TINY_BERT: Final[dict[str, object]] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": TINY_CONTEXT_TOKENS,
    "initializer_range": 0.2,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "type_vocab_size": 2,
}
TIED_KEYS: Final = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")


def bert_key(key: str) -> str:
    """Add the prefix of the encoder, which files of a bare encoder lack, and give norms the names of PyTorch."""
    key = norm_key(key)
    return key if key.startswith(("bert.", "cls.")) else f"bert.{key}"


def tied_key(key: str) -> str:
    """Rename as ``bert_key``, and set copies of tied weights aside: the input embedding is used."""
    key = bert_key(key)
    return f"tied.{key}" if key in TIED_KEYS else key


def outer_specials(tokenized: Tokenized) -> Tokenized:
    """Keep only the first and last special token of a sequence, as BEND does for byte-pair models."""
    special = np.zeros_like(tokenized.special)
    starts = tokenized.token_starts()
    special[starts[:-1]] = special[starts[1:] - 1] = True
    return replace(tokenized, special=special)


class BertEmbedder(NetworkEmbedder):
    """An embedder around a BERT whose files have the keys above."""

    head_keys: ClassVar[tuple[str, ...]] = HEAD_KEYS

    def _build_bert(
        self,
        make: Callable[[], M],
        *,
        tied: bool,
        allow_missing: Sequence[str] = (),
        allow_unexpected: Sequence[str] = (),
    ) -> M:
        """Build a masked language model whose file may lack the head, the prefix or both; see ``_build``."""

        def make_tied() -> M:
            model = make()
            if tied:  # transformers skips it if weights are not initialized
                model.tie_weights()
            return model

        return self._build(
            make_tied,
            allow_missing=(*HEAD_KEYS, "bert.pooler.*", *allow_missing),
            allow_unexpected=(*UNUSED_KEYS, *allow_unexpected),
            rename=tied_key if tied else bert_key,
        )

    def _build_plain_bert(self, vocabulary_size: int) -> None:
        """Set ``self.model`` to the BERT of transformers with its head, configured by ``config.json``."""
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
                f"{self.folder} has a vocabulary of {vocabulary_size} tokens, but vocab_size {config.vocab_size} in "
                f"config.json; the files do not belong together"
            )
        self.context_tokens = int(config.max_position_embeddings)
        self.model = self._build_bert(lambda: BertForMaskedLM(config), tied=config.tie_word_embeddings)
