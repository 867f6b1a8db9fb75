"""The Nucleotide Transformer's vocabulary of 6-mers, as tables that a whole batch of letters is looked up in.

    vocabulary = KmerVocabulary.read(folder / "vocab.txt")
    stream = vocabulary.stream(Letters.of(["ACGTACNA"]), join_unknown=False)      # ACGTAC N A

>>> words = [*SPECIALS, "A", "T", "C", "G", "N"]
>>> KmerVocabulary.of(words).stream(Letters.of(["GAR"]), join_unknown=False).ids.tolist()
[7, 4, 0]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._alignment import TokenStream
from bend_hf.embedders._streams import Letters, greedy_kmers, letter_table
from bend_hf.errors import ModelError

ALPHABET: Final = "ATCG"  # vocab.txt of the published checkpoints counts its words in this order
SPECIALS: Final = ("<unk>", "<pad>", "<mask>", "<cls>")  # the same file; in front of its words, in v2 two more


@dataclass(frozen=True, kw_only=True)
class KmerVocabulary:
    """What a ``vocab.txt`` says.

    Attributes:
        k: Length of the words, 6 in all checkpoints of BEND.
        kmer_ids: Token id of each word, counted in ``ALPHABET``, shape (4 ** k,).
        letter_ids: Token id of each byte value as a single letter, shape (256,).
        unknown: Id of ``<unk>``.
        pad: Id of ``<pad>``.
        cls: Id of ``<cls>``.
    """

    k: int
    kmer_ids: NDArray[np.int32]
    letter_ids: NDArray[np.int32]
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
            letter_ids=letter_table({letter: id_of[letter] for letter in (*ALPHABET, "N")}, unknown),
            unknown=unknown,
            pad=pad,
            cls=cls_id,
        )

    @property
    def first_word(self) -> int:
        """Lowest id of a word; the special tokens that a sequence cannot hold have lower ones."""
        return int(min(self.kmer_ids.min(), self.letter_ids[ord("A")]))

    @property
    def size(self) -> int:
        """One more than the highest id that a sequence can hold."""
        return int(max(self.kmer_ids.max(), self.letter_ids.max())) + 1

    def stream(self, letters: Letters, *, join_unknown: bool) -> TokenStream:
        """Tokens of S sequences of upper-case letters, specials not included.

        Args:
            letters: The sequences.
            join_unknown: Make one ``<unk>`` of neighbouring letters other than A C G T N, as the published
                tokenizer does, instead of one for each.
        """
        words = greedy_kmers(letters, k=self.k, alphabet=ALPHABET, kmer_ids=self.kmer_ids, letter_ids=self.letter_ids)
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
