"""Nucleotide Transformer, first version (transformers' own ESM) and v2 (rotary, gated; ``bend_hf.embedders.networks``).

    embedder = NucleotideTransformerEmbedder("InstaDeepAI/nucleotide-transformer-v2-50m-multi-species")
    rows = embedder("ACGTACGTN", upsample_embeddings=True)        # (9, 512)

Words of six letters from left to right; single letters at the end of a run of A, C, G and T and for N. Which of the
two networks a checkpoint is, its config.json says, never its name. Longer sequences than the context are cut.

``bend-2024`` cuts nucleotides first, so that clean letters fill the context (5,994 for 1,000 tokens), and then, where
N made more tokens of them, mid-sequence without a new ``<cls>``; neighbouring letters other than A C G T N share one
``<unk>``, as in the published tokenizer. ``bend-hf-1`` cuts tokens, gives each piece its own ``<cls>`` and each such
letter its own ``<unk>``. Either way each nucleotide has one row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bend_hf.embedders._alignment import Tokenized, assemble, merge_chunks
from bend_hf.embedders._checkpoints import read_json
from bend_hf.embedders._network import NetworkEmbedder
from bend_hf.embedders._sixmers import KmerVocabulary
from bend_hf.embedders._spec import ModelSpec
from bend_hf.embedders._streams import Letters, cut_letters
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_V1_TOKENS: Final = 1000  # config.json: max_position_embeddings 1002, of which ESM uses those from 2
_V2_TOKENS: Final = 2048  # tokenizer_config.json: model_max_length; config.json: max_position_embeddings 2050
_HUMAN: Final = "human reference genome GRCh38"
_1000G: Final = "3,202 human genomes of the 1000 Genomes Project"
_SPECIES: Final = "850 genomes of many species"


def _declare(
    key: str,
    name: str,
    revision: str,
    *,
    width: int,
    n_parameters: int,
    context_tokens: int,
    training_data: str,
) -> ModelSpec:
    return ModelSpec(
        key=key,
        embedder="nucleotide_transformer:NucleotideTransformerEmbedder",
        family="Nucleotide Transformer v2" if context_tokens == _V2_TOKENS else "Nucleotide Transformer",
        checkpoint=f"InstaDeepAI/nucleotide-transformer-{name}",
        revision=revision,
        width=width,
        n_parameters=n_parameters,
        context_tokens=context_tokens,
        tokenization="6-mers, single letters at the rest and around N",
        training_data=training_data,
        licence="CC-BY-NC-SA-4.0",  # model card of each checkpoint
        paper="https://doi.org/10.1038/s41592-024-02523-z",
    )


# Keys of the first three: BEND conf/embedding/embed.yaml. Revisions: commits of the Hub repositories' main branch.
# Widths: config.json of each. n_parameters: the network as it is loaded, with the language-model head and without
# what the file holds unused.
MODELS: Final = (
    _declare(
        "nt_transformer_ms",
        "2.5b-multi-species",
        "00b454cc2d19a03efc6040ff4238e28d876c310d",
        width=2560,
        n_parameters=2_547_801_226,
        context_tokens=_V1_TOKENS,
        training_data=_SPECIES,
    ),
    _declare(
        "nt_transformer_human_ref",
        "500m-human-ref",
        "f6c12b1b79fa6330349ca04ad0a9531b29fd515b",
        width=1280,
        n_parameters=485_699_306,
        context_tokens=_V1_TOKENS,
        training_data=_HUMAN,
    ),
    _declare(
        "nt_transformer_1000g",
        "2.5b-1000g",
        "1296232db8cefd9d33bf301f8f9c9e58e4869f8b",
        width=2560,
        n_parameters=2_547_801_226,
        context_tokens=_V1_TOKENS,
        training_data=_1000G,
    ),
    _declare(
        "nt_transformer_500m_1000g",
        "500m-1000g",
        "805bd32d00133ed3c474b51d47e493f4d6479009",
        width=1280,
        n_parameters=485_699_306,
        context_tokens=_V1_TOKENS,
        training_data=_1000G,
    ),
    _declare(
        "nt_transformer_v2_50m",
        "v2-50m-multi-species",
        "81b29e5786726d891dbf929404ef20adca5b36f1",
        width=512,
        n_parameters=54_855_179,
        context_tokens=_V2_TOKENS,
        training_data=_SPECIES,
    ),
    _declare(
        "nt_transformer_v2_100m",
        "v2-100m-multi-species",
        "f34324c6fde36a4f635f0f1f06cac5d25acd6798",
        width=512,
        n_parameters=96_839_179,
        context_tokens=_V2_TOKENS,
        training_data=_SPECIES,
    ),
    _declare(
        "nt_transformer_v2_250m",
        "v2-250m-multi-species",
        "7224bf2dba525ad0a8f2aacbecfd6bcdd329bffe",
        width=768,
        n_parameters=233_545_995,
        context_tokens=_V2_TOKENS,
        training_data=_SPECIES,
    ),
    _declare(
        "nt_transformer_v2_500m",
        "v2-500m-multi-species",
        "f1fd7a1df5b19d31b88f11db1ce87caeb1ea4d2a",
        width=1024,
        n_parameters=496_245_771,
        context_tokens=_V2_TOKENS,
        training_data=_SPECIES,
    ),
)

# A buffer that older transformers stored, and ESM's table of absolute positions, which rotary models carry unused.
_ESM_UNUSED: Final = ("esm.embeddings.position_ids",)
_ROTARY_UNUSED: Final = (
    "esm.embeddings.position_embeddings.weight",
    "esm.encoder.layer.*.attention.self.rotary_embeddings.inv_freq",
)
_ROTARY_KEY: Final = "esm.rotary_embeddings.inv_freq"


class NucleotideTransformerEmbedder(NetworkEmbedder):
    """Either version of the Nucleotide Transformer; see the module for what the protocols do."""

    def _load(self) -> None:
        self._vocabulary = KmerVocabulary.read(self.folder / "vocab.txt")
        self.pad_id = self._vocabulary.pad
        fields = read_json(self.folder / "config.json")
        if fields.get("model_type") == "esm":
            config = self._load_esm(fields)
        elif "add_bias_fnn" in fields or fields.get("model_type") == "nucleotide_transformer_v2":
            config = self._load_v2(fields)
        else:
            raise ModelError(
                f"{self.folder / 'config.json'} is of no Nucleotide Transformer (model_type "
                f"{fields.get('model_type')!r}); expected 'esm', or v2's, without a model_type but with add_bias_fnn"
            )
        # ESM's positions count from behind the padding's id; for v2 the same rule gives the published context.
        self._context_tokens: int = config.max_position_embeddings - config.pad_token_id - 1
        self._n_vocabulary: int = config.vocab_size
        if self._vocabulary.size > self._n_vocabulary:
            raise ModelError(
                f"{self.folder} has token ids up to {self._vocabulary.size - 1} in vocab.txt and "
                f"{self._n_vocabulary} rows in config.json; they do not belong together"
            )

    def _load_esm(self, fields: dict[str, object]) -> PreTrainedConfig:
        from transformers import EsmConfig, EsmForMaskedLM

        config = EsmConfig.from_dict(fields)
        rotary = config.position_embedding_type == "rotary"
        self.model = self._build(
            lambda: EsmForMaskedLM(config),
            allow_missing=("lm_head.*", "esm.contact_head.*", _ROTARY_KEY),  # the frequencies are computed
            allow_unexpected=(*_ESM_UNUSED, *(_ROTARY_UNUSED if rotary else ())),
            rename=_esm_key,
        )
        return config

    def _load_v2(self, fields: dict[str, object]) -> PreTrainedConfig:
        from bend_hf.embedders.networks import nucleotide_transformer_v2 as v2

        config = v2.NucleotideTransformerV2Config.published(fields, name=str(self.folder / "config.json"))
        self.model = self._build(
            lambda: v2.NucleotideTransformerV2ForMaskedLM(config),
            allow_missing=("lm_head.*",),
            allow_unexpected=v2.UNUSED_KEYS,
            rename=_with_prefix,
        )
        return config

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        letters = Letters.of(sequences)
        cls = (self._vocabulary.cls,)
        if self.protocol == "bend-hf-1" or self.overlap_tokens:
            stream = self._vocabulary.stream(letters, join_unknown=self.protocol == "bend-2024")
            return assemble(stream, self._window(self._context_tokens, prefix=cls))
        chunks = cut_letters(letters, (self._context_tokens - 1) * self._vocabulary.k)
        stream = self._vocabulary.stream(chunks.letters, join_unknown=True)
        window = self._window(self._context_tokens, prefix=cls, cut="mid-sequence")
        return merge_chunks(assemble(stream, window), chunks.chunk_starts)

    def _loss_tokens(self) -> range:
        """Words and letters, not the special tokens in front of them, as BEND counts the loss."""
        return range(self._vocabulary.first_word, self._n_vocabulary)


def _with_prefix(key: str) -> str:
    """A key of a file that was saved without the head."""
    return f"esm.{key}" if key.startswith(("embeddings.", "encoder.", "contact_head.")) else key


def _esm_key(key: str) -> str:
    """From the names of files to those of transformers 5 in memory.

    transformers 4 stored the rotary frequencies in each layer; 5 saves norms under TensorFlow's names again.
    """
    key = _with_prefix(key)
    if key == "esm.encoder.layer.0.attention.self.rotary_embeddings.inv_freq":
        return _ROTARY_KEY
    return key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
