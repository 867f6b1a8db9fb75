"""From letters to token streams: the tokenizations that families share, without a loop over letters.

Each gives a ``TokenStream`` for ``_alignment.assemble``:

>>> letters = Nucleotides.of(["ACG", "T"])
>>> kmer_codes(letters, 2, "ACGT").tolist()
[1, 6, -1, -1]

Sequences as users give them: what is accepted, and the other strand.

>>> reverse_complement("ACGNr")
'yNCGT'
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._alignment import TokenStream
from bend_hf.embedders._windows import ramp, starts_of
from bend_hf.errors import AlignmentError, InputError
from bend_hf.types import Bools, Bytes, Ints


@dataclass(frozen=True, kw_only=True)
class Nucleotides:
    """The letters of S sequences, one after the other.

    Attributes:
        codes: ASCII codes, shape (L,).
        starts: Where each sequence starts, shape (S + 1,).
    """

    codes: Bytes
    starts: Ints

    @classmethod
    def of(cls, sequences: Sequence[str]) -> Nucleotides:
        """Concatenate."""
        codes = np.frombuffer("".join(sequences).encode("ascii"), dtype=np.uint8)
        return cls(codes=codes, starts=starts_of([len(sequence) for sequence in sequences]))

    @property
    def lengths_bp(self) -> Ints:
        """Letters of each sequence, shape (S,)."""
        return np.diff(self.starts)

    def remaining_bp(self) -> Ints:
        """For each letter how many its sequence has from there on, itself included, shape (L,)."""
        ends: Ints = np.repeat(self.starts[1:], self.lengths_bp)
        return ends - np.arange(len(self.codes))


@dataclass(frozen=True, kw_only=True)
class Sections:
    """Sequences cut into sections of letters.

    Attributes:
        letters: The sections, as if each were a sequence.
        section_starts: Where each sequence's sections start, shape (S + 1,), for ``_alignment.merge_sections``.
    """

    letters: Nucleotides
    section_starts: Ints


def cut_nucleotides(letters: Nucleotides, section_bp: int) -> Sections:
    """Cut each sequence every ``section_bp`` letters; the last chunk may be shorter."""
    n_sections = np.maximum(-(-letters.lengths_bp // section_bp), 1)
    first = np.repeat(letters.starts[:-1], n_sections) + ramp(n_sections) * section_bp
    starts = np.append(first, letters.starts[-1])
    return Sections(letters=Nucleotides(codes=letters.codes, starts=starts), section_starts=starts_of(n_sections))


def nucleotide_table(ids: dict[str, int], unknown: int) -> NDArray[np.int32]:
    """A lookup table over all 256 byte values.

    Args:
        ids: Token id of each letter that the model knows; case matters.
        unknown: Token id of every other letter.
    """
    table = np.full(256, unknown, dtype=np.int32)
    for letter, token in ids.items():
        table[ord(letter)] = token
    return table


def single_nucleotides(letters: Nucleotides, table: NDArray[np.int32]) -> TokenStream:
    """One token a letter, by a table of ``nucleotide_table``."""
    return TokenStream(
        ids=table[letters.codes], token_bp=np.ones(len(letters.codes), dtype=np.int64), starts=letters.starts
    )


def kmer_codes(letters: Nucleotides, k: int, alphabet: str) -> Ints:
    """The number of the k-mer that starts at each letter.

    Args:
        letters: L letters in all.
        k: Length of the words.
        alphabet: The four letters in the order in which the vocabulary counts, most significant letter first.

    Returns:
        Codes below ``4 ** k``, shape (L,); -1 where the k-mer holds another letter or runs past its sequence.
    """
    digit = nucleotide_table({letter: value for value, letter in enumerate(alphabet)}, -1)[letters.codes]
    n_starts = max(len(digit) - k + 1, 0)
    codes = np.zeros(n_starts, dtype=np.int64)
    clean = letters.remaining_bp()[:n_starts] >= k
    for offset in range(k):
        here = digit[offset : offset + n_starts]
        codes = codes * len(alphabet) + here
        clean &= here >= 0
    whole = np.full(len(digit), -1, dtype=np.int64)
    whole[:n_starts] = np.where(clean, codes, -1)
    return whole


def greedy_kmers(
    letters: Nucleotides, *, k: int, alphabet: str, kmer_ids: NDArray[np.int32], nucleotide_ids: NDArray[np.int32]
) -> TokenStream:
    """Words of k from left to right, single letters at the rest of a run and for any other letter.

    After a letter outside the alphabet the frame starts anew, as in the Nucleotide Transformer's tokenizer.

    Args:
        letters: Of S sequences.
        k: Length of the words.
        alphabet: The letters words are made of, in the order in which ``kmer_ids`` counts.
        kmer_ids: Token id of each word, shape (4 ** k,).
        nucleotide_ids: Token id of each byte value, shape (256,).
    """
    n_letters = len(letters.codes)
    index = np.arange(n_letters)
    clean = nucleotide_table(dict.fromkeys(alphabet, 1), 0)[letters.codes].astype(np.bool_)
    opens = np.zeros(n_letters, dtype=np.bool_)
    opens[letters.starts[:-1]] = True  # each sequence
    opens |= ~clean  # each other letter is a run of its own ...
    opens[1:] |= ~clean[:-1]  # ... and the letter behind it starts one
    run_start = np.maximum.accumulate(np.where(opens, index, 0))
    run_end = np.append(np.flatnonzero(opens), n_letters)[np.cumsum(opens)]
    frame = (index - run_start) // k * k + run_start
    in_word = clean & (frame + k <= run_end)
    keep = ~in_word | (frame == index)
    codes = kmer_codes(letters, k, alphabet)
    word = in_word[keep]
    ids = np.where(word, kmer_ids[np.where(word, codes[keep], 0)], nucleotide_ids[letters.codes[keep]])
    n_tokens = np.concatenate([[0], np.cumsum(keep)])[letters.starts]
    return TokenStream(ids=ids, token_bp=np.where(word, k, 1).astype(np.int64), starts=n_tokens)


def stream_from_ids(ids: Sequence[Sequence[int]], bp_of_id: Ints, *, lengths_bp: Ints, name: str) -> TokenStream:
    """Tokens whose texts lie end to end, so that a table of text lengths aligns them.

    Args:
        ids: Token ids of each sequence, without specials.
        bp_of_id: Nucleotides of each token of the vocabulary, shape (V,); 1 for the unknown token.
        lengths_bp: Nucleotides of each sequence, to check, shape (S,).
        name: Whose tokens, for the message.

    Raises:
        AlignmentError: The texts are longer or shorter than their sequence.
    """
    starts = starts_of([len(one) for one in ids])
    flat = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=int(starts[-1]))
    token_bp = bp_of_id[flat]
    covered = np.diff(np.concatenate([[0], np.cumsum(token_bp)])[starts])
    wrong: Bools = covered != lengths_bp
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise AlignmentError(
            f"the tokens of {name} have {covered[first]} letters for sequence {first}, which has "
            f"{lengths_bp[first]}; align them by offsets instead (stream_from_offsets)"
        )
    return TokenStream(ids=flat, token_bp=token_bp, starts=starts)


def stream_from_offsets(
    ids: Sequence[Sequence[int]],
    offsets: Sequence[Iterable[tuple[int, int]]],
    *,
    lengths_bp: Ints,
    name: str,
) -> TokenStream:
    """Tokens with the character offsets of a fast tokenizer.

    A token stands for the letters from its own start to the next token's; letters in front of the first token
    count with the first. So a letter that the tokenizer drops still has a row.

    Args:
        ids: Token ids of each sequence, without specials.
        offsets: (start, end) of each token in its sequence, end not included.
        lengths_bp: Nucleotides of each sequence, shape (S,).
        name: Whose tokens, for the message.

    Raises:
        AlignmentError: Two tokens share a letter, or one ends past the sequence.
    """
    starts = starts_of([len(one) for one in ids])
    n_tokens = int(starts[-1])
    flat = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=n_tokens)
    pairs = chain.from_iterable(chain.from_iterable(offsets))
    spans = np.fromiter(pairs, dtype=np.int64, count=2 * n_tokens).reshape(-1, 2)
    counts = np.diff(starts)
    begin = spans[:, 0].copy()
    begin[starts[:-1][counts > 0]] = 0
    length_of = np.repeat(lengths_bp, counts)
    last = np.zeros(n_tokens, dtype=np.bool_)
    last[starts[1:][counts > 0] - 1] = True
    following = np.where(last, length_of, np.append(begin[1:], 0))
    token_bp = following - begin
    wrong = (token_bp < 1) | (spans[:, 1] > following)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise AlignmentError(
            f"token {first - int(starts[np.searchsorted(starts, first, side='right') - 1])} of a sequence by "
            f"{name} has offsets {tuple(int(x) for x in spans[first])} and the next starts at "
            f"{int(following[first])}; expected tokens that follow each other, each with a letter of its own"
        )
    return TokenStream(ids=flat, token_bp=token_bp, starts=starts)


# IUPAC nucleotide codes and their complements (Cornish-Bowden 1985, Nucleic Acids Research 13:3021).
_COMPLEMENT: Final = str.maketrans("ACGTUNRYSWKMBDHVacgtunryswkmbdhv", "TGCAANYRSWMKVHDBtgcaanyrswmkvhdb")


def reverse_complement(sequence: str) -> str:
    """The other strand, IUPAC letters and case included."""
    return sequence.translate(_COMPLEMENT)[::-1]


def readable(sequences: Iterable[str]) -> Iterator[str]:
    """Sequences one after the other, each checked.

    Raises:
        InputError: One is empty, no string, or holds anything but letters.
    """
    if isinstance(sequences, str):
        raise InputError("embed() takes a list of sequences, not one; call the embedder itself on a single one")
    for index, sequence in enumerate(sequences):
        if not isinstance(sequence, str):
            raise InputError(f"sequence {index} is a {type(sequence).__name__}; expected a string of letters")
        if not (sequence.isascii() and sequence.isalpha()):
            odd = next((letter for letter in sequence if not (letter.isascii() and letter.isalpha())), "")
            raise InputError(
                f"sequence {index} holds {odd!r}; expected letters only (ACGTN, IUPAC, either case)"
                if odd
                else f"sequence {index} is empty; expected one letter or more"
            )
        yield sequence
