"""Nucleotide Transformer: consecutive 6-mers, in the first version (an ESM of transformers) and in v2.

    embedder = NucleotideTransformerEmbedder("InstaDeepAI/nucleotide-transformer-v2-50m-multi-species")
    embeddings = embedder("ACGTACGTN", upsample_embeddings=True)  # (9, 512)

Tokens are 6-mers from left to right, and single nucleotides at the end of a run of A, C, G and T and for N. The
configuration says which of the two networks a checkpoint has. v2 has rotary positions and a gated feed-forward
(``networks.nucleotide_transformer_v2``).

Sequences longer than the context are cut. ``bend-2024`` cuts nucleotides first, so that k-mers fill the context (5,994
nucleotides for 1,000 tokens). If N makes a section longer than the context, it is cut again mid-sequence, without a new
``<cls>``. Neighboring nucleotides other than A, C, G, T and N share one ``<unk>``, as in the published tokenizer.
``bend-hf-1`` cuts tokens, gives each chunk its own ``<cls>``, and each such nucleotide its own ``<unk>``.

A vocabulary of single nucleotides, for which R is unknown:

>>> vocabulary = KmerVocabulary.of([*SPECIALS, "A", "T", "C", "G", "N"])
>>> vocabulary.stream(Nucleotides.of(["GAR"]), join_unknown=False).ids.tolist()
[7, 4, 0]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._alignment import Tokenized, TokenStream, assemble, merge_sections
from bend_hf.embedders._bert import TINY_BERT
from bend_hf.embedders._checkpoint_files import read_json, read_vocabulary
from bend_hf.embedders._embedder import NetworkEmbedder
from bend_hf.embedders._spec import TINY_CONTEXT_TOKENS, ModelSpec, TinyCheckpoint
from bend_hf.embedders._tokens import Nucleotides, cut_nucleotides, greedy_kmers, nucleotide_table
from bend_hf.embedders._weights import norm_key
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ALPHABET: Final = "ATCG"  # order of the k-mers in the published vocab.txt
SPECIALS: Final = ("<unk>", "<pad>", "<mask>", "<cls>")  # first tokens of the published vocab.txt; v2 has two more


@dataclass(frozen=True, kw_only=True)
class KmerVocabulary:
    """A vocabulary of k-mers as lookup tables.

    Attributes:
        k: Length of the k-mers, 6 in all published checkpoints.
        kmer_ids: Token id of each k-mer by its number in base 4 (``ALPHABET``), shape (4 ** k,).
        nucleotide_ids: Token id of each byte value as a single nucleotide, shape (256,).
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
    def read(cls, folder: Path) -> KmerVocabulary:
        """Read the ``vocab.txt`` or ``tokenizer.json`` of a folder.

        Raises:
            ModelError: The files are missing, or do not hold a vocabulary of k-mers.
        """
        return cls.of(read_vocabulary(folder), name=f"the vocabulary of {folder}")

    @classmethod
    def of(cls, tokens: Sequence[str], *, name: str = "the vocabulary") -> KmerVocabulary:
        """Build the tables from tokens in the order of their ids.

        Raises:
            ModelError: A special token, a single nucleotide or a k-mer is missing.
        """
        id_of = {token: index for index, token in enumerate(tokens)}
        missing = [token for token in (*SPECIALS, *ALPHABET, "N") if token not in id_of]
        if missing:
            raise ModelError(
                f"{name} lacks {', '.join(missing)}; expected the tokens of a Nucleotide Transformer: "
                f"{', '.join(SPECIALS)}, all 6-mers, and A T C G N"
            )
        kmers = [token for token in tokens if token and set(token) <= set(ALPHABET)]
        k = max(len(kmer) for kmer in kmers)
        kmers = [kmer for kmer in kmers if len(kmer) == k]
        if len(kmers) != len(ALPHABET) ** k:
            raise ModelError(f"{name} has {len(kmers)} {k}-mers; expected all {len(ALPHABET) ** k}. Download it again")
        digits = np.array([[ALPHABET.index(nucleotide) for nucleotide in kmer] for kmer in kmers])
        kmer_ids = np.empty(len(kmers), dtype=np.int32)
        kmer_ids[digits @ len(ALPHABET) ** np.arange(k - 1, -1, -1)] = [id_of[kmer] for kmer in kmers]
        unknown, pad, _, cls_id = (id_of[token] for token in SPECIALS)
        return cls(
            k=k,
            kmer_ids=kmer_ids,
            nucleotide_ids=nucleotide_table(
                {nucleotide: id_of[nucleotide] for nucleotide in (*ALPHABET, "N")}, unknown
            ),
            unknown=unknown,
            pad=pad,
            cls=cls_id,
        )

    @property
    def first_kmer(self) -> int:
        """Lowest id of a k-mer or nucleotide; special tokens have lower ids."""
        return int(min(self.kmer_ids.min(), self.nucleotide_ids[ord("A")]))

    @property
    def size(self) -> int:
        """One more than the highest id in a sequence."""
        return int(max(self.kmer_ids.max(), self.nucleotide_ids.max())) + 1

    def stream(self, nucleotides: Nucleotides, *, join_unknown: bool) -> TokenStream:
        """Tokenize S upper-case sequences, without special tokens.

        Args:
            nucleotides: The sequences.
            join_unknown: Make one ``<unk>`` of neighboring nucleotides other than A, C, G, T and N, as the published
                tokenizer does, instead of one for each.
        """
        tokens = greedy_kmers(
            nucleotides,
            k=self.k,
            alphabet=ALPHABET,
            kmer_ids=self.kmer_ids,
            nucleotide_ids=self.nucleotide_ids,
        )
        return join_runs(tokens, self.unknown) if join_unknown else tokens


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


