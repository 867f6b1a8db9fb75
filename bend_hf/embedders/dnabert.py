"""DNABERT: BERT over overlapping k-mers, one model for each k from 3 to 6.

    embedder = DNABertEmbedder("path/to/DNABERT6", kmer=6)
    embeddings = embedder("ACGTACGTAC", upsample_embeddings=True)     # (10, 768)

The embedding of a k-mer stands for the nucleotide in its middle. Those of the first and the last k-mer also stand for
the nucleotides in front and behind. A k-mer with a nucleotide other than A, C, G or T is ``[UNK]``, and so is a whole
sequence shorter than k.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._alignment import Tokenized, TokenMap, TokenStream, assemble
from bend_hf.embedders._bert import TINY_BERT, BertEmbedder
from bend_hf.embedders._bpe import TINY_SPECIALS
from bend_hf.embedders._checkpoint_files import read_vocabulary
from bend_hf.embedders._spec import ModelSpec, TinyCheckpoint
from bend_hf.embedders._tokens import Nucleotides, kmer_codes
from bend_hf.embedders._windows import starts_of
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from bend_hf.embedders._spec import EmbedderOptions

_ALPHABET: Final = "ACGT"

# Revisions: commits on the model pages with LICENSE, vocabulary and weights. DNA_bert_3: none was found.
_REVISIONS: Final = {
    3: None,
    4: "69ad5f186c3f62fb45f1c2cca25baf7a0e48e546",
    5: "1cb665ccb11eb9076f82937957e3990d60694650",
    6: "55e0c0eb7b734c8b9b77bc083bf89eb6fbda1341",
}
# Encoder without pooler and tied language-model head, counted from the published configurations.
_N_PARAMETERS: Final = {3: 86_095_941, 4: 86_243_589, 5: 86_834_181, 6: 89_196_549}


def _tiny(k: int) -> TinyCheckpoint:
    vocabulary = [*TINY_SPECIALS, *("".join(kmer) for kmer in product("ATCG", repeat=k))]
    config = {**TINY_BERT, "model_type": "bert", "vocab_size": len(vocabulary), "pad_token_id": 0}
    return TinyCheckpoint(config=config, vocabulary=vocabulary)


MODELS: Final = tuple(
    ModelSpec(
        key=f"dnabert{k}",
        embedder="dnabert:DNABertEmbedder",
        family="DNABERT",
        checkpoint=f"zhihan1996/DNA_bert_{k}",
        revision=revision,
        width=768,
        n_parameters=_N_PARAMETERS[k],
        context_tokens=512,
        tokenization=f"overlapping {k}-mers",
        training_data="human genome, GRCh38.p13",
        trained_on_human_genome=True,
        license="Apache-2.0",
        paper="https://doi.org/10.1093/bioinformatics/btab083",
        options={"kmer": k},
        verified="golden",
        tiny=partial(_tiny, k),
    )
    for k, revision in _REVISIONS.items()
)


@dataclass(frozen=True, kw_only=True)
class KmerVocabulary:
    """A vocabulary of k-mers as a lookup table.

    Attributes:
        k: Length of the k-mers.
        ids: Token id of each k-mer by its number in base 4 (A C G T), shape (4 ** k,).
        special: Ids of CLS, SEP, PAD and UNK by their text.
        size: Number of tokens.
    """

    k: int
    ids: NDArray[np.int32]
    special: dict[str, int]
    size: int

    @classmethod
    def read(cls, folder: Path) -> KmerVocabulary:
        """Read the ``vocab.txt`` or ``tokenizer.json`` of a folder.

        Raises:
            ModelError: The files are missing, have k-mers of several lengths, or lack a special token.
        """
        lines = read_vocabulary(folder)
        numbers = {token: number for number, token in enumerate(lines)}
        kmers = [token for token in lines if token and set(token) <= set(_ALPHABET)]
        lengths = {len(kmer) for kmer in kmers}
        missing = [token for token in ("[CLS]", "[SEP]", "[PAD]", "[UNK]") if token not in numbers]
        if len(lengths) != 1 or missing:
            raise ModelError(
                f"{folder} does not have a vocabulary of k-mers: it has k-mers of the lengths {sorted(lengths)}, "
                f"and lacks {', '.join(missing) or 'no special token'}; expected one length and CLS, SEP, PAD, UNK"
            )
        k = lengths.pop()
        ids = np.full(len(_ALPHABET) ** k, numbers["[UNK]"], dtype=np.int32)
        codes = kmer_codes(Nucleotides.of(kmers), k, _ALPHABET)[::k]
        ids[codes] = [numbers[kmer] for kmer in kmers]
        special = {token: number for token, number in numbers.items() if token.startswith("[")}
        return cls(k=k, ids=ids, special=special, size=len(lines))

    def stream(self, nucleotides: Nucleotides) -> TokenStream:
        """Tokenize into the k-mers that start at each nucleotide; a sequence shorter than k is one ``[UNK]``."""
        n_kmers = np.maximum(nucleotides.lengths_bp - self.k + 1, 1)
        starts = nucleotides.remaining_bp() >= self.k
        starts[nucleotides.starts[:-1][nucleotides.lengths_bp < self.k]] = True
        codes = kmer_codes(nucleotides, self.k, _ALPHABET)[starts]
        ids = np.where(codes >= 0, self.ids[codes], np.int32(self.special["[UNK]"]))
        return TokenStream(ids=ids, token_bp=np.ones(len(ids), dtype=np.int64), starts=starts_of(n_kmers))


def kmer_token_map(n_kmers: NDArray[np.int64], lengths_bp: NDArray[np.int64], *, as_bend: bool) -> TokenMap:
    """Find the k-mer that gives the embedding of each nucleotide.

    A sequence has ``k - 1`` more nucleotides than k-mers: half of them (rounded down) in front, the rest behind.

    Args:
        n_kmers: Number of k-mers of each sequence, shape (S,).
        lengths_bp: Nucleotides of each sequence, shape (S,).
        as_bend: Repeat the first embedding in front only once, and the other copies behind the embedding of the last
            k-mer. BEND does so for k = 5 and 6, where two nucleotides are in front.

    Returns:
        The embeddings in the order of the output. For k = 6 and 12 nucleotides these are the k-mers
        1 1 1 2 3 4 5 6 7 7 7 7, or as in BEND 1 1 2 3 4 5 6 7 1 7 7 7.
    """
    starts = starts_of(n_kmers)
    n_extra = lengths_bp - n_kmers
    n_front, n_behind = n_extra // 2, n_extra - n_extra // 2
    first, last = starts[:-1], starts[1:] - 1
    bp = np.ones(starts[-1], dtype=np.int64)
    late = (n_front > 1) & (n_kmers > 1) if as_bend else np.zeros(len(n_kmers), dtype=np.bool_)
    bp[first] += np.where(late, 1, n_front)
    bp[last[~late]] += n_behind[~late]
    if not late.any():
        return TokenMap(token=np.arange(starts[-1]), bp=bp, starts=starts)
    where = np.repeat(starts[1:][late], 2)
    token = np.insert(np.arange(starts[-1]), where, np.stack([first[late], last[late]], axis=1).ravel())
    bp = np.insert(bp, where, np.stack([n_front[late] - 1, n_behind[late]], axis=1).ravel())
    return TokenMap(token=token, bp=bp, starts=starts_of(n_kmers + 2 * late))


class DNABertEmbedder(BertEmbedder):
    """DNABERT, k = 3 to 6.

    ``bend-2024`` adds CLS and SEP once per sequence and cuts it every 512 tokens. For k = 5 and 6 it puts a copy of
    the first embedding near the end. ``bend-hf-1`` gives each chunk its own CLS and SEP, and repeats the first
    embedding in front. In both, a sequence shorter than k is one ``[UNK]`` that stands for all its nucleotides.

    Args:
        checkpoint: Folder with ``config.json``, a vocabulary and weights, Hub id, or key; None: the key of ``kmer``.
        kmer: Length of the k-mers, checked against the vocabulary; None: that of the vocabulary.
        options: The keywords of every embedder, see ``Embedder``.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        kmer: int | None = None,
        **options: Unpack[EmbedderOptions],
    ) -> None:
        self.kmer = kmer
        if checkpoint is None and options.get("spec") is None and kmer in _REVISIONS:
            checkpoint = f"dnabert{kmer}"
        super().__init__(checkpoint, **options)

    def _load(self) -> None:
        self._vocabulary = KmerVocabulary.read(self.folder)
        if self.kmer not in (None, self._vocabulary.k):
            raise ModelError(
                f"kmer={self.kmer} does not match the vocabulary of {self.folder}, which has "
                f"{self._vocabulary.k}-mers; use kmer={self._vocabulary.k} or another checkpoint"
            )
        self.kmer = self._vocabulary.k
        self.pad_id = self._vocabulary.special["[PAD]"]
        self._build_plain_bert(self._vocabulary.size)

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        nucleotides = Nucleotides.of(sequences)
        stream = self._vocabulary.stream(nucleotides)
        as_bend = self.protocol == "bend-2024"
        special = self._vocabulary.special
        window = self._window(
            self.context_tokens,
            prefix=(special["[CLS]"],),
            suffix=(special["[SEP]"],),
            cut="mid-sequence" if as_bend else "each-chunk",
        )
        token_map = kmer_token_map(np.diff(stream.starts), nucleotides.lengths_bp, as_bend=as_bend)
        return assemble(stream, window, token_map=token_map)
