"""GENERator: a causal Llama over consecutive 6-mers, versions 1 and 2.

    embedder = load_embedder("generator-1.2b")
    embeddings = embedder("ACGTACGTN", upsample_embeddings=True)          # (9, width)

A sequence is cut into 6-mers from its end, and A is added in front if its length is not a multiple of six, as the
authors do when no nucleotide may be lost. The first token then stands for the nucleotides that it has of the sequence.
``<s>`` stands in front of each chunk. A 6-mer with a nucleotide other than A, C, G and T is one ``<oov>``. Both
protocols give the same embeddings. The network is the Llama of transformers. The published tokenizer is remote code;
here its ``vocab.txt`` is read.

Two tokens, of which the first has four nucleotides of the sequence:

>>> vocabulary = SixmerVocabulary(kmer_ids=np.arange(4096, dtype=np.int32) + 32, k=6, unknown=0, bos=1, pad=3)
>>> stream = vocabulary.stream(["ATACGTACGG"])
>>> stream.ids.tolist(), stream.token_bp.tolist()
([50, 3407], [4, 6])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._alignment import Tokenized, TokenStream, assemble
from bend_hf.embedders._checkpoint_files import read_vocabulary
from bend_hf.embedders._spec import Direction, ModelSpec, TinyCheckpoint
from bend_hf.embedders._stock import StockEmbedder, causal_sizes
from bend_hf.embedders._tokens import Nucleotides, kmer_codes
from bend_hf.embedders._windows import ramp, starts_of
from bend_hf.errors import ModelError

ALPHABET: Final = "ATCG"  # order of the 6-mers in the published vocab.txt
UNKNOWN, BOS, PAD = "<oov>", "<s>", "<pad>"
# Of the published vocab.txt, in front of the 6-mers; the tokens from the 12th on may have another order in a version.
_CONTROLS: Final = (UNKNOWN, BOS, "</s>", PAD, "<mask>", *(f"<control{number}>" for number in range(27)))


@dataclass(frozen=True, kw_only=True)
class SixmerVocabulary:
    """A vocabulary of k-mers without single nucleotides.

    Attributes:
        kmer_ids: Token id of each k-mer by its number in base 4 (``ALPHABET``), shape (4 ** k,).
        k: Length of the k-mers, 6 in all published checkpoints.
        unknown: Id of ``<oov>``.
        bos: Id of ``<s>``.
        pad: Id of ``<pad>``.
    """

    kmer_ids: NDArray[np.int32]
    k: int
    unknown: int
    bos: int
    pad: int

    @classmethod
    def read(cls, folder: Path) -> SixmerVocabulary:
        """Read the vocabulary of a folder.

        Raises:
            ModelError: It lacks a special token, or does not have all k-mers of one length.
        """
        id_of = {token: index for index, token in enumerate(read_vocabulary(folder))}
        missing = [token for token in (UNKNOWN, BOS, PAD) if token not in id_of]
        known = [token for token in id_of if token and set(token) <= set(ALPHABET)]
        lengths = {len(token) for token in known}
        k = max(lengths, default=0)
        if missing or len(lengths) != 1 or len(known) != len(ALPHABET) ** k:
            raise ModelError(
                f"the vocabulary of {folder} is not that of a GENERator: it lacks {', '.join(missing) or 'k-mers'}, "
                f"and has {len(known)} tokens of nucleotides; expected {UNKNOWN}, {BOS}, {PAD} and all 4096 6-mers"
            )
        kmers = ("".join(kmer) for kmer in product(ALPHABET, repeat=k))
        kmer_ids = np.fromiter((id_of[kmer] for kmer in kmers), dtype=np.int32, count=len(known))
        return cls(kmer_ids=kmer_ids, k=k, unknown=id_of[UNKNOWN], bos=id_of[BOS], pad=id_of[PAD])

    def stream(self, sequences: Sequence[str]) -> TokenStream:
        """Tokenize S upper-case sequences, without special tokens."""
        k = self.k
        padded = Nucleotides.of(["A" * (-len(one) % k) + one for one in sequences])
        n_tokens = padded.lengths_bp // k
        places = np.repeat(padded.starts[:-1], n_tokens) + k * ramp(n_tokens)
        codes = kmer_codes(padded, k, ALPHABET)[places]
        starts = starts_of(n_tokens)
        token_bp = np.full(len(codes), k, dtype=np.int64)
        token_bp[starts[:-1]] -= [-len(one) % k for one in sequences]
        ids = np.where(codes >= 0, self.kmer_ids[np.maximum(codes, 0)], self.unknown)
        return TokenStream(ids=ids, token_bp=token_bp, starts=starts)


def _tiny() -> TinyCheckpoint:
    vocabulary = [*_CONTROLS, *("".join(kmer) for kmer in product(ALPHABET, repeat=6))]
    config = {"model_type": "llama", **causal_sizes(vocabulary_size=len(vocabulary)), "attention_bias": False}
    return TinyCheckpoint(config=config, vocabulary=vocabulary, tokenizer_config={"k": 6})


# Addresses, license and training data: the authors' repository GenerTeam/GENERator and the paper. Sizes and context are
# those that third parties report of the published files. Version 2 is read with --checkpoint.
_generator = partial(
    ModelSpec,
    embedder="generator:GENERatorEmbedder",
    family="GENERator",
    context_tokens=16_384,
    tokenization="6-mers from the end of a sequence",
    direction="causal",
    training_data="genes of many species (eukaryotes of RefSeq), 386 billion nucleotides",
    trained_on_human_genome=True,
    license="MIT",
    paper="https://arxiv.org/abs/2502.07272",
    verified="golden",
    tiny=_tiny,
)

MODELS: Final = (
    _generator(key="generator-1.2b", checkpoint="GenerTeam/GENERator-eukaryote-1.2b-base", width=2048),
    _generator(key="generator-3b", checkpoint="GenerTeam/GENERator-eukaryote-3b-base", width=3072),
)


class GENERatorEmbedder(StockEmbedder):
    """GENERator, version 1 or 2, and its fine-tuned copies."""

    architecture = "LlamaForCausalLM"
    direction: Direction = "causal"

    def _read_tokens(self) -> int:
        self._vocabulary = SixmerVocabulary.read(self.folder)
        self.pad_id = self._vocabulary.pad
        return max(int(self._vocabulary.kmer_ids.max()), self._vocabulary.unknown, self._vocabulary.bos)

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        window = self._window(self.context_tokens, prefix=(self._vocabulary.bos,))
        return assemble(self._vocabulary.stream(sequences), window)

    def _loss_tokens(self) -> list[int]:
        """Return the ids of the 6-mers: neither ``<oov>`` nor a control token is a nucleotide."""
        ids: list[int] = self._vocabulary.kmer_ids.tolist()
        return ids
