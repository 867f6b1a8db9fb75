"""Reads a bed file as columns, and says file and row of whatever is wrong in it.

For the dataset builder and for whoever brings a bed of their own:

>>> from pathlib import Path; from tempfile import mkdtemp
>>> bed = Path(mkdtemp()) / "tiny.bed"
>>> _ = bed.write_text("chromosome\\tstart\\tend\\tsplit\\nchr1\\t10\\t20\\tvalid\\n")
>>> table = read_bed(bed)
>>> table.start_bp.tolist(), table.split.to_pylist()
([10], ['validation'])

The form is BEND's: tab-separated with a header, 0-based, half-open. Columns are found by name, in any order. The
header may also call the first three as UCSC does (``chrom``, ``#chrom``, ``chromStart``, ``chromEnd``). The strand
is in the column ``strand``, or, as in older files of BEND, in the fourth column where that holds only + and -.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.errors import InputError, did_you_mean
from bend_hf.shapes import Ints

if TYPE_CHECKING:
    import pyarrow as pa

_NAMES: Final = {
    "chromosome": ("chromosome", "chrom", "#chrom", "#chromosome", "chr", "#chr"),
    "start": ("start", "chromStart"),
    "end": ("end", "chromEnd"),
}
_NEVER_STRAND: Final = frozenset({"ref", "alt", "label", "split"})
_SHOWN: Final = 5


def name_rows(rows: Iterable[int], describe: Callable[[int], str]) -> str:
    """The first five of some rows as a message should call them, and how many more there are.

    >>> name_rows(range(7), "row {}".format)
    'row 0, row 1, row 2, row 3, row 4 and 2 more'
    """
    numbers = [int(row) for row in rows]
    shown = ", ".join(map(describe, numbers[:_SHOWN]))
    return shown + (f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else "")


@dataclass(frozen=True, kw_only=True)
class BedTable:
    """A bed file as columns; R rows.

    Attributes:
        path: Where it was read.
        columns: All columns as strings, as they stand in the file, but for the names of the first three, which are
            ``chromosome``, ``start`` and ``end``.
        chromosome: Contig names, dictionary of strings, length R.
        start_bp: First nucleotide, 0-based, shape (R,).
        end_bp: Behind the last nucleotide, shape (R,).
        strand: 1 for plus, -1 for minus, shape (R,); None where the bed tells no strand.
        split: Split or fold names, dictionary of strings, length R; BEND's ``valid`` reads ``validation``. None
            where the bed has no such column.
        line_numbers: Which line of the file each row is, counted from 1 with the header, shape (R,).
    """

    path: Path
    columns: pa.Table
    chromosome: pa.DictionaryArray
    start_bp: Ints
    end_bp: Ints
    strand: NDArray[np.int8] | None
    split: pa.DictionaryArray | None
    line_numbers: Ints

    def __len__(self) -> int:
        return len(self.start_bp)

    def row_number(self, row: int) -> int:
        """The line of the file that a row (counted from 0) was read from, counted from 1 with the header."""
        return int(self.line_numbers[row])

    def describe(self, row: int) -> str:
        """What a message should call a row: file and line."""
        return f"{self.path}, line {self.row_number(row)}"

    def split_names(self) -> list[str]:
        """The names in ``split``, sorted; none where the bed has no such column."""
        return [] if self.split is None else sorted(set(self.split.dictionary.to_pylist()))

    def take(self, rows: Ints) -> BedTable:
        """Some of the rows, which keep their line numbers."""
        chosen = {
            field.name: value.take(rows) if hasattr(value, "take") else value
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        return replace(self, **chosen)


def read_bed(path: str | Path, *, require: Sequence[str] = (), allow_empty: bool = False) -> BedTable:
    """Read a bed file, plain or compressed with gzip or bgzip.

    Args:
        path: The file.
        require: Columns that must be there besides chromosome, start and end.
        allow_empty: Whether intervals with start = end may stand in it, as in files of variants.

    Raises:
        InputError: The file is missing, empty or no bed, lacks a column, or has rows that are none. The message
            names the file, the first five rows, and what to do.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from bend_hf.data.bed_text import read_columns

    path = Path(path)
    columns, line_numbers = read_columns(path, canonical=_NAMES)
    _require(path, columns.column_names, require)

    def show(column: str) -> Callable[[int], str]:
        return lambda row: f"line {line_numbers[row]} ({columns[column][row].as_py()!r})"

    start_bp, end_bp = (_whole_numbers(path, columns[name], show(name), name) for name in ("start", "end"))
    for name in ("chromosome", "split"):
        if name in columns.column_names:
            blank = np.flatnonzero(pc.equal(columns[name], "").to_numpy())
            if len(blank):
                raise InputError(f"{path}: {name} is empty in {name_rows(blank, show(name))}; write one in each row")
    short = np.flatnonzero(start_bp > end_bp if allow_empty else start_bp >= end_bp)
    if len(short):
        rows = name_rows(short, lambda row: f"line {line_numbers[row]} ({start_bp[row]}-{end_bp[row]})")
        raise InputError(
            f"{path}: start must be {'at most' if allow_empty else 'less than'} end (0-based, half-open), "
            f"but is not in {rows}; mend or remove these rows"
        )
    split = None
    if "split" in columns.column_names:
        split = _dictionary(columns["split"])
        names = ["validation" if name == "valid" else name for name in split.dictionary.to_pylist()]
        split = pa.DictionaryArray.from_arrays(split.indices, pa.array(names, pa.string()))
    return BedTable(
        path=path,
        columns=columns,
        chromosome=_dictionary(columns["chromosome"]),
        start_bp=start_bp,
        end_bp=end_bp,
        strand=_strand(path, columns, show),
        split=split,
        line_numbers=line_numbers,
    )


