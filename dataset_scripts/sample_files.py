"""Writes the tables and label files of the bundled sample in the layout of BEND's data folder.

For ``make_sample.py``: beds are tab-separated with a header, ``split`` last; hdf5 holds a dataset ``labels``.

>>> write_bed(Path("toy.bed"), {"chromosome": ["c"], "start": [0], "end": [512]})  # doctest: +SKIP
"""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
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


def write_bed(path: Path, columns: dict[str, Column]) -> None:
    """Write a table, its header first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join(columns), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", newline="\n")


def write_names(path: Path, names: Sequence[str]) -> None:
    """Write the names of the labels, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), newline="\n")


def write_ragged(path: Path, rows: list[NDArray[np.int8]]) -> None:
    """Write one array a row."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "labels", shape=(len(rows),), dtype=h5py.vlen_dtype(np.int8), chunks=(len(rows),), compression="gzip"
        )
        for index, row in enumerate(rows):
            data[index] = row


def write_rectangular(path: Path, labels: NDArray[np.int8]) -> None:
    """Write a matrix, a row each."""
    with h5py.File(path, "w") as file:
        file.create_dataset("labels", data=labels, chunks=labels.shape, compression="gzip", compression_opts=9)


def label_lists(labels: NDArray[np.bool_]) -> list[str]:
    """The positive labels of each row, comma-separated indices; empty where there is none."""
    return [",".join(map(str, np.flatnonzero(row))) for row in labels]


def write_checksums(folder: Path) -> None:
    """Write ``sha256.json``: of each file, and of what the compressed ones hold.

    The bytes of a compressed file may change with the libraries that write it (``made_with``); its content,
    the text of the FASTA or the labels one row after the other as int8, may not.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != CHECKSUMS)
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


def made_with() -> dict[str, str]:
    """The versions that decide on compressed bytes."""
    return {
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        "machine": platform.machine(),
    }


def content_sha256(path: Path) -> str:
    """The sha256 of what a compressed file holds."""
    if path.suffix == ".gz":
        return hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    with h5py.File(path, "r") as file:
        rows = [np.asarray(row, np.int8) for row in file["labels"][:]]
    return hashlib.sha256(np.concatenate(rows).tobytes()).hexdigest()
