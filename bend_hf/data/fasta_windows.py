"""Windows of one length out of a FASTA text, letters as they stand in the file: soft-masked ones in lower case.

For the genome:

>>> index = FastaIndex.parse("chr1\\t10\\t6\\t4\\t5\\n")
>>> window_bytes(index, np.array([0, 0]), np.array([0, 3]), 6).tolist()
[[6, 7, 8, 9, 11, 12], [9, 11, 12, 13, 14, 16]]
"""

from __future__ import annotations

import numpy as np

from bend_hf.data.fasta_index import FastaIndex, Text
from bend_hf.shapes import Bytes, Ints


def read_windows(text: Text, index: FastaIndex, contig: Ints, start_bp: Ints, window_bp: int) -> Bytes:
    """The letters of windows that lie on their contigs.

    Args:
        text: The FASTA file; of a bgzip file the blocks that are touched are inflated.
        index: Its index.
        contig: Number of each window's contig, shape (windows,).
        start_bp: First nucleotide of each, shape (windows,).
        window_bp: Nucleotides in each.

    Returns:
        ASCII letters, shape (windows, nucleotides).
    """
    if not start_bp.size or not window_bp:
        return np.zeros((len(start_bp), window_bp), np.uint8)
    byte = window_bytes(index, contig, start_bp, window_bp)
    buffer, shift = text.window(byte[:, 0], byte[:, -1] + 1)
    letters: Bytes = buffer[byte - shift[:, None] if shift.any() else byte]
    return letters


def window_bytes(index: FastaIndex, contig: Ints, start_bp: Ints, window_bp: int) -> Ints:
    """Where in the text each letter of each window stands, shape (windows, nucleotides)."""
    line_bp, line_end = index.line_bp[contig], (index.line_bytes - index.line_bp)[contig]
    column = start_bp % line_bp
    within = np.arange(window_bp)
    first = index.byte_of(contig, start_bp)
    if (line_bp == line_bp[0]).all():  # a division by one number is several times quicker
        lines = (column[:, None] + within) // line_bp[0]
    else:
        lines = (column[:, None] + within) // line_bp[:, None]
    byte: Ints = (first[:, None] + within) + lines * line_end[:, None]
    return byte
