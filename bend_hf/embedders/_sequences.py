"""Sequences as users give them: what is accepted, and the other strand.

>>> reverse_complement("ACGNr")
'yNCGT'
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from bend_hf.errors import InputError

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