def _tiny(version: int) -> TinyCheckpoint:
    specials = [*SPECIALS, *(("<eos>", "<bos>") if version == 2 else ())]
    vocabulary = [*specials, *("".join(kmer) for kmer in product(ALPHABET, repeat=6)), *"ATCGN"]
    v1 = {"model_type": "esm", "position_embedding_type": "absolute"}
    v2 = {"add_bias_fnn": False, "position_embedding_type": "rotary"}
    config = {
        **TINY_BERT,
        "vocab_size": len(vocabulary),
        "pad_token_id": 1,
        "mask_token_id": 2,
        "max_position_embeddings": TINY_CONTEXT_TOKENS + 2,
        "emb_layer_norm_before": False,
        "token_dropout": False,
        "tie_word_embeddings": False,
        **(v2 if version == 2 else v1),
    }
    return TinyCheckpoint(
        config=config, vocabulary=vocabulary, tokenizer_config={"model_max_length": TINY_CONTEXT_TOKENS}
    )


_nt = partial(
    ModelSpec,
    embedder="nucleotide_transformer:NucleotideTransformerEmbedder",
    tokenization="6-mers, single nucleotides at the end and around N",
    verified="golden",
    license="CC-BY-NC-SA-4.0",  # model card of each checkpoint
    paper="https://doi.org/10.1038/s41592-024-02523-z",
)
_v1 = partial(_nt, family="Nucleotide Transformer", context_tokens=_V1_TOKENS, tiny=partial(_tiny, 1))
_v2 = partial(_nt, family="Nucleotide Transformer v2", context_tokens=_V2_TOKENS, tiny=partial(_tiny, 2))

# Keys of the first three: BEND conf/embedding/embed.yaml. Revisions: commits of the main branches on the Hub. Widths:
# config.json of each. n_parameters: the loaded network with its language-model head, without unused weights.
MODELS: Final = (
    _v1(
        key="nt_transformer_ms",
        checkpoint="InstaDeepAI/nucleotide-transformer-2.5b-multi-species",
        revision="00b454cc2d19a03efc6040ff4238e28d876c310d",
        width=2560,
        n_parameters=2_547_801_226,
        training_data=_SPECIES,
        trained_on_human_genome=True,
    ),
    _v1(
        key="nt_transformer_human_ref",
        checkpoint="InstaDeepAI/nucleotide-transformer-500m-human-ref",
        revision="f6c12b1b79fa6330349ca04ad0a9531b29fd515b",
        width=1280,
        n_parameters=485_699_306,
        training_data=_HUMAN,
        trained_on_human_genome=True,
    ),
    _v1(
        key="nt_transformer_1000g",
        checkpoint="InstaDeepAI/nucleotide-transformer-2.5b-1000g",
        revision="1296232db8cefd9d33bf301f8f9c9e58e4869f8b",
        width=2560,
        n_parameters=2_547_801_226,
        training_data=_1000G,
        trained_on_human_genome=True,
    ),
    _v1(
        key="nt_transformer_500m_1000g",
        checkpoint="InstaDeepAI/nucleotide-transformer-500m-1000g",
        revision="805bd32d00133ed3c474b51d47e493f4d6479009",
        width=1280,
        n_parameters=485_699_306,
        training_data=_1000G,
        trained_on_human_genome=True,
    ),
    _v2(
        key="nt_transformer_v2_50m",
        checkpoint="InstaDeepAI/nucleotide-transformer-v2-50m-multi-species",
        revision="81b29e5786726d891dbf929404ef20adca5b36f1",
        width=512,
        n_parameters=54_855_179,
        training_data=_SPECIES,
        trained_on_human_genome=True,
    ),
    _v2(
        key="nt_transformer_v2_100m",
        checkpoint="InstaDeepAI/nucleotide-transformer-v2-100m-multi-species",
        revision="f34324c6fde36a4f635f0f1f06cac5d25acd6798",
        width=512,
        n_parameters=96_839_179,
        training_data=_SPECIES,
        trained_on_human_genome=True,
    ),
    _v2(
        key="nt_transformer_v2_250m",
        checkpoint="InstaDeepAI/nucleotide-transformer-v2-250m-multi-species",
        revision="7224bf2dba525ad0a8f2aacbecfd6bcdd329bffe",
        width=768,
        n_parameters=233_545_995,
        training_data=_SPECIES,
        trained_on_human_genome=True,
    ),
    _v2(
        key="nt_transformer_v2_500m",
        checkpoint="InstaDeepAI/nucleotide-transformer-v2-500m-multi-species",
        revision="f1fd7a1df5b19d31b88f11db1ce87caeb1ea4d2a",
        width=1024,
        n_parameters=496_245_771,
        training_data=_SPECIES,
        trained_on_human_genome=True,
    ),
)

