"""Read tab-separated text, plain or compressed, with its line numbers; BED and VCF files are read through it.

UTF-8 with or without a byte order mark, any line ends. Blank lines are skipped and counted. Text that is not UTF-8 is
refused with its line, unless nothing is read from it.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from bend_hf.data.fasta_index import is_gzip
from bend_hf.data.gzip_files import open_gzip
from bend_hf.errors import InputError
from bend_hf.files import UTF8_MARK, check_regular, decode_utf8
from bend_hf.types import Ints

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import csv

_LONGEST_HEADER_LINE: Final = 1 << 26  # the names of samples in a VCF file may take megabytes
_SHOWN: Final = 5


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """R rows of a tab-separated file.

    Attributes:
        columns: The columns as strings.
        line_numbers: Line of each row in the file, counted from 1, shape (R,).
    """

    columns: pa.Table
    line_numbers: Ints


@dataclass(frozen=True, kw_only=True)
class TabSeparated:
    """A tab-separated file.

    Attributes:
        path: The file.
        kind: What the file should be, for messages: ``BED file``.
        expected: What the first lines should be, for messages.
    """

    path: Path
    kind: str
    expected: str

    def first_lines(self) -> Iterator[tuple[int, bytes]]:
        """Read the lines of a header as bytes, with their numbers, counted from 1.

        Raises:
            InputError: The file cannot be read, or a line is longer than 64 MB.
        """
        try:
            with _binary(self.path) as file:
                number = 0
                while line := file.readline(_LONGEST_HEADER_LINE):
                    if number == 0:
                        self._refuse_other_encodings(line)
                        line = line.removeprefix(UTF8_MARK)
                    # A lone carriage return ends a line too, as in the rows.
                    for text in line.removesuffix(b"\n").removesuffix(b"\r").split(b"\r"):
                        number += 1
                        yield number, text
                    if len(line) == _LONGEST_HEADER_LINE:
                        raise InputError(f"{self.path}, line {number}: the line does not end; {self.expected}")
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{self.path}: the {self.kind} cannot be read ({reason}); check the path") from None

    def decode(self, number: int, line: bytes) -> str:
        """Decode a line of the header.

        Raises:
            InputError: It is not UTF-8.
        """
        return decode_utf8(line, self.path, first_line=number)

    def rows(self, names: Sequence[str], *, n_header_lines: int, wanted: Sequence[str] | None = None) -> TextTable:
        """Read the rows after the header. Lines of blanks are skipped.

        Args:
            names: Names of all columns.
            n_header_lines: Number of lines before the first row.
            wanted: The columns to read; None reads all.

        Raises:
            InputError: The file cannot be read, has no rows, or a row has another number of columns.
        """
        import pyarrow as pa
        from pyarrow import csv

        blanks: list[int] = []
        ragged: list[tuple[int, int]] = []

        def on_other_width(row: csv.InvalidRow) -> str:
            if row.text.strip():
                ragged.append((row.number, row.actual_columns))
            else:
                blanks.append(row.number)
            return "skip"

        wanted = list(wanted or names)
        try:
            # A compressed file is inflated in Python, as fast as Arrow does it, which has no limit for it.
            with _binary(self.path) as file, pa.PythonFile(file, mode="r") as stream, _quiet_about_rows():
                table = csv.read_csv(
                    stream,
                    read_options=csv.ReadOptions(use_threads=False, column_names=list(names), skip_rows=n_header_lines),
                    parse_options=csv.ParseOptions(
                        delimiter="\t",
                        quote_char=False,
                        double_quote=False,
                        escape_char=False,
                        newlines_in_values=False,
                        ignore_empty_lines=False,
                        invalid_row_handler=on_other_width,
                    ),
                    convert_options=csv.ConvertOptions(
                        column_types=dict.fromkeys(wanted, pa.string()),
                        include_columns=wanted,
                        strings_can_be_null=False,
                    ),
                )
        except (pa.ArrowInvalid, OSError, EOFError, zlib.error) as error:
            self._refuse_what_is_not_utf8(n_header_lines)
            raise InputError(
                f"{self.path}: cannot be read as tab-separated text ({error}); write or download it again"
            ) from None
        if ragged:
            shown = ", ".join(f"line {line} has {n_found}" for line, n_found in ragged[:_SHOWN])
            more = f" and {len(ragged) - _SHOWN} more" if len(ragged) > _SHOWN else ""
            raise InputError(
                f"{self.path}: the header has {len(names)} columns, but {shown}{more}. Write every field; "
                "an empty one is nothing between two tabs"
            )
        first = n_header_lines + 1
        numbers = np.delete(np.arange(first, first + table.num_rows + len(blanks)), np.array(blanks, np.int64) - first)
        return _without_blank_rows(table, numbers)

    def _refuse_other_encodings(self, line: bytes) -> None:
        """Raise if the first line has the mark of UTF-16."""
        if line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InputError(f"{self.path} is UTF-16 text; expected UTF-8. Save it as UTF-8")
        if b"\0" in line:
            raise InputError(f"{self.path} is not a text file; {self.expected}")

    def _refuse_what_is_not_utf8(self, n_header_lines: int) -> None:
        """Raise if a row is not UTF-8, with its line number."""
        try:
            with _binary(self.path) as file:
                for number, line in enumerate(file, start=1):
                    if number > n_header_lines:
                        decode_utf8(line, self.path, first_line=number)
        except (OSError, EOFError, zlib.error):
            return


@contextmanager
def _binary(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Open a file as bytes, decompressed if gzip or bgzip compressed it."""
    with open_gzip(path) if _is_compressed(path) else path.open("rb") as file:
        yield file


@contextmanager
def _quiet_about_rows() -> Iterator[None]:
    """Print no trace for a row of another width that is not UTF-8: Arrow drops that error, the table names the line."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = before


def _is_compressed(path: Path) -> bool:
    check_regular(path)
    with path.open("rb") as file:
        return is_gzip(file.read(2))


def _without_blank_rows(table: pa.Table, line_numbers: Ints) -> TextTable:
    """Drop rows of which every field is empty: pyarrow makes them of empty lines."""
    import pyarrow.compute as pc

    filled = np.zeros(table.num_rows, np.bool_)
    for column in table.columns:
        filled |= pc.not_equal(column, "").to_numpy()
        if filled.all():
            return TextTable(columns=table, line_numbers=line_numbers)
    return TextTable(columns=table.filter(filled), line_numbers=line_numbers[filled])
