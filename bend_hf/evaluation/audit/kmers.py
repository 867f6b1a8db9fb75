"""Canonical k-mers of many sequences, in parts of bounded size.

A k-mer is a number with two bits per nucleotide; of a k-mer and its reverse complement the smaller number counts, so
both strands are one. A window with an N, or across the end of a row, is no k-mer.

>>> rows = Sequences.of([b"ACGTT", b"AACGT"])
>>> [part.code.tolist() for part in shared_kmers(rows, 5)]
[[27, 27]]
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.evaluation.identity import mixed
from bend_hf.types import Bools, Bytes, Ints

if TYPE_CHECKING:
    import pyarrow as pa

Codes = NDArray[np.uint64]

OTHER: Final = 4  # any letter that is not A, C, G or T, and the end of a row
PART_SIZE: Final = 1 << 23  # k-mers sorted at once: about 400 MB of work space
MAX_PARTS: Final = 32  # beyond that, k-mers are sampled
_CHUNK: Final = 1 << 17  # nucleotides whose k-mers are computed at once
_IN_MEMORY_BP: Final = 1 << 28  # longer data are kept in a temporary file

CODE_OF: Final = np.full(256, OTHER, np.uint8)
for _code, _letter in enumerate(b"ACGT"):
    CODE_OF[[_letter, _letter + 32]] = _code


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """S sequences as codes 0 to 3, end to end, with ``OTHER`` after each.

    Attributes:
        codes: Codes, shape (sum of lengths + S,).
        offsets: Start of each sequence in ``codes``, and the end of the last, shape (S + 1,).
    """

    codes: Bytes
    offsets: Ints

    @classmethod
    def of(cls, sequences: Sequence[bytes]) -> Sequences:
        """Make them of letters in either case."""
        lengths = np.array([len(one) for one in sequences], np.int64)
        return cls.of_batches([(np.frombuffer(b"".join(sequences), np.uint8), lengths)], n_bp=int(lengths.sum()))

    @classmethod
    def of_batches(cls, batches: Iterable[tuple[Bytes, Ints]], *, n_bp: int) -> Sequences:
        """Make them of batches of ASCII letters with the lengths of their sequences.

        Args:
            batches: Letters, shape (nucleotides,), and lengths, shape (sequences,).
            n_bp: Number of nucleotides in all batches; long data are kept in a temporary file.
        """
        store = tempfile.TemporaryFile() if n_bp > _IN_MEMORY_BP else None  # noqa: SIM115  closed when it is forgotten
        parts: list[Bytes] = []
        all_lengths: list[Ints] = []
        for letters, lengths in batches:
            codes = np.full(len(letters) + len(lengths), OTHER, np.uint8)
            codes[np.arange(len(letters)) + np.repeat(np.arange(len(lengths)), lengths)] = CODE_OF[letters]
            all_lengths.append(lengths + 1)
            if store is None:
                parts.append(codes)
            else:
                codes.tofile(store)
        lengths = np.concatenate([np.zeros(0, np.int64), *all_lengths])
        if store is None:
            joined = np.concatenate([np.zeros(0, np.uint8), *parts])
        else:
            store.flush()
            joined = np.memmap(store, np.uint8, mode="r")
        return cls(codes=joined, offsets=np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def length_bp(self) -> Ints:
        """Length of each sequence, shape (S,)."""
        return np.diff(self.offsets) - 1

    def row_of(self, position: Ints) -> Ints:
        """Return the sequence that each position in ``codes`` belongs to."""
        return np.searchsorted(self.offsets, position, side="right") - 1

    def counts(self) -> Ints:
        """Count A, C, G, T, other letters, and the CpG of each sequence, shape (S, 6)."""
        found = np.zeros((len(self), 6), np.int64)
        rows_per_chunk = max(1, _CHUNK // max(1, int(self.length_bp.max(initial=1))))
        for first in range(0, len(self), rows_per_chunk):
            chunk = self.offsets[first : first + rows_per_chunk + 1]
            codes = np.asarray(self.codes[chunk[0] : chunk[-1]])
            row = np.repeat(np.arange(len(chunk) - 1), np.diff(chunk))
            table = np.bincount(row * 5 + codes, minlength=5 * (len(chunk) - 1)).reshape(-1, 5)
            table[:, OTHER] -= 1  # the end of the row
            cpg = row[:-1][(codes[:-1] == 1) & (codes[1:] == 2)]
            found[first : first + len(chunk) - 1, :5] = table
            found[first : first + len(chunk) - 1, 5] = np.bincount(cpg, minlength=len(chunk) - 1)
        return found


def letters_of(column: pa.ChunkedArray | pa.Array) -> Iterator[tuple[Bytes, Ints]]:
    """Yield the letters and lengths of each chunk of an Arrow column of strings, without a copy."""
    import pyarrow as pa

    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        wide = chunk.cast(pa.large_string())
        offsets = np.frombuffer(wide.buffers()[1], np.int64)[wide.offset : wide.offset + len(wide) + 1]
        data = wide.buffers()[2]
        letters = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
        yield letters[offsets[0] : offsets[-1]], np.diff(offsets)


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedKmers:
    """N k-mers; each code occurs at least twice, and equal codes are next to each other.

    Attributes:
        code: Canonical code of each k-mer, shape (N,).
        position: Where it starts in ``Sequences.codes``, shape (N,).
        forward: Whether the k-mer itself, not its reverse complement, has the canonical code, shape (N,).
    """

    code: Codes
    position: Ints
    forward: Bools

    @property
    def group(self) -> Ints:
        """Number of the run of equal codes that each k-mer belongs to, shape (N,)."""
        return np.cumsum(np.concatenate([[0], self.code[1:] != self.code[:-1]])[: len(self.code)])


def canonical_kmers(codes: Bytes, k: int) -> tuple[Codes, Bools, Bools]:
    """Compute the k-mer at every position of a stretch of codes.

    Args:
        codes: Codes as in ``Sequences``, shape (n,), with n of at least k.
        k: Length of a k-mer, at most 31.

    Returns:
        The canonical codes, whether they are those of the plus strand, and whether the window holds a k-mer, each of
        shape (n - k + 1,).
    """
    n_windows = len(codes) - k + 1
    plus: Codes = (codes & 3).astype(np.uint64)  # codes of words of ``width`` nucleotides
    minus: Codes = np.uint64(3) - plus
    width, have = 1, 0
    word: Codes = np.zeros(n_windows, np.uint64)
    reverse: Codes = np.zeros(n_windows, np.uint64)
    while True:
        if k & width:
            word = (word << np.uint64(2 * width)) | plus[have : have + n_windows]
            reverse |= minus[have : have + n_windows] << np.uint64(2 * have)
            have += width
        if have == k:
            break
        shift = np.uint64(2 * width)
        plus = (plus[:-width] << shift) | plus[width:]
        minus = (minus[width:] << shift) | minus[:-width]
        width *= 2
    n_other = np.concatenate([[0], np.cumsum(codes == OTHER, dtype=np.int32)])
    return np.minimum(word, reverse), word <= reverse, n_other[k:] == n_other[:-k]


def sampling_of(n_kmers: int) -> float:
    """Return the fraction of k-mers to keep: all, unless there are more than ``PART_SIZE * MAX_PARTS``."""
    return min(1.0, PART_SIZE * MAX_PARTS / max(1, n_kmers))


def sampling_limit(sampling: float) -> np.uint64:
    """Return the largest scrambled k-mer that is kept."""
    return np.uint64(min((1 << 64) - 1, int(sampling * (1 << 64))))


def shared_kmers(sequences: Sequences, k: int, *, sampling: float = 1.0) -> Iterator[SharedKmers]:
    """Yield the k-mers that occur more than once, in parts; equal k-mers are in one part.

    Args:
        sequences: The sequences.
        k: Length of a k-mer, at most 31.
        sampling: Fraction of the k-mers to keep; a k-mer is kept everywhere or nowhere.
    """
    n_parts = max(1, -(-int(len(sequences.codes) * sampling) // PART_SIZE))
    if n_parts == 1:
        pieces = [packed for packed, _ in _packed(sequences.codes, k, sampling, n_parts)]
        yield _repeated(sequences, k, np.concatenate([np.zeros(0, np.uint64), *pieces]))
        return
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{part}.u64" for part in range(n_parts)]
        for packed, bounds in _packed(sequences.codes, k, sampling, n_parts):
            for file, low, high in zip(files, bounds[:-1], bounds[1:], strict=True):
                with file.open("ab") as part:
                    packed[low:high].tofile(part)
        for file in files:
            yield _repeated(sequences, k, np.fromfile(file, np.uint64))
            file.unlink()


def _packed(codes: Bytes, k: int, sampling: float, n_parts: int) -> Iterator[tuple[Codes, list[int]]]:
    """Yield for each chunk, sorted, the leading bits of the scrambled k-mers with their positions as trailing bits.

    The second value holds the bounds of the parts in the first: equal shares of the range of the leading bits.
    """
    position_bits = np.uint64(len(codes).bit_length())
    limit = sampling_limit(sampling)
    inner = np.array([int(limit) // n_parts * part for part in range(1, n_parts)], np.uint64)
    for start in range(0, len(codes), _CHUNK):
        chunk = np.asarray(codes[start : start + _CHUNK + k - 1])
        if len(chunk) < k:
            return
        code, _, keep = canonical_kmers(chunk, k)
        scrambled = mixed(code)
        if sampling < 1:
            keep &= scrambled <= limit
        at = np.flatnonzero(keep)
        packed = np.sort((scrambled[at] >> position_bits << position_bits) | (at + start).astype(np.uint64))
        yield packed, [0, *np.searchsorted(packed, inner >> position_bits << position_bits).tolist(), len(packed)]


def _repeated(sequences: Sequences, k: int, packed: Codes) -> SharedKmers:
    """Find the k-mers of a part that occur more than once. Equal leading bits only suggest it; the codes decide."""
    position_bits = np.uint64(len(sequences.codes).bit_length())
    packed.sort()
    same = (packed[1:] >> position_bits) == (packed[:-1] >> position_bits)
    twice = np.zeros(len(packed), np.bool_)
    twice[1:] |= same
    twice[:-1] |= same
    position = (packed[twice] & ((np.uint64(1) << position_bits) - np.uint64(1))).astype(np.int64)
    code, forward = kmers_at(sequences, k, position)
    hashed = packed[twice] >> position_bits
    if ((hashed[1:] == hashed[:-1]) & (code[1:] != code[:-1])).any():
        order = np.argsort(code, kind="stable")  # different k-mers with the same leading bits may alternate
        code, position, forward = code[order], position[order], forward[order]
    again = code[1:] == code[:-1]
    really = np.zeros(len(code), np.bool_)
    really[1:] |= again
    really[:-1] |= again
    return SharedKmers(code=code[really], position=position[really], forward=forward[really])


def kmers_at(sequences: Sequences, k: int, position: Ints) -> tuple[Codes, Bools]:
    """Return canonical code and strand of the k-mers that start at some positions; there must be a k-mer at each."""
    plus = np.zeros(len(position), np.uint64)
    minus = np.zeros(len(position), np.uint64)
    for step in range(k):
        letter = sequences.codes[position + step].astype(np.uint64)
        plus = (plus << np.uint64(2)) | letter
        minus |= (np.uint64(3) - letter) << np.uint64(2 * step)
    return np.minimum(plus, minus), plus <= minus