# A buffer that older releases of transformers stored, and ESM's unused table of absolute positions in rotary models.
# The pooler is that of a checkpoint saved as EsmModel.
_ESM_UNUSED: Final = ("esm.embeddings.position_ids", "esm.pooler.*")
_ROTARY_UNUSED: Final = (
    "esm.embeddings.position_embeddings.weight",
    "esm.encoder.layer.*.attention.self.rotary_embeddings.inv_freq",
)
_BASE_PARTS: Final = ("embeddings.", "encoder.", "pooler.", "contact_head.", "rotary_embeddings.")
_ROTARY_KEY: Final = "esm.rotary_embeddings.inv_freq"


class NucleotideTransformerEmbedder(NetworkEmbedder):
    """The Nucleotide Transformer, either version; the module describes the protocols."""

    def _load(self) -> None:
        self._vocabulary = KmerVocabulary.read(self.folder)
        self.pad_id = self._vocabulary.pad
        fields = read_json(self.folder / "config.json")
        # A copy of v2 that transformers saved has the model_type 'esm', too.
        if "add_bias_fnn" in fields or fields.get("model_type") == "nucleotide_transformer_v2":
            config = self._load_v2(fields)
        elif fields.get("model_type") == "esm":
            config = self._load_esm(fields)
        else:
            raise ModelError(
                f"{self.folder / 'config.json'} is not of a Nucleotide Transformer: model_type is "
                f"{fields.get('model_type')!r}; expected 'esm', or for v2 the field add_bias_fnn"
            )
        # ESM counts positions from pad_token_id + 1; for v2 the same rule gives the published context.
        self._context_tokens: int = config.max_position_embeddings - config.pad_token_id - 1
        self._n_vocabulary: int = config.vocab_size
        if self._vocabulary.size > self._n_vocabulary:
            raise ModelError(
                f"{self.folder} has token ids up to {self._vocabulary.size - 1} in vocab.txt, but vocab_size "
                f"{self._n_vocabulary} in config.json; the files do not belong together"
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
        nucleotides = Nucleotides.of(sequences)
        cls = (self._vocabulary.cls,)
        if self.protocol == "bend-hf-1" or self.overlap_tokens:
            stream = self._vocabulary.stream(nucleotides, join_unknown=self.protocol == "bend-2024")
            return assemble(stream, self._window(self._context_tokens, prefix=cls))
        sections = cut_nucleotides(nucleotides, (self._context_tokens - 1) * self._vocabulary.k)
        stream = self._vocabulary.stream(sections.nucleotides, join_unknown=True)
        window = self._window(self._context_tokens, prefix=cls, cut="mid-sequence")
        return merge_sections(assemble(stream, window), sections.section_starts)

    def _loss_tokens(self) -> range:
        """Return the ids of k-mers and nucleotides, without special tokens, as BEND computes the loss."""
        return range(self._vocabulary.first_kmer, self._n_vocabulary)


def _with_prefix(key: str) -> str:
    """Add the prefix to a key of a file that was saved without the head."""
    return f"esm.{key}" if key.startswith(_BASE_PARTS) else key


def _esm_key(key: str) -> str:
    """Rename a key of a file to the one that transformers 5 uses in memory.

    transformers 4 stored the rotary frequencies in each layer.
    """
    key = _with_prefix(key)
    if key == "esm.encoder.layer.0.attention.self.rotary_embeddings.inv_freq":
        return _ROTARY_KEY
    return norm_key(key)
