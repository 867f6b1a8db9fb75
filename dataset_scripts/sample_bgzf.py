"""Writes a FASTA that bgzip compressed, with the indexes that let a reader seek in a read-only folder.

For the bundled sample. Blocks are Huffman-coded only: DNA holds next to no repeats that deflate could use, and
the bytes then hardly depend on the version of zlib.

>>> write_bgzf_fasta(Path("sample.fa.gz"), {"contig": np.frombuffer(b"ACGT", np.uint8)})  # doctest: +SKIP
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES: Final = 65_280  # what htslib's bgzip puts into a block (BGZF_BLOCK_SIZE, htslib bgzf.h)
_LINE_BP: Final = 100
# SAM/BAM format specification, section 4.1: a gzip member whose extra field BC holds its size minus one, and
# the empty block that ends each file.
_HEADER: Final = struct.Struct("<4BI2BH2BHH")
_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def write_bgzf_fasta(path: Path, contigs: dict[str, NDArray[np.uint8]]) -> None:
    """Write ``path`` and beside it ``.fai`` (samtools faidx) and ``.gzi`` (bgzip -r).

    Args:
        path: The compressed FASTA.
        contigs: Letters of each contig as bytes, shape (nucleotides,), in the order of the file.
    """
    text, index = bytearray(), []
    for name, bases in contigs.items():
        text += f">{name}\n".encode()
        index.append(f"{name}\t{len(bases)}\t{len(text)}\t{_LINE_BP}\t{_LINE_BP + 1}\n")
        text += _wrapped(bases)
    blocks = [_block(bytes(text[at : at + _BLOCK_BYTES])) for at in range(0, len(text), _BLOCK_BYTES)]
    path.write_bytes(b"".join([*blocks, _END]))
    path.with_name(path.name + ".fai").write_text("".join(index), newline="\n")
    compressed_starts = np.cumsum([len(block) for block in blocks])[:-1]
    entries = [(int(at), (n + 1) * _BLOCK_BYTES) for n, at in enumerate(compressed_starts)]
    path.with_name(path.name + ".gzi").write_bytes(
        struct.pack("<Q", len(entries)) + b"".join(struct.pack("<QQ", *entry) for entry in entries)
    )


def _wrapped(bases: NDArray[np.uint8]) -> bytes:
    """The letters in lines, each with its line feed."""
    n_whole = len(bases) // _LINE_BP * _LINE_BP
    lines = np.full((n_whole // _LINE_BP, _LINE_BP + 1), ord("\n"), np.uint8)
    lines[:, :_LINE_BP] = bases[:n_whole].reshape(-1, _LINE_BP)
    rest = bases[n_whole:].tobytes()
    return lines.tobytes() + (rest + b"\n" if rest else b"")


def _block(text: bytes) -> bytes:
    """One block of at most 64 KiB of text."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    body = deflate.compress(text) + deflate.flush()
    size = _HEADER.size + len(body) + 8
    header = _HEADER.pack(0x1F, 0x8B, 8, 4, 0, 0, 0xFF, 6, ord("B"), ord("C"), 2, size - 1)
    return header + body + struct.pack("<II", zlib.crc32(text), len(text))
