"""Reads a built folder again and checks every row of it against bed, labels and genome.

The oracle is slow on purpose and shares no code with the build: pyfaidx reads each sequence, h5py each label.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pyfaidx

from bend_hf.config import DataConfig
from bend_hf.data.dataset import FACTS_FILE
from bend_hf.data.examples import read_rows
from bend_hf.data.sources import TaskFiles, sources_of
from bend_hf.errors import BendError, InputError
from bend_hf.files import file_sha256
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import BinClasses, MultiLabel, NucleotideClasses


def verify(config: DataConfig, built: Path) -> Iterator[str]:
    """Checks built tasks; says a line for each that is right.

    Args:
        config: Which tasks, and the data they were built from.
        built: The Hub-shaped folder.

    Raises:
        BendError: Something differs; the message names the item.
    """
    for source, _ in sources_of(config):
        if not isinstance(source, TaskFiles):
            raise InputError(f"{source.repo} is a built folder; give --data the folder of bed files it was built from")
        yield _verify_task(source, config, built)


def _verify_task(files: TaskFiles, config: DataConfig, built: Path) -> str:
    rows = read_rows(files, out_of_bounds=config.out_of_bounds, ref_mismatch=config.ref_mismatch)
    task = rows.task
    folder = built / task.group / "data" / (task.config or "")
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BendError(f"{folder / FACTS_FILE} cannot be read ({error}); build the task first") from error
    for name, digest in facts["sha256"].items():
        if file_sha256(folder / name) != digest:
            raise BendError(f"{folder / name} is not the file that was built; build the task again")
    lines = files.bed.read_text(encoding="utf-8").splitlines() if files.bed.suffix == ".bed" else []
    names = lines[0].split("\t") if lines else []
    labels = h5py.File(files.hdf5)["labels"] if files.hdf5 else None
    n_rows = 0
    seen: set[int] = set()
    with _open_fasta(files.genome) as fasta:
        for part, shards in facts["shards"].items():
            for shard in shards:
                for row in pq.read_table(folder / shard).to_pylist():
                    fields = dict(zip(names, lines[row["item"] + 1].split("\t"), strict=False))
                    _check_row(task, part, row, fields, fasta, labels, config)
                    if row["item"] in seen:
                        raise BendError(f"{folder / shard}: item {row['item']} stands there twice")
                    seen.add(row["item"])
                    n_rows += 1
    expected = len(rows) - facts["facts"]["changes"]["rows_dropped_out_of_bounds"] - rows.n_ref_mismatches
    if n_rows != expected:
        raise BendError(f"{folder} holds {n_rows} rows, {expected} were expected; build the task again")
    return f"{task.key}: {n_rows} rows agree with {files.bed}, its labels and {files.genome}"


@contextmanager
def _open_fasta(path: Path) -> Iterator[pyfaidx.Fasta]:
    """The genome through pyfaidx; a compressed one is unpacked for the time being, which pyfaidx alone cannot read."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "genome.fa"
        if path.suffix in (".gz", ".bgz"):
            with gzip.open(path) as packed, plain.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        else:
            plain.symlink_to(path.resolve())
        with pyfaidx.Fasta(str(plain), as_raw=True, sequence_always_upper=True) as fasta:
            yield fasta


def _check_row(
    task: TaskSpec,
    part: str,
    row: dict[str, object],
    fields: dict[str, str],
    fasta: pyfaidx.Fasta,
    labels: h5py.Dataset | None,
    config: DataConfig,
) -> None:
    start, end = int(fields["start"]), int(fields["end"])
    if task.variant is not None:
        start, end = max(0, start - task.variant.stored_context_bp), start + task.variant.stored_context_bp + 1
    sequence = str(fasta[fields["chromosome"]][start:end])
    minus = task.stranded and fields.get("strand") == "-"
    if task.variant is None:
        sequence = sequence.ljust(end - start, "N")
    if minus:
        sequence = str(pyfaidx.Sequence(seq=sequence).reverse.complement)
    _same(row, "sequence", row["sequence"], sequence)
    _same(row, "strand", row["strand"], "-" if minus else "+")
    if "split" in fields and part in ("train", "validation", "test"):
        _same(row, "split", part, "validation" if fields["split"] == "valid" else fields["split"])
    match task.label:
        case NucleotideClasses() | BinClasses():
            assert labels is not None
            unit = task.label.bin_bp if isinstance(task.label, BinClasses) else 1
            values = np.asarray(labels[row["item"]])[: (end - start) // unit].tolist()
            if minus and config.protocol != "bend-2024":
                values = values[::-1]
            _same(row, "labels", row["labels"], values)
        case MultiLabel():
            _same(row, "labels", row["labels"], [int(float(value)) for value in fields["label"].split(",") if value])
        case _:
            _same(row, "label", row["label"], int(float(fields["label"])))


def _same(row: dict[str, object], what: str, found: object, expected: object) -> None:
    if found != expected:
        raise BendError(
            f"item {row['item']}: {what} is {str(found)[:60]!r}, {str(expected)[:60]!r} was expected; "
            "build the task again"
        )
