"""Reads a tab-separated file with a header as columns of strings, and refuses what is none.

For `bend_hf.data.intervals.read_bed`, which knows what the columns mean:

>>> from pathlib import Path; from tempfile import mkdtemp
>>> bed = Path(mkdtemp()) / "tiny.bed"
>>> _ = bed.write_text("chrom\\tstart\\tend\\nchr1\\t10\\t20\\n")
>>> read_columns(bed, canonical={"chromosome": ("chromosome", "chrom")})[0].column_names
['chromosome', 'start', 'end']
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.data.bgzf import is_gzip
from bend_hf.errors import InputError
from bend_hf.shapes import Ints

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import csv

_LONGEST_HEADER: Final = 1 << 16
_HEADER_ADVICE: Final = "expected a tab-separated header such as chromosome, start, end, strand, label, split"


def read_columns(path: Path, *, canonical: Mapping[str, Sequence[str]]) -> tuple[pa.Table, Ints]:
    """All columns of a tab-separated file as strings.

    Args:
        path: The file, plain or compressed with gzip or bgzip.
        canonical: For a column name, all spellings that mean it.

    Returns:
        The columns, and for each row its line in the file, counted from 1 with the header, shape (rows,). Lines
        with nothing in them are no rows.

    Raises:
        InputError: The file cannot be read, has no header, no rows, or rows of another number of columns.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    header, compressed = _header(path)
    names = _column_names(path, header, canonical)
    blanks: list[int] = []
    ragged: list[tuple[int, int]] = []

    def on_other_width(row: csv.InvalidRow) -> str:
        if row.text.strip():
            ragged.append((row.number, row.actual_columns))
        else:
            blanks.append(row.number)
        return "skip"

    try:
        with pa.input_stream(path, compression="gzip" if compressed else None) as stream:
            table = csv.read_csv(
                stream,
                read_options=csv.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
                parse_options=tab_separated(on_other_width),
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
                ),
            )
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: cannot be read as tab-separated text ({error}); write or fetch it again") from None
    if ragged:
        shown = ", ".join(f"line {line} has {n_found}" for line, n_found in ragged[:5])
        more = f" and {len(ragged) - 5} more" if len(ragged) > 5 else ""
        raise InputError(
            f"{path}: the header has {len(names)} columns, but {shown}{more}; write every field, an empty one as "
            "nothing between two tabs"
        )
    line_numbers = np.delete(np.arange(2, 2 + table.num_rows + len(blanks)), np.array(blanks, np.int64) - 2)
    filled = np.zeros(table.num_rows, np.bool_)
    for column in table.columns:
        filled |= pc.not_equal(column, "").to_numpy()
    if not filled.any():
        raise InputError(f"{path} holds a header and no rows; fetch or make the file again")
    return (table, line_numbers) if filled.all() else (table.filter(filled), line_numbers[filled])


def tab_separated(on_other_width: Callable[[csv.InvalidRow], str]) -> csv.ParseOptions:
    """How beds and VCFs are parsed: fields between tabs, no quoting, and a say in rows of another width."""
    from pyarrow import csv

    return csv.ParseOptions(
        delimiter="\t",
        quote_char=False,
        double_quote=False,
        escape_char=False,
        newlines_in_values=False,
        ignore_empty_lines=False,
        invalid_row_handler=on_other_width,
    )


def _header(path: Path) -> tuple[str, bool]:
    """The first line of a file, and whether the file is compressed."""
    try:
        with path.open("rb") as file:
            compressed = is_gzip(file.read(2))
        with gzip.open(path) if compressed else path.open("rb") as file:
            line = file.readline(_LONGEST_HEADER)
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file; {_HEADER_ADVICE}") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: the bed file cannot be read ({reason}); check the path") from None
    if not line:
        raise InputError(f"{path} is empty; {_HEADER_ADVICE}")
    return text, compressed


def _column_names(path: Path, header: str, canonical: Mapping[str, Sequence[str]]) -> list[str]:
    """The column names in a header, spelled in our way; refuses what is no header."""
    found = [name.strip() for name in header.split("\t")]
    if len(found) == 1:
        raise InputError(f"{path}: no tab in its first line {header[:60]!r}; {_HEADER_ADVICE}")
    if any(name.isdigit() for name in found):
        raise InputError(f"{path}: the first line {header[:60]!r} looks like data; {_HEADER_ADVICE}")
    for name, spellings in canonical.items():
        present = [spelling for spelling in spellings if spelling in found]
        if present:
            found[found.index(present[0])] = name
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice or "" in found:
        raise InputError(
            f"{path}: {f'the column {twice[0]!r} stands twice' if twice and twice[0] else 'a column has no name'} "
            "in the header; give each column a name of its own"
        )
    return found
