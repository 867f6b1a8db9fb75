"""Many nucleotide sequences in one flat array, and the alphabet.

>>> reverse_complement("AACGTN")
'NACGTT'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.types import Bools, Bytes, Ints

if TYPE_CHECKING:
    import pyarrow as pa

# The nucleotide codes of IUPAC (Cornish-Bowden 1985, Nucleic Acids Research 13:3021) and their complements;
# X, which some masking tools write instead of N, is kept and is its own complement.
_LETTERS: Final = "ACGTRYKMSWBVDHNX"
_COMPLEMENTS: Final = "TGCAYRMKSWVBHDNX"


def _table(letters: str, images: str) -> bytes:
    """Make a table for ``bytes.translate`` over both cases; a byte that is not a nucleotide becomes 0."""
    table = bytearray(256)
    for letter, image in zip(letters, images, strict=True):
        table[ord(letter)] = table[ord(letter.lower())] = ord(image)
    return bytes(table)


# The U of RNA is read as T, so that complementing twice returns what was read.
READ: Final = _table(_LETTERS + "U", _LETTERS + "T")
COMPLEMENT: Final = _table(_LETTERS + "U", _COMPLEMENTS + "A")


def reverse_complement(sequence: str) -> str:
    """Return the other strand of a sequence, 5' to 3', in upper case.

    Raises:
        ValueError: A letter is not an IUPAC nucleotide code.
    """
    image = sequence.encode("latin-1", "replace")[::-1].translate(COMPLEMENT)
    if 0 in image:
        strange = sequence[::-1][image.index(0)]
        raise ValueError(f"{strange!r} is not a nucleotide; expected one of {_LETTERS} in either case")
    return image.decode("ascii")


@dataclass(frozen=True, kw_only=True)
class SequenceBatch:
    """S sequences, end to end, and what an out-of-bounds policy changed.

    Attributes:
        bases: Upper-case ASCII letters of all sequences, shape (sum of lengths,).
        offsets: Start of each sequence in ``bases``, and the end of the last, shape (S + 1,).
        kept: Whether each requested interval is one of the S sequences, shape (intervals,).
        n_padded_bp: Number of letters N that fill in for nucleotides past an end of a contig.
        n_padded_rows: Number of sequences with such letters.
        n_dropped_rows: Number of dropped intervals.
    """

    bases: Bytes
    offsets: Ints
    kept: Bools
    n_padded_bp: int = 0
    n_padded_rows: int = 0
    n_dropped_rows: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths_bp(self) -> Ints:
        """Length of each sequence in nucleotides, shape (S,)."""
        return np.diff(self.offsets)

    def one(self, index: int) -> str:
        """Return one sequence of the batch."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of a batch of {len(self)}")
        index %= len(self)
        return self.bases[self.offsets[index] : self.offsets[index + 1]].tobytes().decode("ascii")

    def to_arrow(self) -> pa.LargeStringArray:
        """Return all sequences as an Arrow string array of length S that shares the memory of the batch."""
        import pyarrow as pa

        return pa.LargeStringArray.from_buffers(len(self), pa.py_buffer(self.offsets), pa.py_buffer(self.bases))
