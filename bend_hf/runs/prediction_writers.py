"""Write predictions with coordinates: every score as Parquet, classes as BED, one label as bedGraph or bigWig."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from bend_hf.errors import ConfigError, did_you_mean
from bend_hf.files import atomic_path, explain_write_errors
from bend_hf.runs.bigwig import bigwig_writer
from bend_hf.tasks import LabelKind, RealValues
from bend_hf.types import Floats, Ints

_YES: Final = 0.5  # probability from which a label is present
_HIGHEST: Final = 1000  # score of a BED file, https://genome.ucsc.edu/FAQ/FAQformat.html#format1
BIGWIG: Final = (".bw", ".bigwig")  # rows must come in the order of the genome
_ENDINGS: Final = (".parquet", ".bed", ".bedgraph", ".bw")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Predictions of n windows.

    Attributes:
        chromosome: Contig names, a dictionary array, length n.
        start_bp: First nucleotide, 0-based, shape (n,).
        end_bp: Position after the last nucleotide, shape (n,).
        strand: 1 or -1, shape (n,); None if the strand does not matter.
        scores: Float32, shape (n, labels).
        predicted: Index of the most probable class, shape (n,); None if each label has a score of its own.
    """

    chromosome: pa.DictionaryArray
    start_bp: Ints
    end_bp: Ints
    strand: NDArray[np.int8] | None
    scores: Floats
    predicted: Ints | None

    def __len__(self) -> int:
        return len(self.start_bp)


Write: TypeAlias = Callable[[Rows], None]
Opens: TypeAlias = Callable[[Path], AbstractContextManager[Write]]


def writer_of(out: Path, label: LabelKind, name: str | None, contigs: Mapping[str, int]) -> Opens:
    """Return what opens the file of predictions, by its ending.

    Args:
        out: The file.
        label: The labels of the head.
        name: The label whose score a bedGraph or bigWig holds; None for the second of two.
        contigs: Length of each contig, which a bigWig states.

    Raises:
        ConfigError: The ending or the label is unknown, or does not fit the labels, or pyBigWig is not installed.
    """
    ending = out.suffix.lower()
    if ending not in (*_ENDINGS, *BIGWIG):
        raise ConfigError(f"--out {out} ends with {ending!r}; expected {', '.join(_ENDINGS)}")
    if ending in (".parquet", ".bed"):
        if name is not None:
            raise ConfigError(
                f"--label is {name}, but {out.name} holds all labels; leave it out, or give a .bedgraph or .bw"
            )
        if ending == ".parquet":
            return partial(_parquet, names=label.names)
        if isinstance(label, RealValues):
            raise ConfigError(f"--out {out}: the head predicts values and no classes; give a .bedgraph or a .parquet")
        return partial(_bed, names=label.names)
    if name is None and len(label.names) > 2:
        raise ConfigError(f"--out {out} holds one label; choose with --label, such as {label.names[0]!r}")
    if name is not None and name not in label.names:
        raise ConfigError(f"--label {name!r} is unknown; {did_you_mean(name, list(label.names))}")
    column = label.names.index(name) if name is not None else len(label.names) - 1
    if ending == ".bedgraph":
        return partial(_bedgraph, column=column)
    if find_spec("pyBigWig") is None:
        raise ConfigError(f"--out {out} needs pyBigWig: pip install 'bend-hf[bigwig]'; or give a .bedgraph")
    return partial(_bigwig, column=column, contigs=contigs)


@contextmanager
def _parquet(path: Path, *, names: tuple[str, ...]) -> Iterator[Write]:
    scores = pa.list_(pa.float32(), len(names))
    schema = pa.schema(
        {
            "chromosome": pa.dictionary(pa.int32(), pa.string()),
            "start": pa.int64(),
            "end": pa.int64(),
            "strand": pa.string(),
            "predicted": pa.dictionary(pa.int32(), pa.string()),
            "scores": scores,
        },
        metadata={"label_names": json.dumps(names)},
    )
    with explain_write_errors(path), atomic_path(path) as part, pa.parquet.ParquetWriter(part, schema) as file:

        def write(rows: Rows) -> None:
            predicted = (
                pa.nulls(len(rows), pa.int32()) if rows.predicted is None else pa.array(rows.predicted, pa.int32())
            )
            flat = pa.array(rows.scores.astype(np.float32, copy=False).reshape(-1))
            columns = [
                rows.chromosome.cast(schema.field("chromosome").type),
                pa.array(rows.start_bp),
                pa.array(rows.end_bp),
                _strands(rows),
                pa.DictionaryArray.from_arrays(predicted, pa.array(names)),
                pa.FixedSizeListArray.from_arrays(flat, type=scores),
            ]
            file.write_table(pa.table(columns, schema=schema))

        yield write


