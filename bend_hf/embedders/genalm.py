"""GENA-LM: byte-pair tokens of human DNA, a pre-norm BERT of 512 tokens or a BigBird of 4,096.

    embedder = GENALMEmbedder("gena-lm-bert-base-t2t")
    rows = embedder("ACGTNNNNNNNNNNNNACGT", upsample_embeddings=True)     # (20, 768)

A run of N that the tokenizer writes as one token has that token's row for each of its letters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Final

from bend_hf.embedders._alignment import Tokenized, assemble
from bend_hf.embedders._bert import HEAD_KEYS, BertEmbedder, outer_specials
from bend_hf.embedders._bpe import BpeTokenizer
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._spec import ModelSpec
from bend_hf.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BigBirdForMaskedLM

_LAST_NORM: Final = "bert.encoder.last_layer_ln.*"
_T2T: Final = "human genome T2T-CHM13v2 with 1000 Genomes variants, about 480 billion bp"
_PAPER: Final = "https://doi.org/10.1093/nar/gkae1310"


def _spec(
    name: str,
    *,
    revision: str | None,
    n_parameters: int,
    width: int = 768,
    context_tokens: int = 512,
    training_data: str = _T2T,
    aliases: tuple[str, ...] = (),
) -> ModelSpec:
    return ModelSpec(
        key=name,
        embedder="genalm:GENALMEmbedder",
        family="GENA-LM",
        checkpoint=f"AIRI-Institute/{name}",
        revision=revision,
        width=width,
        n_parameters=n_parameters,
        context_tokens=context_tokens,
        tokenization="byte-pair encoding, 32,000 tokens",
        training_data=training_data,
        paper=_PAPER,
        aliases=aliases,
    )


# Revisions: commits whose file lists on the Hub hold configuration, tokenizer and weights; None where none was seen.
# Parameters: encoder without pooler and tied language-model head, counted from the published configurations.
# Training data: README of AIRI-Institute/GENA_LM. The model pages name no license.
MODELS: Final = (
    _spec(
        "gena-lm-bert-base",
        revision="1513b6e38fb11138dfc61442b95c6b60f125ebd7",
        n_parameters=110_650_880,
        training_data="human genome T2T-CHM13v2 (split v1)",
    ),
    _spec("gena-lm-bert-base-t2t", revision=None, n_parameters=110_650_880),
    _spec(
        "gena-lm-bert-base-lastln-t2t",
        revision="29cf2ee5a3e69891ef319bb86d09a00a64b91c11",
        n_parameters=110_652_416,
    ),
    _spec(
        "gena-lm-bert-large-t2t",
        revision="579d5b06ba46d49fa2a1a2dd8ca6b3499bfdb8ee",
        n_parameters=336_691_456,
        width=1024,
        aliases=("gena-lm-bert-large-t2",),  # BEND conf/embedding/embed.yaml
    ),
    _spec(
        "gena-lm-bigbird-base-t2t",
        revision="86f25d8c670e6f50ee0fabd0132bd189f00fccf5",
        n_parameters=113_993_984,
        context_tokens=4096,
    ),
)


class GENALMEmbedder(BertEmbedder):
    """GENA-LM, both architectures; the configuration says which.

    Protocols: ``bend-2024`` leaves out the norm behind the last layer of the models that have one, as BEND's copy
    of the architecture does (logits always have it); ``bend-hf-1`` applies it. Tokens are the same: an ``[UNK]``
    is one letter, and every piece of a long sequence has its own CLS and SEP; with special tokens kept,
    ``bend-2024`` gives rows to the first and the last of them only.

    BigBird attends block-sparsely to each input that is long enough for it and fully to the others, each by its
    own length: what shares a batch with it or came before changes nothing.
    """

    head_keys: ClassVar[tuple[str, ...]] = (*HEAD_KEYS, _LAST_NORM)

    def _load(self) -> None:
        self._tokenizer = BpeTokenizer.read(self.folder / "tokenizer.json")
        self.pad_id = self._tokenizer.special["[PAD]"]
        self._full: BigBirdForMaskedLM | None = None
        self._full_of: BigBirdForMaskedLM | None = None
        keys = read_json(self.folder / "config.json")
        self._is_bigbird = keys.get("model_type") == "big_bird"
        self.shardable = not self._is_bigbird  # two objects run its weights
        if self._is_bigbird:
            self._load_bigbird(keys)
        else:
            self._load_bert(keys)
        if len(self._tokenizer.bp_of_id) > self._network().config.vocab_size:
            raise ModelError(
                f"{self.folder} has a tokenizer of {len(self._tokenizer.bp_of_id)} tokens and a model of "
                f"{self._network().config.vocab_size}; tokenizer.json and config.json do not belong together"
            )
        self.context_tokens = int(self._network().config.max_position_embeddings)

    def _load_bert(self, keys: dict[str, object]) -> None:
        from bend_hf.embedders.networks.genalm import GenaLMConfig, GenaLMForMaskedLM

        config = GenaLMConfig.from_dict(keys)
        as_bend = self.protocol == "bend-2024"
        self.model = self._build_bert(
            lambda: GenaLMForMaskedLM(config),
            tied=config.tie_word_embeddings,
            allow_missing=(_LAST_NORM,) if as_bend else (),
        )

    def _load_bigbird(self, keys: dict[str, object]) -> None:
        from transformers import BigBirdConfig, BigBirdForMaskedLM

        if self.compile:
            raise ConfigError(
                f"compile=True was asked for, but {self.folder} is a BigBird, whose sparse pattern transformers "
                f"makes outside torch; use compile=False"
            )
        config = BigBirdConfig.from_dict(keys)
        self.model = self._build_bert(lambda: BigBirdForMaskedLM(config), tied=config.tie_word_embeddings)

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        special = self._tokenizer.special
        window = self._window(self.context_tokens, prefix=(special["[CLS]"],), suffix=(special["[SEP]"],))
        tokenized = assemble(self._tokenizer.stream(sequences), window)
        return outer_specials(tokenized) if self.protocol == "bend-2024" else tokenized

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        all_layers = layer != -1
        if not self._is_bigbird:
            last_norm = self.protocol != "bend-2024"
            encoder = self._network().base_model
            output = encoder(ids_BT, mask_BT, output_hidden_states=all_layers, last_norm=last_norm)
            return self._pick(output, layer)

        def run(network: BigBirdForMaskedLM, ids: Tensor, mask: Tensor) -> Tensor:
            output = network.bert(ids, attention_mask=mask, output_hidden_states=all_layers)
            return self._pick(output, layer)

        return self._by_blocks(run, ids_BT, mask_BT)

    def _logits(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        if not self._is_bigbird:
            return super()._logits(ids_BT, mask_BT)

        def run(network: BigBirdForMaskedLM, ids: Tensor, mask: Tensor) -> Tensor:
            logits: Tensor = network(ids, attention_mask=mask).logits
            return logits

        return self._by_blocks(run, ids_BT, mask_BT)

    def _by_blocks(
        self,
        run: Callable[[BigBirdForMaskedLM, Tensor, Tensor], Tensor],
        ids_BT: Tensor,
        mask_BT: Tensor | None,
    ) -> Tensor:
        """Run inputs of one count of blocks at a time, as the last block of an input is global.

        Args:
            run: From network, ids (b, t) and mask (b, t) to values (b, t, K).
            ids_BT: Token ids, shape (batch, tokens).
            mask_BT: 1 for tokens, 0 for padding.

        Returns:
            Shape (batch, tokens, K); zeros where padded past an input's last block.
        """
        import torch
        from torch.nn import functional

        network = self._network()
        config = network.config
        if mask_BT is None:
            mask_BT = torch.ones_like(ids_BT)
        size = config.block_size
        n_blocks_B = (mask_BT.sum(1) + size - 1) // size
        # transformers, BigBirdModel.forward: fewer blocks than this have no sparse pattern
        n_full = 5 + 2 * config.num_random_blocks if config.attention_type == "block_sparse" else n_blocks_B.max()
        group_B = torch.where(n_blocks_B <= n_full, 0, n_blocks_B)
        out: Tensor | None = None
        for group in torch.unique(group_B).tolist():
            rows = (group_B == group).nonzero()[:, 0]
            n_tokens = group * size or int(mask_BT[rows].sum(1).max())
            extra = max(n_tokens - ids_BT.shape[1], 0)
            ids = functional.pad(ids_BT[rows, :n_tokens], (0, extra), value=self.pad_id)
            mask = functional.pad(mask_BT[rows, :n_tokens], (0, extra))
            if group:  # the sparse pattern multiplies masks, which CUDA cannot do with integers
                mask = mask.to(network.dtype)
            values = run(network if group else self._full_attention(), ids, mask)[:, : ids_BT.shape[1]]
            if out is None:
                out = values.new_zeros((*ids_BT.shape, values.shape[-1]))
            out[rows, : values.shape[1]] = values
        if out is None:
            raise ModelError(f"{self.name} was given an empty batch")
        return out

    def _full_attention(self) -> BigBirdForMaskedLM:
        """The same weights with full attention: a second object, as switching the first one would stay."""
        network = self._network()
        if network.config.attention_type != "block_sparse":
            return network
        if self._full is None or self._full_of is not network:  # a copy of the embedder has a network of its own
            self._full_of = network
            shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
            self._full = copy.deepcopy(network, shared)
            self._full.bert.set_attention_type("original_full")
            self._full.to(device=network.device, dtype=network.dtype)
        return self._full
