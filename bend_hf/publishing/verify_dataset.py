"""Read a built folder again and check every row against the BED file, labels and genome.

The check is slow on purpose and shares no code with the build: pyfaidx reads each sequence and h5py each label.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import pyarrow.parquet as pq
import pyfaidx

from bend_hf.config import DataConfig
from bend_hf.data.dataset import FACTS_FILE
from bend_hf.data.examples import read_examples
from bend_hf.data.gzip_files import open_gzip
from bend_hf.data.sources import TaskFiles, sources_of
from bend_hf.errors import BendError, InputError
from bend_hf.files import file_sha256, parse_json
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import BinClasses, MultiLabel, NucleotideClasses, RealValues, SequenceClass

_GZIP: Final = b"\x1f\x8b"  # RFC 1952, section 2.3.1
_COLUMN: Final = {
    **dict.fromkeys(("chrom", "#chrom", "chromosome", "#chromosome", "chr", "#chr"), "chromosome"),
    "chromstart": "start",
    "chromend": "end",
    **{name: name for name in ("start", "end", "strand", "label", "split", "ref", "alt")},
}


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
        facts = parse_json((folder / FACTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BendError(f"cannot read {folder / FACTS_FILE} ({error}); run 'bend-hf build' first") from error
    for name, digest in facts["sha256"].items():
        if file_sha256(folder / name) != digest:
            raise BendError(f"{folder / name} was changed after the build; build the task again")
    seen: set[int] = set()
    with _open_fasta(files.genome) as fasta:
        source = _Source(
            task=task,
            rows=_read_rows(files.bed),
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


def _read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a BED or VCF file, without the code that the build reads them with."""
    raw = path.read_bytes()
    if raw[:2] == _GZIP:
        with open_gzip(path) as packed:
            raw = packed.read()
    lines = [line.split("\t") for line in raw.decode("utf-8-sig", "replace").replace("\r\n", "\n").split("\n")]
    lines = [line for line in lines if "".join(line).strip()]
    if lines[0][0].startswith("##fileformat=VCF"):
        return _vcf_rows(lines)
    written = [name.strip() for name in lines[0]]
    meant = [_COLUMN.get(name.lower(), name) for name in written]
    columns = [name if other in written else other for name, other in zip(written, meant, strict=True)]
    rows = [dict(zip(columns, line, strict=True)) for line in lines[1:]]
    if "strand" not in columns and len(columns) > 3 and {row[columns[3]] for row in rows} <= {"+", "-"}:
        rows = [{**row, "strand": row[columns[3]]} for row in rows]
    return rows


def _vcf_rows(lines: list[list[str]]) -> list[dict[str, str]]:
    """Split the lines of a VCF file into one row per alternative allele."""
    declared = [line[0].replace(" ", "").rstrip(">") for line in lines if line[0].startswith("##INFO=<")]
    per_allele = any({"ID=label", "Number=A"} <= set(line[len("##INFO=<") :].split(",")) for line in declared)
    rows = []
    for line in lines:
        if line[0].startswith("#"):
            continue
        chromosome, position, _, ref, alts = line[:5]
        fields = dict(field.strip().split("=", 1) for field in line[7].split(";") if "=" in field)
        start = int(position) - 1
        for number, alt in enumerate(alts.split(",")):
            label = fields.get("label", "")
            row = {"chromosome": chromosome, "start": str(start), "end": str(start + len(ref)), "ref": ref, "alt": alt}
            rows.append({**row, "label": label.split(",")[number] if per_allele else label})
    return rows


def _without_shared_bases(start: int, ref: str, alt: str) -> tuple[int, str, str]:
    """Return position and bases of a substitution that may be written with its neighbors."""
    pairs = [(at, one, other) for at, (one, other) in enumerate(zip(ref.upper(), alt.upper(), strict=True))]
    ((at, one, other),) = [pair for pair in pairs if pair[1] != pair[2]]
    return start + at, one, other


@contextmanager
def _open_fasta(path: Path) -> Iterator[pyfaidx.Fasta]:
    """Open the genome with pyfaidx; a compressed one is decompressed into a temporary folder first."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "genome.fa"
        with path.open("rb") as file:
            packed_with_gzip = file.read(2) == _GZIP
        if packed_with_gzip:
            with open_gzip(path) as packed, plain.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        else:
            plain.symlink_to(path.resolve())
        with pyfaidx.Fasta(str(plain), as_raw=True, sequence_always_upper=True) as fasta:
            yield fasta


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The files that a dataset was built from.

    Attributes:
        rows: Rows of the BED or VCF file, by column; the item of a row is its index.
        flip_labels: Whether labels are reversed on the minus strand.
    """

    task: TaskSpec
    rows: Sequence[Mapping[str, str]]
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
        fields = self.rows[item]
        start, end = int(fields["start"]), int(fields["end"])
        expected: dict[str, object] = {"chromosome": fields["chromosome"], "start": start}
        if task.variant is not None:
            start, expected["ref"], expected["alt"] = _without_shared_bases(start, fields["ref"], fields["alt"])
            expected["start"] = start
            start, end = max(0, start - task.variant.stored_context_bp), start + task.variant.stored_context_bp + 1
        sequence = str(self.fasta[fields["chromosome"]][start:end])
        minus = task.stranded and fields.get("strand") == "-"
        if task.variant is None:
            sequence = sequence.ljust(end - start, "N")
        if minus:
            sequence = str(pyfaidx.Sequence(seq=sequence).reverse.complement)
        expected |= {"sequence": sequence, "strand": "-" if minus else "+"}
        name = "label" if isinstance(task.label, SequenceClass) else "labels"
        expected[name] = self._label(fields, item, n_bp=end - start, flip=minus and self.flip_labels)
        if "split" in fields and subset in ("train", "validation", "test"):
            row = {**row, "split": subset}
            expected["split"] = "validation" if fields["split"] == "valid" else fields["split"]
        if isinstance(task.label, RealValues):  # nan differs from itself
            row = {**row, name: list(map(str, np.array(row[name], np.float32)))}
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
            case RealValues(names=names):
                texts = ["nan" if text.strip().lower() in ("", "na") else text for text in fields["label"].split(",")]
                texts = texts * len(names) if len(texts) == 1 else texts
                return list(map(str, np.array(texts, np.float64).astype(np.float32)))
            case MultiLabel():
                return [int(float(value)) for value in fields["label"].split(",") if value]
            case _:
                return int(float(fields["label"]))