@contextmanager
def _bed(path: Path, *, names: tuple[str, ...]) -> Iterator[Write]:
    """Write neighboring windows of one class as one row, or a row for each label that is present."""
    with explain_write_errors(path), atomic_path(path) as part, part.open("wb") as file:
        held: Rows | None = None

        def write(rows: Rows) -> None:
            nonlocal held
            if rows.predicted is None:
                window, label = np.nonzero(rows.scores >= _YES)
                _write_bed(file, replace(_take(rows, window), predicted=label), rows.scores[window, label], names)
                return
            rows = rows if held is None else _joined(held, rows)
            last = _starts_of_runs(rows)[-1]  # the last run may go on in the next rows
            _write_runs(file, _take(rows, np.arange(last)), names)
            held = _take(rows, np.arange(last, len(rows)))

        yield write
        if held is not None:
            _write_runs(file, held, names)


@contextmanager
def _bedgraph(path: Path, *, column: int) -> Iterator[Write]:
    with explain_write_errors(path), atomic_path(path) as part, part.open("wb") as file:

        def write(rows: Rows) -> None:
            columns = [rows.chromosome.cast(pa.string()), pa.array(rows.start_bp), pa.array(rows.end_bp)]
            _write_text(file, [*columns, pa.array(rows.scores[:, column].astype(np.float32))])

        yield write


@contextmanager
def _bigwig(path: Path, *, column: int, contigs: Mapping[str, int]) -> Iterator[Write]:
    with explain_write_errors(path), atomic_path(path) as part, bigwig_writer(part, contigs) as writes:

        def write(rows: Rows) -> None:
            names = rows.chromosome.cast(pa.string()).to_numpy(zero_copy_only=False).astype(np.str_)
            writes(names, rows.start_bp, rows.end_bp, rows.scores[:, column].astype(np.float64))

        yield write


def _starts_of_runs(rows: Rows) -> Ints:
    """Return the first row of each run of neighboring windows of one class."""
    if rows.predicted is None:
        return np.arange(len(rows))
    contig = rows.chromosome.indices.to_numpy()
    strand = np.ones(len(rows)) if rows.strand is None else rows.strand
    same = (rows.predicted[1:] == rows.predicted[:-1]) & (contig[1:] == contig[:-1]) & (strand[1:] == strand[:-1])
    same &= rows.start_bp[1:] == rows.end_bp[:-1]
    return np.flatnonzero(np.concatenate([[True], ~same]))


def _write_runs(file: IO[bytes], rows: Rows, names: tuple[str, ...]) -> None:
    if not len(rows) or rows.predicted is None:
        return
    first = _starts_of_runs(rows)
    last = np.append(first[1:], len(rows)) - 1
    probability = rows.scores[np.arange(len(rows)), rows.predicted].astype(np.float64)
    mean = np.add.reduceat(probability, first) / (last - first + 1)
    _write_bed(file, replace(_take(rows, first), end_bp=rows.end_bp[last]), mean, names)


def _write_bed(file: IO[bytes], rows: Rows, score: Floats | NDArray[np.float64], names: tuple[str, ...]) -> None:
    columns = [
        rows.chromosome.cast(pa.string()),
        pa.array(rows.start_bp),
        pa.array(rows.end_bp),
        pa.array(names).take(pa.array(rows.predicted)),
        pa.array(np.rint(score * _HIGHEST).astype(np.int64)),
        _strands(rows),
    ]
    _write_text(file, columns)


def _write_text(file: IO[bytes], columns: list[pa.Array]) -> None:
    """Write lines of cells that hold no tab and no line end; pyarrow's writer of CSV refuses names with quotes."""
    cells = [column.cast(pa.large_string()) for column in columns]
    nothing, tab, end = (pa.scalar(text, pa.large_string()) for text in ("", "\t", "\n"))
    lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*cells, tab), nothing, end)
    if len(lines):
        file.write(lines.buffers()[2])


def _strands(rows: Rows) -> pa.Array:
    if rows.strand is None:
        return pa.array(np.full(len(rows), "."), pa.string())
    return pa.array(np.where(rows.strand < 0, "-", "+"), pa.string())


def _take(rows: Rows, chosen: Ints) -> Rows:
    return Rows(
        chromosome=rows.chromosome.take(pa.array(chosen)),
        start_bp=rows.start_bp[chosen],
        end_bp=rows.end_bp[chosen],
        strand=None if rows.strand is None else rows.strand[chosen],
        scores=rows.scores[chosen],
        predicted=None if rows.predicted is None else rows.predicted[chosen],
    )


def _joined(one: Rows, two: Rows) -> Rows:
    """Lay rows of one head behind each other; their contigs have one dictionary."""
    return Rows(
        chromosome=pa.concat_arrays([one.chromosome, two.chromosome]),
        start_bp=np.concatenate([one.start_bp, two.start_bp]),
        end_bp=np.concatenate([one.end_bp, two.end_bp]),
        strand=None if one.strand is None or two.strand is None else np.concatenate([one.strand, two.strand]),
        scores=np.concatenate([one.scores, two.scores]),
        predicted=None
        if one.predicted is None or two.predicted is None
        else np.concatenate([one.predicted, two.predicted]),
    )
