"""Tokenize nucleotides: the steps that several families share, vectorized over all sequences of a batch.

Input is a list of sequences, checked by ``checked_sequences``. ``Nucleotides`` holds them as one array; the functions
below turn it into a ``TokenStream`` for ``_alignment.assemble``:

- ``single_nucleotides``: one token per nucleotide;
- ``kmer_codes``: the k-mer that starts at each nucleotide, for overlapping k-mers;
- ``greedy_kmers``: consecutive k-mers, and single nucleotides where no k-mer fits;
- ``stream_from_ids`` and ``stream_from_offsets``: tokens of a tokenizer from elsewhere.

Numbers of the 2-mers AC and CG; a k-mer that would run past the end of its sequence is -1:

>>> kmer_codes(Nucleotides.of(["ACG", "T"]), 2, "ACGT").tolist()
[1, 6, -1, -1]
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
    """The nucleotides of S sequences, one sequence after the other.

    Attributes:
        codes: ASCII codes, shape (L,).
        starts: Where each sequence starts, shape (S + 1,).
    """

    codes: Bytes
    starts: Ints

    @classmethod
    def of(cls, sequences: Sequence[str]) -> Nucleotides:
        """Concatenate sequences."""
        codes = np.frombuffer("".join(sequences).encode("ascii"), dtype=np.uint8)
        return cls(codes=codes, starts=starts_of([len(sequence) for sequence in sequences]))

    @property
    def lengths_bp(self) -> Ints:
        """Length of each sequence, shape (S,)."""
        return np.diff(self.starts)

    def remaining_bp(self) -> Ints:
        """Count, for each nucleotide, the nucleotides from there to the end of its sequence, shape (L,)."""
        ends: Ints = np.repeat(self.starts[1:], self.lengths_bp)
        return ends - np.arange(len(self.codes))


@dataclass(frozen=True, kw_only=True)
class Sections:
    """Sequences cut into sections of nucleotides before they are tokenized, as BEND does for some models.

    Attributes:
        nucleotides: The sections, as if each were a sequence.
        section_starts: Where the sections of each sequence start, shape (S + 1,), for ``_alignment.merge_sections``.
    """

    nucleotides: Nucleotides
    section_starts: Ints


def cut_nucleotides(nucleotides: Nucleotides, section_bp: int) -> Sections:
    """Cut each sequence every ``section_bp`` nucleotides; its last section may be shorter."""
    n_sections = np.maximum(-(-nucleotides.lengths_bp // section_bp), 1)
    first = np.repeat(nucleotides.starts[:-1], n_sections) + ramp(n_sections) * section_bp
    starts = np.append(first, nucleotides.starts[-1])
    return Sections(
        nucleotides=Nucleotides(codes=nucleotides.codes, starts=starts), section_starts=starts_of(n_sections)
    )


def nucleotide_table(ids: dict[str, int], unknown: int) -> NDArray[np.int32]:
    """Make a lookup table from byte values to token ids, shape (256,).

    Args:
        ids: Token id of each nucleotide that the model knows, case-sensitive.
        unknown: Token id of every other byte.
    """
    table = np.full(256, unknown, dtype=np.int32)
    for nucleotide, token in ids.items():
        table[ord(nucleotide)] = token
    return table


def single_nucleotides(nucleotides: Nucleotides, table: NDArray[np.int32]) -> TokenStream:
    """Make one token per nucleotide, with a table from ``nucleotide_table``."""
    token_bp = np.ones(len(nucleotides.codes), dtype=np.int64)
    return TokenStream(ids=_looked_up(nucleotides.codes, table), token_bp=token_bp, starts=nucleotides.starts)


def _looked_up(codes: Bytes, table: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the number of each byte in a table, shape (L,); by bytes, which is faster, if the numbers are bytes."""
    if table.min() < 0 or table.max() > np.iinfo(np.uint8).max:
        return table[codes]
    return np.frombuffer(codes.tobytes().translate(table.astype(np.uint8).tobytes()), np.uint8).astype(np.int32)


def kmer_codes(nucleotides: Nucleotides, k: int, alphabet: str) -> Ints:
    """Number the k-mer that starts at each nucleotide.

    Args:
        nucleotides: L nucleotides in total.
        k: Length of a k-mer.
        alphabet: The nucleotides in the order in which the vocabulary counts, most significant nucleotide first.

    Returns:
        Numbers below ``len(alphabet) ** k``, shape (L,); -1 if the k-mer contains another nucleotide or runs past the
        end of its sequence.
    """
    digit = _digits(nucleotides, alphabet)
    n_starts = max(len(digit) - k + 1, 0)
    codes = np.zeros(n_starts, dtype=np.int64)
    for offset in range(k):
        codes *= len(alphabet)
        codes += digit[offset : offset + n_starts]
    whole = np.full(len(digit), -1, dtype=np.int64)
    whole[:n_starts] = codes
    for behind in range(1, k):  # the k-mers that would run past the end of their sequence
        place = nucleotides.starts[1:] - behind
        whole[place[place >= nucleotides.starts[:-1]]] = -1
    unknown = np.flatnonzero(digit == len(alphabet))
    for before in range(k):
        whole[np.maximum(unknown - before, 0)] = -1
    return whole