def _require(path: Path, found: list[str], wanted: Sequence[str]) -> None:
    """Refuse a bed that lacks a column."""
    for name in (*_NAMES, *wanted):
        if name not in found:
            raise InputError(
                f"{path} has no column {name!r} among {', '.join(found)}; {did_you_mean(name, found)} "
                "Name it in the first line of the file"
            )


def _dictionary(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """One dictionary array out of a column of strings."""
    return column.combine_chunks().dictionary_encode()


def _whole_numbers(path: Path, column: pa.ChunkedArray, show: Callable[[int], str], name: str) -> Ints:
    """A column of strings as integers that are not negative, shape (rows,)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = pc.match_substring_regex(column, r"^[0-9]{1,18}$").to_numpy()
    if not plain.all():
        bad = np.flatnonzero(~plain)
        raise InputError(
            f"{path}: {name} must be a whole number of nucleotides, 0 or more, but is not in "
            f"{name_rows(bad, show)}; mend or remove these rows"
        )
    numbers: Ints = column.cast(pa.int64()).to_numpy()
    return numbers


def _strand(path: Path, columns: pa.Table, show: Callable[[str], Callable[[int], str]]) -> NDArray[np.int8] | None:
    """The strand of each row, or None where the bed tells none."""
    name = "strand" if "strand" in columns.column_names else None
    if name is None and columns.num_columns > 3 and columns.column_names[3] not in _NEVER_STRAND:
        values = set(columns.column(3).unique().to_pylist())
        if values & {"+", "-"} and values <= {"+", "-", ".", ""}:
            name = columns.column_names[3]
    if name is None:
        return None
    text = _dictionary(columns[name])
    sign_of = np.array([{"+": 1, "-": -1}.get(value, 0) for value in text.dictionary.to_pylist()], np.int8)
    signs: NDArray[np.int8] = sign_of[text.indices.to_numpy()]
    unknown = np.flatnonzero(signs == 0)
    if len(unknown):
        raise InputError(
            f"{path}: the strand must be + or -, but is not in {name_rows(unknown, show(name))}; "
            "write the strand, or remove the column if it does not matter"
        )
    return signs
