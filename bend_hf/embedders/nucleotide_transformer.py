"""Nucleotide Transformer, first version (transformers' own ESM) and v2 (rotary, gated; ``bend_hf.embedders.networks``).

    embedder = NucleotideTransformerEmbedder("InstaDeepAI/nucleotide-transformer-v2-50m-multi-species")
    rows = embedder("ACGTACGTN", upsample_embeddings=True)        # (9, 512)

Words of six letters from left to right; single letters at the end of a run of A, C, G and T and for N. Which of the
two networks a checkpoint is, its config.json says, never its name. Longer sequences than the context are cut.

``bend-2024`` cuts nucleotides first, so that clean letters fill the context (5,994 for 1,000 tokens), and then, where
N made more tokens of them, mid-sequence without a new ``<cls>``; neighbouring letters other than A C G T N share one
``<unk>``, as in the published tokenizer. ``bend-hf-1`` cuts tokens, gives each piece its own ``<cls>`` and each such
letter its own ``<unk>``. Either way each nucleotide has one row.

The Nucleotide Transformer's vocabulary of 6-mers, as tables that a whole batch of letters is looked up in.

    vocabulary = KmerVocabulary.read(folder / "vocab.txt")
    stream = vocabulary.stream(Nucleotides.of(["ACGTACNA"]), join_unknown=False)      # ACGTAC N A

>>> words = [*SPECIALS, "A", "T", "C", "G", "N"]
>>> KmerVocabulary.of(words).stream(Nucleotides.of(["GAR"]), join_unknown=False).ids.tolist()
[7, 4, 0]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._alignment import Tokenized, TokenStream, assemble, merge_sections
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._embedder import NetworkEmbedder
from bend_hf.embedders._spec import ModelSpec
from bend_hf.embedders._tokens import Nucleotides, cut_nucleotides, greedy_kmers, nucleotide_table
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ALPHABET: Final = "ATCG"  # vocab.txt of the published checkpoints counts its words in this order
SPECIALS: Final = ("<unk>", "<pad>", "<mask>", "<cls>")  # the same file; in front of its words, in v2 two more


@dataclass(frozen=True, kw_only=True)
class KmerVocabulary:
    """What a ``vocab.txt`` says.

    Attributes:
        k: Length of the words, 6 in all checkpoints of BEND.
        kmer_ids: Token id of each word, counted in ``ALPHABET``, shape (4 ** k,).
        nucleotide_ids: Token id of each byte value as a single letter, shape (256,).
        unknown: Id of ``<unk>``.
        pad: Id of ``<pad>``.
        cls: Id of ``<cls>``.
    """

    k: int
    kmer_ids: NDArray[np.int32]
    nucleotide_ids: NDArray[np.int32]
    unknown: int
    pad: int
    cls: int

    @classmethod
    def read(cls, path: Path) -> KmerVocabulary:
        """Read a ``vocab.txt``, one token a line.

        Raises:
            ModelError: There is no such file, or it is not a vocabulary of k-mers.
        """
        if not path.is_file():
            raise ModelError(f"{path.parent} has no {path.name}; expected the vocabulary that was published with it")
        return cls.of(path.read_text(encoding="utf-8").split(), name=str(path))

    @classmethod
    def of(cls, tokens: Sequence[str], *, name: str = "the vocabulary") -> KmerVocabulary:
        """Make the tables from tokens in the order of their ids.

        Raises:
            ModelError: Special tokens, single letters or some k-mer are missing.
        """
        id_of = {token: index for index, token in enumerate(tokens)}
        lacking = [token for token in (*SPECIALS, *ALPHABET, "N") if token not in id_of]
        if lacking:
            raise ModelError(
                f"{name} lacks {', '.join(lacking)}; expected the tokens of a Nucleotide Transformer: "
                f"{', '.join(SPECIALS)}, all words of six letters, and A T C G N"
            )
        words = [token for token in tokens if set(token) <= set(ALPHABET)]
        k = max(len(word) for word in words)
        words = [word for word in words if len(word) == k]
        if len(words) != len(ALPHABET) ** k:
            raise ModelError(
                f"{name} has {len(words)} words of {k} letters; expected all {len(ALPHABET) ** k}. Is it whole?"
            )
        digits = np.array([[ALPHABET.index(letter) for letter in word] for word in words])
        kmer_ids = np.empty(len(words), dtype=np.int32)
        kmer_ids[digits @ len(ALPHABET) ** np.arange(k - 1, -1, -1)] = [id_of[word] for word in words]
        unknown, pad, _, cls_id = (id_of[token] for token in SPECIALS)
        return cls(
            k=k,
            kmer_ids=kmer_ids,
            nucleotide_ids=nucleotide_table({letter: id_of[letter] for letter in (*ALPHABET, "N")}, unknown),
            unknown=unknown,
            pad=pad,
            cls=cls_id,
        )

    @property
    def first_word(self) -> int:
        """Lowest id of a word; the special tokens that a sequence cannot hold have lower ones."""
        return int(min(self.kmer_ids.min(), self.nucleotide_ids[ord("A")]))

    @property
    def size(self) -> int:
        """One more than the highest id that a sequence can hold."""
        return int(max(self.kmer_ids.max(), self.nucleotide_ids.max())) + 1

    def stream(self, letters: Nucleotides, *, join_unknown: bool) -> TokenStream:
        """Tokens of S sequences of upper-case letters, specials not included.

        Args:
            letters: The sequences.
            join_unknown: Make one ``<unk>`` of neighbouring letters other than A C G T N, as the published
                tokenizer does, instead of one for each.
        """
        words = greedy_kmers(
            letters, k=self.k, alphabet=ALPHABET, kmer_ids=self.kmer_ids, nucleotide_ids=self.nucleotide_ids
        )
        return join_runs(words, self.unknown) if join_unknown else words


def join_runs(tokens: TokenStream, token: int) -> TokenStream:
    """Make one of each run of a token within a sequence; it stands for the nucleotides of them all.

    >>> run = TokenStream(ids=np.array([5, 0, 0, 0]), token_bp=np.array([6, 1, 1, 1]), starts=np.array([0, 3, 4]))
    >>> joined = join_runs(run, 0)
    >>> joined.ids.tolist(), joined.token_bp.tolist(), joined.starts.tolist()
    ([5, 0, 0], [6, 2, 1], [0, 2, 3])
    """
    is_it = tokens.ids == token
    follows = np.zeros(len(is_it), dtype=np.bool_)
    follows[1:] = is_it[1:] & is_it[:-1]
    follows[tokens.starts[:-1]] = False
    if not follows.any():
        return tokens
    kept = np.flatnonzero(~follows)
    return TokenStream(
        ids=tokens.ids[kept],
        token_bp=np.add.reduceat(tokens.token_bp, kept),
        starts=np.searchsorted(kept, tokens.starts).astype(np.int64),
    )


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
        license="CC-BY-NC-SA-4.0",  # model card of each checkpoint
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
        letters = Nucleotides.of(sequences)
        cls = (self._vocabulary.cls,)
        if self.protocol == "bend-hf-1" or self.overlap_tokens:
            stream = self._vocabulary.stream(letters, join_unknown=self.protocol == "bend-2024")
            return assemble(stream, self._window(self._context_tokens, prefix=cls))
        sections = cut_nucleotides(letters, (self._context_tokens - 1) * self._vocabulary.k)
        stream = self._vocabulary.stream(sections.letters, join_unknown=True)
        window = self._window(self._context_tokens, prefix=cls, cut="mid-sequence")
        return merge_sections(assemble(stream, window), sections.section_starts)

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