def _digits(nucleotides: Nucleotides, alphabet: str) -> NDArray[np.int32]:
    """Number nucleotides by their place in the alphabet; others get its length."""
    table = nucleotide_table({one: value for value, one in enumerate(alphabet)}, len(alphabet))
    return _looked_up(nucleotides.codes, table)


def greedy_kmers(
    nucleotides: Nucleotides,
    *,
    k: int,
    alphabet: str,
    kmer_ids: NDArray[np.int32],
    nucleotide_ids: NDArray[np.int32],
) -> TokenStream:
    """Tokenize into consecutive k-mers from left to right, and single nucleotides where no k-mer fits.

    A nucleotide outside the alphabet is a token of its own, and k-mers start again after it, as in the tokenizer of
    the Nucleotide Transformer.

    Args:
        nucleotides: S sequences.
        k: Length of a k-mer.
        alphabet: The nucleotides of k-mers, in the order in which ``kmer_ids`` counts.
        kmer_ids: Token id of each k-mer, shape (len(alphabet) ** k,).
        nucleotide_ids: Token id of each byte value as a single nucleotide, shape (256,).
    """
    n_bp = len(nucleotides.codes)
    digit = _digits(nucleotides, alphabet)
    known = digit < len(alphabet)
    if known.all():
        return _whole_kmers(nucleotides, digit, k=k, base=len(alphabet), of_kmer=kmer_ids, of_nucleotide=nucleotide_ids)
    index = np.arange(n_bp)
    opens = np.zeros(n_bp, dtype=np.bool_)  # a run of known nucleotides starts
    opens[nucleotides.starts[:-1]] = True  # at each sequence
    opens |= ~known  # each unknown nucleotide is a run of one ...
    opens[1:] |= ~known[:-1]  # ... and the nucleotide behind it starts a run
    run_start = np.maximum.accumulate(np.where(opens, index, 0))
    run_end = np.append(np.flatnonzero(opens), n_bp)[np.cumsum(opens)]
    frame = (index - run_start) // k * k + run_start
    in_kmer = known & (frame + k <= run_end)
    keep = ~in_kmer | (frame == index)
    codes = kmer_codes(nucleotides, k, alphabet)
    is_kmer = in_kmer[keep]
    ids = np.where(is_kmer, kmer_ids[np.where(is_kmer, codes[keep], 0)], nucleotide_ids[nucleotides.codes[keep]])
    n_tokens = np.concatenate([[0], np.cumsum(keep)])[nucleotides.starts]
    return TokenStream(ids=ids, token_bp=np.where(is_kmer, k, 1).astype(np.int64), starts=n_tokens)


def _whole_kmers(
    nucleotides: Nucleotides,
    digit: NDArray[np.int32],
    *,
    k: int,
    base: int,
    of_kmer: NDArray[np.int32],
    of_nucleotide: NDArray[np.int32],
) -> TokenStream:
    """Tokenize as ``greedy_kmers`` does if all nucleotides are known: k-mers, then what is left of each sequence."""
    n_kmers, n_left = np.divmod(nucleotides.lengths_bp, k)
    starts = starts_of(n_kmers + n_left)
    bp_before = np.repeat(nucleotides.starts[:-1], n_kmers) + k * ramp(n_kmers)
    codes = np.zeros(len(bp_before), dtype=np.int64)
    for offset in range(k):
        codes *= base
        codes += digit[bp_before + offset]
    within = ramp(n_left)
    left = np.repeat(starts[1:] - n_left, n_left) + within
    is_kmer = np.ones(starts[-1], dtype=np.bool_)
    is_kmer[left] = False
    ids = np.empty(len(is_kmer), dtype=np.int32)
    ids[is_kmer] = of_kmer[codes]
    ids[left] = of_nucleotide[nucleotides.codes[np.repeat(nucleotides.starts[1:] - n_left, n_left) + within]]
    return TokenStream(ids=ids, token_bp=np.where(is_kmer, k, 1).astype(np.int64), starts=starts)


