"""The other strand of the sequences of a dataset or table, many at once.

>>> reverse_complements(pa.array(["AACG", "", "TTN"])).to_pylist()
['CGTT', '', 'NAA']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from bend_hf.data.sequences import COMPLEMENT, SequenceBatch
from bend_hf.errors import InputError
from bend_hf.types import Ints

if TYPE_CHECKING:
    from datasets import Dataset

_ROWS_PER_READ: Final = 4096
_COMPLEMENT: Final = np.frombuffer(COMPLEMENT, np.uint8)


def reverse_complements(sequences: pa.Array | pa.ChunkedArray, *, multiple_of_bp: int = 1) -> pa.LargeStringArray:
    """Return the other strand of each sequence, 5' to 3', in upper case.

    Args:
        sequences: Nucleotides as text, length n.
        multiple_of_bp: Leave out the last nucleotides of a sequence that do not fill a window of this length, so that
            the windows of both strands cover the same nucleotides.

    Raises:
        InputError: A letter is not an IUPAC nucleotide code.
    """
    whole = sequences.combine_chunks() if isinstance(sequences, pa.ChunkedArray) else sequences
    text = whole.cast(pa.large_string())
    starts: Ints = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    letters = np.frombuffer(text.buffers()[2] or b"", np.uint8)
    kept = np.diff(starts) // multiple_of_bp * multiple_of_bp
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    # nucleotide i of a kept stretch is nucleotide (length - 1 - i) of the sequence that it starts with
    source = np.repeat(starts[:-1] + kept - 1 + offsets[:-1], kept) - np.arange(offsets[-1])
    images = _COMPLEMENT[letters[source]]
    if not images.all():
        strange = chr(letters[source[int(np.argmin(images))]])
        raise InputError(f"{strange!r} is not a nucleotide; expected IUPAC codes. Correct the sequences of the task")
    return SequenceBatch(bases=images, offsets=offsets, kept=np.ones(len(text), np.bool_)).to_arrow()


def on_other_strand(dataset: Dataset, *, multiple_of_bp: int = 1) -> Dataset:
    """Return a dataset with the other strand of each sequence; the other columns, labels included, stay as they are.

    The sequences are held in memory.

    Args:
        dataset: Has a column ``sequence``.
        multiple_of_bp: See ``reverse_complements``.
    """
    from datasets import Dataset

    parts = []
    for table in dataset.with_format("arrow").iter(_ROWS_PER_READ):
        place = table.column_names.index("sequence")
        turned = reverse_complements(table["sequence"], multiple_of_bp=multiple_of_bp)
        parts.append(table.set_column(place, "sequence", turned))
    return Dataset(pa.concat_tables(parts))
