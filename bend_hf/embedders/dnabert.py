"""DNABERT: BERT over overlapping k-mers, one model for each k from 3 to 6.

    embedder = DNABertEmbedder("path/to/DNABERT6", kmer=6)
    rows = embedder("ACGTACGTAC", upsample_embeddings=True)      # (10, 768)

A k-mer stands for the nucleotide in its middle; the first and the last one also for those in front and behind.
K-mers with a letter other than A C G T, and a sequence shorter than k as a whole, are ``[UNK]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._alignment import Tokenized, TokenMap, TokenStream, assemble
from bend_hf.embedders._bert import BertEmbedder
from bend_hf.embedders._spec import ModelSpec
from bend_hf.embedders._tokens import Nucleotides, kmer_codes
from bend_hf.embedders._windows import starts_of
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from bend_hf.embedders._spec import EmbedderOptions

_ALPHABET: Final = "ACGT"

# Revisions: commits named on the model pages that list LICENSE, vocabulary and weights. DNA_bert_3: none was found.
_REVISIONS: Final = {
    3: None,
    4: "69ad5f186c3f62fb45f1c2cca25baf7a0e48e546",
    5: "1cb665ccb11eb9076f82937957e3990d60694650",
    6: "55e0c0eb7b734c8b9b77bc083bf89eb6fbda1341",
}
# Encoder without pooler and tied language-model head, counted from the published configurations.
_N_PARAMETERS: Final = {3: 86_095_941, 4: 86_243_589, 5: 86_834_181, 6: 89_196_549}

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
        license="Apache-2.0",
        paper="https://doi.org/10.1093/bioinformatics/btab083",
        options={"kmer": k},
    )
    for k, revision in _REVISIONS.items()
)


@dataclass(frozen=True, kw_only=True)
class KmerVocabulary:
    """A ``vocab.txt`` of k-mers as a lookup table.

    Attributes:
        k: Length of its words.
        ids: Token id of each k-mer by its number in base 4 (A C G T), shape (4 ** k,).
        special: Ids of CLS, SEP, PAD and UNK by their text.
        size: Lines of the file.
    """

    k: int
    ids: NDArray[np.int32]
    special: dict[str, int]
    size: int

    @classmethod
    def read(cls, path: Path) -> KmerVocabulary:
        """Read a ``vocab.txt``.

        Raises:
            ModelError: It is missing, holds words of several lengths, or lacks a special token.
        """
        if not path.is_file():
            raise ModelError(f"{path.parent} has no vocab.txt; expected the k-mers of the published DNABERT")
        lines = path.read_text(encoding="utf-8").split()
        numbers = {token: number for number, token in enumerate(lines)}
        words = [word for word in lines if set(word) <= set(_ALPHABET)]
        lengths = {len(word) for word in words}
        lacking = [token for token in ("[CLS]", "[SEP]", "[PAD]", "[UNK]") if token not in numbers]
        if len(lengths) != 1 or lacking:
            raise ModelError(
                f"{path} is no vocabulary of k-mers: words of {sorted(lengths)} letters, without "
                f"{', '.join(lacking) or 'nothing'}; expected one length and CLS, SEP, PAD, UNK"
            )
        k = lengths.pop()
        ids = np.full(len(_ALPHABET) ** k, numbers["[UNK]"], dtype=np.int32)
        codes = kmer_codes(Nucleotides.of(words), k, _ALPHABET)[::k]
        ids[codes] = [numbers[word] for word in words]
        special = {token: number for token, number in numbers.items() if token.startswith("[")}
        return cls(k=k, ids=ids, special=special, size=len(lines))

    def stream(self, letters: Nucleotides) -> TokenStream:
        """The k-mer that starts at each letter; one ``[UNK]`` for a sequence that has none."""
        n_kmers = np.maximum(letters.lengths_bp - self.k + 1, 1)
        starts = letters.remaining_bp() >= self.k
        starts[letters.starts[:-1][letters.lengths_bp < self.k]] = True
        codes = kmer_codes(letters, self.k, _ALPHABET)[starts]
        ids = np.where(codes >= 0, self.ids[codes], np.int32(self.special["[UNK]"]))
        return TokenStream(ids=ids, token_bp=np.ones(len(ids), dtype=np.int64), starts=starts_of(n_kmers))


def kmer_rows(n_kmers: NDArray[np.int64], lengths_bp: NDArray[np.int64], *, as_bend: bool) -> TokenMap:
    """Which k-mer gives the row of which nucleotide.

    A sequence has ``k - 1`` more letters than k-mers: the lower half of them in front, the rest behind.

    Args:
        n_kmers: Of each sequence, shape (S,).
        lengths_bp: Nucleotides of each sequence, shape (S,).
        as_bend: Only one of the letters in front has its row there. The first k-mer's other copies come behind
            the last k-mer's own row (BEND: k = 5 and 6, where two letters are in front).

    Returns:
        Rows in the order of the output: k = 6 over 12 letters gives 1 1 2 3 4 5 6 7 7 7 7 in k-mer numbers, or
        1 1 2 3 4 5 6 7 1 7 7 7 as BEND does.
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

    Protocols: ``bend-2024`` adds CLS and SEP once and cuts the tokens every 512, and puts a copy of the first
    vector near the end for k = 5 and 6; ``bend-hf-1`` gives each piece its own CLS and SEP and repeats the first
    vector in front. A sequence shorter than k is one ``[UNK]`` whose row stands for all its letters in both.

    Args:
        checkpoint: Folder with ``config.json``, ``vocab.txt`` and weights, Hub id, or key; None: the key of ``kmer``.
        kmer: Length of the words; checked against the vocabulary. None: as the vocabulary says.
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
        self._vocabulary = KmerVocabulary.read(self.folder / "vocab.txt")
        if self.kmer not in (None, self._vocabulary.k):
            raise ModelError(
                f"kmer={self.kmer} was asked for, but {self.folder}/vocab.txt holds {self._vocabulary.k}-mers; "
                f"give kmer={self._vocabulary.k} or another checkpoint"
            )
        self.kmer = self._vocabulary.k
        self.pad_id = self._vocabulary.special["[PAD]"]
        self._build_plain_bert(self._vocabulary.size)

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        letters = Nucleotides.of(sequences)
        stream = self._vocabulary.stream(letters)
        as_bend = self.protocol == "bend-2024"
        special = self._vocabulary.special
        window = self._window(
            self.context_tokens,
            prefix=(special["[CLS]"],),
            suffix=(special["[SEP]"],),
            cut="mid-sequence" if as_bend else "each-chunk",
        )
        rows = kmer_rows(np.diff(stream.starts), letters.lengths_bp, as_bend=as_bend)
        return assemble(stream, window, rows=rows)