def stream_from_ids(ids: Sequence[Sequence[int]], bp_of_id: Ints, *, lengths_bp: Ints, name: str) -> TokenStream:
    """Align tokens whose texts follow each other without a gap, by the length of each text.

    Args:
        ids: Token ids of each sequence, without specials.
        bp_of_id: Nucleotides of each token of the vocabulary, shape (V,); 1 for the unknown token.
        lengths_bp: Nucleotides of each sequence, shape (S,); the tokens are checked against it.
        name: Name of the tokenizer, for the message.

    Raises:
        AlignmentError: The tokens of a sequence are longer or shorter than the sequence.
    """
    starts = starts_of([len(one) for one in ids])
    flat = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=int(starts[-1]))
    token_bp = bp_of_id[flat]
    covered = np.diff(np.concatenate([[0], np.cumsum(token_bp)])[starts])
    wrong: Bools = covered != lengths_bp
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise AlignmentError(
            f"the tokens of {name} have {covered[first]} nucleotides for sequence {first}, which has "
            f"{lengths_bp[first]}; align them by their offsets (stream_from_offsets)"
        )
    return TokenStream(ids=flat, token_bp=token_bp, starts=starts)


def stream_from_offsets(
    ids: Sequence[Sequence[int]],
    offsets: Sequence[Iterable[tuple[int, int]]],
    *,
    lengths_bp: Ints,
    name: str,
    silent: Ints | None = None,
) -> TokenStream:
    """Align tokens by the character offsets of a fast tokenizer.

    A token stands for the nucleotides from its start to the start of the next token, and the first token also for
    those in front of it. So a nucleotide that the tokenizer drops still has an embedding.

    Args:
        ids: Token ids of each sequence, without specials.
        offsets: Start and end (exclusive) of each token in its sequence.
        lengths_bp: Nucleotides of each sequence, shape (S,).
        name: Name of the tokenizer, for the message.
        silent: Ids of tokens that stand for no nucleotide, such as a blank in front; None: there are none.

    Raises:
        AlignmentError: Two tokens overlap, or a token ends past its sequence.
    """
    starts = starts_of([len(one) for one in ids])
    n_tokens = int(starts[-1])
    flat = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=n_tokens)
    pairs = chain.from_iterable(chain.from_iterable(offsets))
    spans = np.fromiter(pairs, dtype=np.int64, count=2 * n_tokens).reshape(-1, 2)
    kept = np.flatnonzero(~np.isin(flat, silent)) if silent is not None and len(silent) else np.arange(n_tokens)
    token_bp = np.zeros(n_tokens, dtype=np.int64)
    token_bp[kept] = _lengths_of_spans(spans[kept], np.searchsorted(kept, starts), lengths_bp=lengths_bp, name=name)
    return TokenStream(ids=flat, token_bp=token_bp, starts=starts)


def _lengths_of_spans(spans: Ints, starts: Ints, *, lengths_bp: Ints, name: str) -> Ints:
    """Count the nucleotides from the start of each token to the start of the next one.

    Args:
        spans: Start and end of each token in its sequence, shape (N, 2).
        starts: Where the tokens of each sequence start, shape (S + 1,).
        lengths_bp: As in ``stream_from_offsets``.
        name: As in ``stream_from_offsets``.
    """
    n_tokens = len(spans)
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
            f"{name} gives token {first - int(starts[np.searchsorted(starts, first, side='right') - 1])} of a sequence "
            f"the offsets {tuple(int(x) for x in spans[first])}, and the next token starts at "
            f"{int(following[first])}; expected tokens of at least one nucleotide that do not overlap"
        )
    return token_bp


# IUPAC nucleotide codes and their complements (Cornish-Bowden 1985, Nucleic Acids Research 13:3021).
_COMPLEMENT: Final = str.maketrans("ACGTUNRYSWKMBDHVacgtunryswkmbdhv", "TGCAANYRSWMKVHDBtgcaanyrswmkvhdb")


def reverse_complement(sequence: str) -> str:
    """Return the reverse complement, IUPAC codes and case included.

    >>> reverse_complement("ACGNr")
    'yNCGT'
    """
    return sequence.translate(_COMPLEMENT)[::-1]


def checked_sequences(sequences: Iterable[str]) -> Iterator[str]:
    """Yield sequences, each checked.

    Raises:
        InputError: A sequence is empty, not a string, or contains something other than letters.
    """
    if isinstance(sequences, str):
        raise InputError("embed() takes a list of sequences, but got one string; call the embedder itself instead")
    for index, sequence in enumerate(sequences):
        if not isinstance(sequence, str):
            raise InputError(f"sequence {index} is of type {type(sequence).__name__}; expected a string")
        if not (sequence.isascii() and sequence.isalpha()):
            odd = next((one for one in sequence if not (one.isascii() and one.isalpha())), "")
            raise InputError(
                f"sequence {index} contains {odd!r}; expected IUPAC codes such as ACGTN in either case"
                if odd
                else f"sequence {index} is empty; expected at least one nucleotide"
            )
        yield sequence
