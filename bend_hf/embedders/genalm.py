"""GENA-LM: byte-pair tokens of human DNA, a pre-norm BERT of 512 tokens or a BigBird of 4,096.

    embedder = GENALMEmbedder("gena-lm-bert-base-t2t")
    embeddings = embedder("ACGTNNNNNNNNNNNNACGT", upsample_embeddings=True)   # (20, 768)

The tokenizer replaces a run of N by one token; its embedding stands for every nucleotide of the run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final

from bend_hf.embedders._alignment import Tokenized, assemble
from bend_hf.embedders._bert import HEAD_KEYS, TINY_BERT, BertEmbedder, outer_specials
from bend_hf.embedders._bpe import BpeTokenizer, tiny_bpe, vocabulary_size
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._spec import ModelSpec, TinyCheckpoint
from bend_hf.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BigBirdForMaskedLM

_LAST_NORM: Final = "bert.encoder.last_layer_ln.*"


def _tiny(*, last_norm: bool) -> TinyCheckpoint:
    tokenizer = tiny_bpe("ACGTNR", gap=True)
    norms = {"pre_layer_norm": True, "last_layer_norm": last_norm}
    config = {**TINY_BERT, **norms, "model_type": "bert", "vocab_size": vocabulary_size(tokenizer), "pad_token_id": 0}
    return TinyCheckpoint(config=config, tokenizer=tokenizer)


def _tiny_bigbird() -> TinyCheckpoint:
    tokenizer = tiny_bpe("ACGTNR", gap=True)
    sparse = {"attention_type": "block_sparse", "block_size": 2, "num_random_blocks": 1, "hidden_act": "gelu_new"}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = {
        **TINY_BERT,
        **sparse,
        **ends,
        "model_type": "big_bird",
        "vocab_size": vocabulary_size(tokenizer),
    }
    return TinyCheckpoint(config=config, tokenizer=tokenizer)


_genalm = partial(
    ModelSpec,
    embedder="genalm:GENALMEmbedder",
    family="GENA-LM",
    width=768,
    context_tokens=512,
    tokenization="byte-pair encoding, 32,000 tokens",
    training_data="human genome T2T-CHM13v2 with 1000 Genomes variants, about 480 billion bp",
    trained_on_human_genome=True,
    paper="https://doi.org/10.1093/nar/gkae1310",
    verified="golden",
    tiny=partial(_tiny, last_norm=False),
)

# Revisions: commits on the Hub with configuration, tokenizer and weights; None if none was found.
# Parameters: encoder without pooler and tied language-model head, counted from the published configurations.
# Training data: README of AIRI-Institute/GENA_LM. The model pages name no license.
MODELS: Final = (
    _genalm(
        key="gena-lm-bert-base",
        checkpoint="AIRI-Institute/gena-lm-bert-base",
        revision="1513b6e38fb11138dfc61442b95c6b60f125ebd7",
        n_parameters=110_650_880,
        training_data="human genome T2T-CHM13v2 (split v1)",
        trained_on_human_genome=True,
    ),
    _genalm(
        key="gena-lm-bert-base-t2t",
        checkpoint="AIRI-Institute/gena-lm-bert-base-t2t",
        revision=None,
        n_parameters=110_650_880,
    ),
    _genalm(
        key="gena-lm-bert-base-lastln-t2t",
        checkpoint="AIRI-Institute/gena-lm-bert-base-lastln-t2t",
        revision="29cf2ee5a3e69891ef319bb86d09a00a64b91c11",
        n_parameters=110_652_416,
        tiny=partial(_tiny, last_norm=True),
    ),
    _genalm(
        key="gena-lm-bert-large-t2t",
        checkpoint="AIRI-Institute/gena-lm-bert-large-t2t",
        revision="579d5b06ba46d49fa2a1a2dd8ca6b3499bfdb8ee",
        n_parameters=336_691_456,
        width=1024,
        tiny=partial(_tiny, last_norm=True),
        aliases=("gena-lm-bert-large-t2",),  # BEND conf/embedding/embed.yaml
    ),
    _genalm(
        key="gena-lm-bigbird-base-t2t",
        checkpoint="AIRI-Institute/gena-lm-bigbird-base-t2t",
        revision="86f25d8c670e6f50ee0fabd0132bd189f00fccf5",
        n_parameters=113_993_984,
        context_tokens=4096,
        tiny=_tiny_bigbird,
    ),
)


class GENALMEmbedder(BertEmbedder):
    """GENA-LM, BERT or BigBird according to its configuration.

    ``bend-2024`` leaves out the norm behind the last layer, as BEND's copy of the architecture does, if the model has
    one; logits always use it. ``bend-hf-1`` applies it. The tokens are the same: an ``[UNK]`` is one nucleotide, and
    every chunk has its own CLS and SEP. If special tokens are kept, ``bend-2024`` returns only the first and the last.

    BigBird uses block-sparse attention for each input that is long enough, and full attention for the others. That
    depends on the length of the input alone, not on the other inputs of its batch or on earlier batches.
    """

    head_keys: ClassVar[tuple[str, ...]] = (*HEAD_KEYS, _LAST_NORM)

    def _load(self) -> None:
        self._tokenizer = BpeTokenizer.read(self.folder / "tokenizer.json")
        self.pad_id = self._tokenizer.special["[PAD]"]
        self._full: BigBirdForMaskedLM | None = None
        self._full_of: BigBirdForMaskedLM | None = None
        keys = read_json(self.folder / "config.json")
        self._is_bigbird = keys.get("model_type") == "big_bird"
        self.shardable = not self._is_bigbird  # two network objects share its weights
        if self._is_bigbird:
            self._load_bigbird(keys)
        else:
            self._load_bert(keys)
        if len(self._tokenizer.bp_of_id) > self._network().config.vocab_size:
            raise ModelError(
                f"{self.folder} has {len(self._tokenizer.bp_of_id)} tokens in tokenizer.json, but vocab_size "
                f"{self._network().config.vocab_size} in config.json; the files do not belong together"
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
                f"compile=True does not work for the BigBird {self.folder}, because transformers draws its sparse "
                f"pattern outside torch; use compile=False"
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
        """Run the inputs of a batch in groups of equal number of blocks, because the last block is global.

        Args:
            run: Computes values (b, t, K) from the network, ids (b, t) and mask (b, t).
            ids_BT: Token ids, shape (batch, tokens).
            mask_BT: 1 for tokens, 0 for padding.

        Returns:
            Shape (batch, tokens, K); zero past the last block of an input.
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
            members = (group_B == group).nonzero()[:, 0]
            n_tokens = group * size or int(mask_BT[members].sum(1).max())
            extra = max(n_tokens - ids_BT.shape[1], 0)
            ids = functional.pad(ids_BT[members, :n_tokens], (0, extra), value=self.pad_id)
            mask = functional.pad(mask_BT[members, :n_tokens], (0, extra))
            if group:  # the sparse pattern multiplies masks, which CUDA cannot do with integers
                mask = mask.to(network.dtype)
            values = run(network if group else self._full_attention(), ids, mask)[:, : ids_BT.shape[1]]
            if out is None:
                out = values.new_zeros((*ids_BT.shape, values.shape[-1]))
            out[members, : values.shape[1]] = values
        if out is None:
            raise ModelError(f"{self.name} got an empty batch; expected at least one input")
        return out

    def _full_attention(self) -> BigBirdForMaskedLM:
        """Return a network with the same weights and full attention.

        It is a second object, because transformers does not switch a network back to sparse attention.
        """
        network = self._network()
        if network.config.attention_type != "block_sparse":
            return network
        if self._full is None or self._full_of is not network:  # a copy of the embedder has another network
            self._full_of = network
            shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
            self._full = copy.deepcopy(network, shared)
            self._full.bert.set_attention_type("original_full")
            self._full.to(device=network.device, dtype=network.dtype)
        return self._full
