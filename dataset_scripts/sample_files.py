"""Write the FASTA, BED and label files of the bundled sample in the layout of BEND's data folder."""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import h5py
import numpy as np
from numpy.typing import NDArray
from sample_sources import GENES_SHA256, SEQUENCE_M5, SEQUENCE_SHA256

Column = Sequence[object] | NDArray[np.generic]

CHECKSUMS: Final = "sha256.json"


_BLOCK_BYTES: Final = 65_280  # what htslib's bgzip puts into a block (BGZF_BLOCK_SIZE, htslib bgzf.h)
_LINE_BP: Final = 100
# SAM/BAM format specification, section 4.1: a gzip member whose extra field BC holds its size minus one, and
# the empty block that ends each file.
_BLOCK_HEADER: Final = struct.Struct("<4BI2BH2BHH")
_END: Final = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def write_bgzip_fasta(path: Path, contigs: dict[str, NDArray[np.uint8]]) -> None:
    """Write a FASTA file that is compressed as bgzip does it.

    Blocks are Huffman-coded only: DNA holds next to no repeats that deflate could use, and the bytes then hardly
    depend on the version of zlib.

    Args:
        path: The compressed FASTA file.
        contigs: Letters of each contig as bytes, shape (nucleotides,), in the order of the file.
    """
    text = bytearray()
    for name, bases in contigs.items():
        letters = bases.tobytes()
        text += f">{name}\n".encode()
        text += b"".join(letters[at : at + _LINE_BP] + b"\n" for at in range(0, len(letters), _LINE_BP))
    blocks = [_block(bytes(text[at : at + _BLOCK_BYTES])) for at in range(0, len(text), _BLOCK_BYTES)]
    path.write_bytes(b"".join([*blocks, _END]))


def _block(text: bytes) -> bytes:
    """Compress at most 64 KiB of text into one block."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    body = deflate.compress(text) + deflate.flush()
    size = _BLOCK_HEADER.size + len(body) + 8
    header = _BLOCK_HEADER.pack(0x1F, 0x8B, 8, 4, 0, 0, 0xFF, 6, ord("B"), ord("C"), 2, size - 1)
    return header + body + struct.pack("<II", zlib.crc32(text), len(text))


def write_bed(path: Path, columns: dict[str, Column]) -> None:
    """Write a tab-separated table with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join(columns), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", newline="\n")


def write_names(path: Path, names: Sequence[str]) -> None:
    """Write the names of the labels, one per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), newline="\n")


def write_ragged(path: Path, rows: list[NDArray[np.int8]]) -> None:
    """Write labels as one array per row."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "labels", shape=(len(rows),), dtype=h5py.vlen_dtype(np.int8), chunks=(len(rows),), compression="gzip"
        )
        for index, row in enumerate(rows):
            data[index] = row


def write_rectangular(path: Path, labels: NDArray[np.int8]) -> None:
    """Write labels as a matrix."""
    with h5py.File(path, "w") as file:
        file.create_dataset("labels", data=labels, chunks=labels.shape, compression="gzip", compression_opts=9)


def label_lists(labels: NDArray[np.bool_]) -> list[str]:
    """Return the indices of the positive labels of each row, comma-separated."""
    return [",".join(map(str, np.flatnonzero(row))) for row in labels]


def write_checksums(folder: Path) -> None:
    """Write ``sha256.json``: checksums of all files but the card, and of the content of compressed files.

    Together they name what a model sees: ``benchmarks/demo.py`` hashes them.

    The bytes of a compressed file may change with the libraries that write it (``made_with``); its content,
    the text of the FASTA file, or the labels row by row as int8, may not.
    """
    files = _data_files(folder)
    names = {p: p.relative_to(folder).as_posix() for p in files}
    record = {
        "sources": {
            "sequence_m5": SEQUENCE_M5,
            "sequence_sha256": SEQUENCE_SHA256,
            "genes_sha256": GENES_SHA256,
        },
        "made_with": made_with(),
        "contents": {names[p]: content_sha256(p) for p in files if p.suffix in (".gz", ".hdf5")},
        "files": {names[p]: hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
    }
    (folder / CHECKSUMS).write_text(json.dumps(record, indent=2) + "\n", newline="\n")


def _data_files(folder: Path) -> list[Path]:
    """All files but the checksums and the card, which also shows what the demo measured."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in (CHECKSUMS, "README.md"))


def made_with() -> dict[str, str]:
    """Return the versions that decide the compressed bytes."""
    return {
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        "machine": platform.machine(),
    }


def content_sha256(path: Path) -> str:
    """Hash the content of a compressed file."""
    if path.suffix == ".gz":
        return hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    with h5py.File(path, "r") as file:
        rows = [np.asarray(row, np.int8) for row in file["labels"][:]]
    return hashlib.sha256(np.concatenate(rows).tobytes()).hexdigest()
