r"""Read a BED file as columns, and name file and line of everything that is wrong in it.

>>> from pathlib import Path; from tempfile import mkdtemp
>>> bed = Path(mkdtemp()) / "tiny.bed"
>>> _ = bed.write_text("chromosome\tstart\tend\tsplit\nchr1\t10\t20\tvalid\n")
>>> table = read_bed(bed)
>>> table.start_bp.tolist(), table.split.to_pylist()
([10], ['validation'])

The format is BEND's: tab-separated with a header, 0-based, half-open. Columns are found by name, in any order. The
header may also name the first three as UCSC does (``chrom``, ``#chrom``, ``chromStart``, ``chromEnd``), and spell any
name in capitals. The strand is in the column ``strand``, or, as in older files of BEND, in the fourth column if it
holds only + and -.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.data.tab_separated import TabSeparated
from bend_hf.errors import InputError, did_you_mean
from bend_hf.types import Ints

if TYPE_CHECKING:
    import pyarrow as pa

# The columns that have a meaning, and their other spellings, in lower case. PyRanges and R write capitals.
_NAMES: Final = {
    "chromosome": ("chromosome", "chrom", "#chrom", "#chromosome", "chr", "#chr"),
    "start": ("start", "chromstart"),
    "end": ("end", "chromend"),
    **{name: (name,) for name in ("strand", "label", "full_label", "split", "ref", "alt")},
}
_REQUIRED: Final = ("chromosome", "start", "end")
_NEVER_STRAND: Final = frozenset({"ref", "alt", "label", "split"})
_SHOWN: Final = 5
_FIRST_ROWS: Final = 16  # enough to see that most columns hold no strand


def name_rows(rows: Iterable[int], describe: Callable[[int], str]) -> str:
    """Name the first five of some rows for a message, and count the others.

    >>> name_rows(range(7), "row {}".format)
    'row 0, row 1, row 2, row 3, row 4 and 2 more'
    """
    numbers = [int(row) for row in rows]
    shown = ", ".join(map(describe, numbers[:_SHOWN]))
    return shown + (f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else "")


@dataclass(frozen=True, kw_only=True)
class BedTable:
    """A BED file as columns; R rows.

    Attributes:
        path: The file.
        columns: All columns as strings, as in the file; those that have a meaning are named ``chromosome``,
            ``start``, ``end``, ``strand``, ``label``, ``full_label``, ``split``, ``ref`` and ``alt``.
        chromosome: Contig names, dictionary of strings, length R.
        start_bp: First nucleotide, 0-based, shape (R,).
        end_bp: Position after the last nucleotide, shape (R,).
        strand: 1 for plus, -1 for minus, shape (R,); None if the file has no strand.
        split: Split or fold names, dictionary of strings, length R, with BEND's ``valid`` as ``validation``; None if
            the file has no such column.
        line_numbers: Line of each row in the file, counted from 1 with the header, shape (R,).
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
        """Return the line of a row (counted from 0) in the file, counted from 1 with the header."""
        return int(self.line_numbers[row])

    def line(self, row: int) -> str:
        """Name the line of a row for a message that names the file."""
        return f"line {self.row_number(row)}"

    def describe(self, row: int) -> str:
        """Name a row for a message: file and line."""
        return f"{self.path}, {self.line(row)}"

    def signed_columns(self) -> list[str]:
        """Return the names of columns that hold only + and -, as a strand does."""
        names = [name for name in self.columns.column_names if name not in _NEVER_STRAND]
        return [
            name
            for name in names
            if set(self.columns[name].slice(0, _FIRST_ROWS).to_pylist()) <= {"+", "-"}
            and set(self.columns[name].unique().to_pylist()) <= {"+", "-"}
        ]

    def split_names(self) -> list[str]:
        """Return the sorted names in ``split``; an empty list if there is no such column."""
        return [] if self.split is None else sorted(set(self.split.dictionary.to_pylist()))

    def take(self, rows: Ints) -> BedTable:
        """Return some of the rows, with their line numbers."""
        chosen = {
            field.name: value.take(rows) if hasattr(value, "take") else value
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        return replace(self, **chosen)


def read_bed(path: str | Path, *, require: Sequence[str] = (), allow_empty: bool = False) -> BedTable:
    """Read a BED file, plain or compressed with gzip or bgzip.

    Args:
        path: The file.
        require: Required columns in addition to chromosome, start and end.
        allow_empty: Allow intervals with start = end, as in files of variants.

    Raises:
        InputError: The file is missing, empty or not a BED file, a column is missing, or a row is invalid. The message
            names the file, the first five rows, and what to do.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    path = Path(path)
    columns, line_numbers = _read_columns(path)
    _require(path, columns.column_names, require)

    def show(column: str) -> Callable[[int], str]:
        return lambda row: f"line {line_numbers[row]} ({columns[column][row].as_py()!r})"

    start_bp, end_bp = (_whole_numbers(path, columns[name], show(name), name) for name in ("start", "end"))
    for name in ("chromosome", "split"):
        if name in columns.column_names:
            blank = np.flatnonzero(pc.equal(columns[name], "").to_numpy())
            if len(blank):
                raise InputError(
                    f"{path}: {name} is empty in {name_rows(blank, show(name))}; fill it in or remove the row"
                )
    short = np.flatnonzero(start_bp > end_bp if allow_empty else start_bp >= end_bp)
    if len(short):
        row, rule = int(short[0]), "not exceed" if allow_empty else "be smaller than"
        raise InputError(
            f"{path}, line {line_numbers[row]}: start ({start_bp[row]}) must {rule} end ({end_bp[row]}); "
            f"BED is 0-based, half-open. Fix or remove {name_rows(short, lambda row: f'line {line_numbers[row]}')}"
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
    """Raise if a column is missing."""
    for name in (*_REQUIRED, *wanted):
        if name not in found:
            raise InputError(
                f"{path} has no column {name!r} among {', '.join(found)}; {did_you_mean(name, found)} "
                "Name it in the first line of the file"
            )


def _dictionary(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Encode a column of strings as one dictionary array."""
    return column.combine_chunks().dictionary_encode()


def _whole_numbers(path: Path, column: pa.ChunkedArray, show: Callable[[int], str], name: str) -> Ints:
    """Parse a column of whole numbers, 0 or more, shape (rows,)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = pc.match_substring_regex(column, r"^[0-9]{1,18}$").to_numpy()
    if not plain.all():
        bad = np.flatnonzero(~plain)
        raise InputError(
            f"{path}: {name} must be a whole number, 0 or more: {name_rows(bad, show)}. Fix or remove these rows"
        )
    numbers: Ints = column.cast(pa.int64()).to_numpy()
    return numbers


def _strand(path: Path, columns: pa.Table, show: Callable[[str], Callable[[int], str]]) -> NDArray[np.int8] | None:
    """Return the strand of each row, or None if the file has no strand."""
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
            f"{path}: the strand must be + or -: {name_rows(unknown, show(name))}. "
            "Write the strand, or remove the column if the task is not stranded"
        )
    return signs


_HEADER_ADVICE: Final = "expected a tab-separated header such as chromosome, start, end, strand, label, split"


def column_names(path: Path) -> list[str]:
    """Read the names of the columns, those that have a meaning as ``BedTable`` names them.

    Raises:
        InputError: The file is missing, empty or not a BED file.
    """
    return _header_of(path)[1]


def _header_of(path: Path) -> tuple[int, list[str]]:
    """Return the number of lines before the first row, and the names of the columns."""
    file = TabSeparated(path=path, kind="BED file", expected=_HEADER_ADVICE)
    number, line = next(file.first_lines(), (0, b""))
    if not number:
        raise InputError(f"{path} is empty; {_HEADER_ADVICE}")
    return number, _column_names(path, file.decode(number, line))


def _read_columns(path: Path) -> tuple[pa.Table, Ints]:
    """Read a BED file as string columns, and the line of each row in the file, counted from 1 with the header."""
    number, names = _header_of(path)
    file = TabSeparated(path=path, kind="BED file", expected=_HEADER_ADVICE)
    table = file.rows(names, n_header_lines=number)
    if not len(table.line_numbers):
        raise InputError(f"{path} has a header but no rows; download or write it again")
    return table.columns, table.line_numbers


def _column_names(path: Path, header: str) -> list[str]:
    """Parse a header into column names, those that have a meaning as it is spelled here. Raise if it is no header."""
    found = [name.strip() for name in header.split("\t")]
    if len(found) == 1:
        raise InputError(f"{path}: no tab in the first line {header[:60]!r}; {_HEADER_ADVICE}")
    if all(name[:1] == name[-1:] and name[:1] in ("'", '"') for name in found):
        raise InputError(
            f"{path}: the column names are in quotes ({header[:60]!r}); expected plain text between tabs. Write the "
            "file without quotes (in R with quote=FALSE, in pandas with quoting=csv.QUOTE_NONE)"
        )
    if any(name.isdigit() for name in found):
        raise InputError(f"{path}: the first line {header[:60]!r} looks like data; {_HEADER_ADVICE}")
    lowered = [name.lower() for name in found]
    for name, spellings in _NAMES.items():
        if name in found:
            continue
        places = [place for place, spelling in enumerate(lowered) if spelling in spellings]
        if len(places) > 1:
            raise InputError(
                f"{path}: {' and '.join(repr(found[place]) for place in places)} may each be the column {name!r}; "
                f"name one of them {name!r} and the others differently"
            )
        for place in places:
            found[place] = name
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice or "" in found:
        raise InputError(
            f"{path}: {f'the column {twice[0]!r} occurs twice' if twice and twice[0] else 'a column has no name'} "
            "in the header; give each column its own name"
        )
    return found
