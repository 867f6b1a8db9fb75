"""Read a built folder again and check every row against the BED file, labels and genome.

The check is slow on purpose and shares no code with the build: pyfaidx reads each sequence and h5py each label.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pyfaidx

from bend_hf.config import DataConfig
from bend_hf.data.dataset import FACTS_FILE
from bend_hf.data.examples import read_examples
from bend_hf.data.sources import TaskFiles, sources_of
from bend_hf.errors import BendError, InputError
from bend_hf.files import file_sha256
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import BinClasses, MultiLabel, NucleotideClasses, SequenceClass


def verify(config: DataConfig, built: Path) -> Iterator[str]:
    """Check built tasks and yield one line for each that is correct.

    Args:
        config: The tasks and the data that they were built from.
        built: Output folder of ``bend-hf build``.

    Raises:
        BendError: A row differs; the message names the item.
    """
    for source, _ in sources_of(config):
        if not isinstance(source, TaskFiles):
            raise InputError(
                f"{source.repo} is a built folder; give --data the folder of BED files that it was built from"
            )
        yield _verify_task(source, config, built)


def _verify_task(files: TaskFiles, config: DataConfig, built: Path) -> str:
    rows = read_examples(files, out_of_bounds=config.out_of_bounds, ref_mismatch=config.ref_mismatch)
    task = rows.task
    folder = built / task.group / "data" / (task.config or "")
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BendError(f"cannot read {folder / FACTS_FILE} ({error}); run 'bend-hf build' first") from error
    for name, digest in facts["sha256"].items():
        if file_sha256(folder / name) != digest:
            raise BendError(f"{folder / name} was changed after the build; build the task again")
    lines = files.bed.read_text(encoding="utf-8").splitlines() if files.bed.suffix == ".bed" else []
    seen: set[int] = set()
    with _open_fasta(files.genome) as fasta:
        source = _Source(
            task=task,
            columns=lines[0].split("\t") if lines else [],
            lines=lines[1:],
            fasta=fasta,
            labels=h5py.File(files.hdf5)["labels"] if files.hdf5 else None,
            flip_labels=config.protocol != "bend-2024",
        )
        for subset, shards in facts["shards"].items():
            for shard in shards:
                for row in pq.read_table(folder / shard).to_pylist():
                    source.check(row, row["item"], subset)
                    if row["item"] in seen:
                        raise BendError(f"{folder / shard}: item {row['item']} is repeated; build the task again")
                    seen.add(row["item"])
    expected = len(rows) - facts["facts"]["changes"]["rows_dropped_out_of_bounds"] - rows.n_ref_mismatches
    if len(seen) != expected:
        raise BendError(f"{folder} holds {len(seen)} rows, expected {expected}; build the task again")
    return f"{task.key}: {len(seen)} rows agree with {files.bed}, its labels and {files.genome}"


@contextmanager
def _open_fasta(path: Path) -> Iterator[pyfaidx.Fasta]:
    """Open the genome with pyfaidx; a compressed one is decompressed into a temporary folder first."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "genome.fa"
        if path.suffix in (".gz", ".bgz"):
            with gzip.open(path) as packed, plain.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        else:
            plain.symlink_to(path.resolve())
        with pyfaidx.Fasta(str(plain), as_raw=True, sequence_always_upper=True) as fasta:
            yield fasta


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The files that a dataset was built from.

    Attributes:
        lines: Lines of the BED file without its header; the item of a row is its index.
        flip_labels: Whether labels are reversed on the minus strand.
    """

    task: TaskSpec
    columns: Sequence[str]
    lines: Sequence[str]
    fasta: pyfaidx.Fasta
    labels: h5py.Dataset | None
    flip_labels: bool

    def check(self, row: Mapping[str, object], item: int, subset: str) -> None:
        """Compare one row of the dataset with the files.

        Args:
            row: The row.
            item: The item of the row.
            subset: The split, or the subset of folds, that holds the row.

        Raises:
            BendError: The sequence, strand, split or labels differ.
        """
        task = self.task
        fields = dict(zip(self.columns, self.lines[item].split("\t"), strict=False))
        start, end = int(fields["start"]), int(fields["end"])
        if task.variant is not None:
            start, end = max(0, start - task.variant.stored_context_bp), start + task.variant.stored_context_bp + 1
        sequence = str(self.fasta[fields["chromosome"]][start:end])
        minus = task.stranded and fields.get("strand") == "-"
        if task.variant is None:
            sequence = sequence.ljust(end - start, "N")
        if minus:
            sequence = str(pyfaidx.Sequence(seq=sequence).reverse.complement)
        expected: dict[str, object] = {"sequence": sequence, "strand": "-" if minus else "+"}
        name = "label" if isinstance(task.label, SequenceClass) else "labels"
        expected[name] = self._label(fields, item, n_bp=end - start, flip=minus and self.flip_labels)
        if "split" in fields and subset in ("train", "validation", "test"):
            row = {**row, "split": subset}
            expected["split"] = "validation" if fields["split"] == "valid" else fields["split"]
        for column, value in expected.items():
            if row[column] != value:
                raise BendError(
                    f"item {item}: {column} is {str(row[column])[:60]!r}, expected {str(value)[:60]!r}; build the task "
                    "again"
                )

    def _label(self, fields: Mapping[str, str], item: int, *, n_bp: int, flip: bool) -> object:
        match self.task.label:
            case NucleotideClasses() | BinClasses():
                if self.labels is None:
                    raise BendError(f"{self.task.key} was built without a label file; build the task again")
                unit_bp = self.task.label.bin_bp if isinstance(self.task.label, BinClasses) else 1
                values = np.asarray(self.labels[item])[: n_bp // unit_bp].tolist()
                return values[::-1] if flip else values
            case MultiLabel():
                return [int(float(value)) for value in fields["label"].split(",") if value]
            case _:
                return int(float(fields["label"]))
