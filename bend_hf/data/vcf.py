r"""Read a VCF file as the columns of a BED file of variants: 0-based, one row per alternative allele.

>>> from pathlib import Path; from tempfile import mkdtemp
>>> vcf = Path(mkdtemp()) / "tiny.vcf"
>>> header = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
>>> _ = vcf.write_text(header + "chr1\t11\t.\tA\tG,T\t.\tPASS\tlabel=1\n")
>>> table = read_vcf(vcf)
>>> table.start_bp.tolist(), table.columns["alt"].to_pylist(), table.columns["label"].to_pylist()
([10, 10], ['G', 'T'], ['1', '1'])

Positions of a VCF file are 1-based and become 0-based here. A line with several alternative alleles becomes one row per
allele, as it is written; ``bend_hf.data.variants`` compares REF with the genome and normalizes. Fields of INFO become
columns if they are requested by name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.data.bed import BedTable, name_rows
from bend_hf.data.tab_separated import TabSeparated
from bend_hf.errors import InputError
from bend_hf.types import Bools, Ints

if TYPE_CHECKING:
    import pyarrow as pa

_ENDINGS: Final = (".vcf", ".vcf.gz", ".vcf.bgz")
_COLUMNS: Final = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO")  # VCF 4.3, section 1.5
_LABELS: Final = ("label", "full_label")


def is_vcf(path: str | Path) -> bool:
    """Whether a file has the name of a VCF file."""
    return str(path).lower().endswith(_ENDINGS)


def label_remedy(key: str = "label") -> str:
    """Say how the label of a variant is written, for messages.

    >>> label_remedy()
    "write label=0 or label=1 in INFO, and 'Number=A' in its header line if a line has a label for each allele"
    """
    return f"write {key}=0 or {key}=1 in INFO, and 'Number=A' in its header line if a line has a label for each allele"


def read_vcf(path: str | Path, *, info: Sequence[str] = _LABELS) -> BedTable:
    """Read a VCF file.

    Args:
        path: The file.
        info: Keys of INFO that become columns if the file has them. Values per allele (``Number=A`` or ``R`` in the
            header) are split.

    Returns:
        Columns ``chromosome``, ``start``, ``end``, ``ref``, ``alt``, ``id``, ``filter`` and those of INFO, as
        strings. Rows from one line of the file share its line number.

    Raises:
        InputError: The file is missing, empty or not a VCF file, or a line is invalid; the message names it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    path = Path(path)
    file = TabSeparated(path=path, kind="VCF file", expected="expected a VCF file")
    header = _header(file)
    read = file.rows(header.columns, n_header_lines=header.n_lines, wanted=_COLUMNS)
    lines, line_numbers = read.columns, read.line_numbers
    if not len(line_numbers):
        raise InputError(f"{path} has a header but no variants; download or write it again")
    position = _positions(path, lines["POS"], line_numbers)
    texts = pc.split_pattern(pc.utf8_upper(lines["ALT"]), ",").combine_chunks()
    counts = pc.list_value_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    line = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(line)) - np.repeat(np.cumsum(counts) - counts, counts)
    ref = pc.utf8_upper(lines["REF"]).combine_chunks().take(pa.array(line))
    start_bp = position[line] - 1
    end_bp = start_bp + pc.utf8_length(ref).to_numpy().astype(np.int64)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "chromosome": lines["#CHROM"].take(pa.array(line)),
        "start": pa.array(start_bp).cast(pa.string()),
        "end": pa.array(end_bp).cast(pa.string()),
        "ref": ref,
        "alt": texts.flatten(),
        "id": lines["ID"].take(pa.array(line)),
        "filter": lines["FILTER"].take(pa.array(line)),
    }
    fields = _Info(
        path=path,
        column=lines["INFO"],
        number_of=header.number_of,
        line_numbers=line_numbers,
        n_alleles=counts,
        line=line,
        allele=number,
    )
    for key in info:
        values = fields.values(key)
        if values is not None and key not in columns:
            columns[key] = values
    table = pa.table(columns)
    return BedTable(
        path=path,
        columns=table,
        chromosome=table["chromosome"].combine_chunks().dictionary_encode(),
        start_bp=start_bp,
        end_bp=end_bp,
        strand=None,
        split=None,
        line_numbers=line_numbers[line],
    )


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The header: its number of lines, the columns, and the declared ``Number`` of each INFO key."""

    n_lines: int
    columns: list[str]
    number_of: dict[str, str]


def _header(file: TabSeparated) -> _Header:
    number_of: dict[str, str] = {}
    for number, line in file.first_lines():
        if not line.strip():
            continue
        if line.startswith(b"##"):
            number_of |= _info_number(line.decode("utf-8", "replace"))  # free text may be of any encoding
            continue
        text = file.decode(number, line)
        columns = text.split("\t")
        if tuple(columns[: len(_COLUMNS)]) != _COLUMNS:
            raise InputError(
                f"{file.path}, line {number}: {text[:60]!r} is not the header of a VCF file; expected "
                f"{' '.join(_COLUMNS)} with tabs between them"
            )
        return _Header(n_lines=number, columns=columns, number_of=number_of)
    raise InputError(f"{file.path} has no line that begins with #CHROM; expected a VCF file")


def _info_number(line: str) -> dict[str, str]:
    """Return the ``Number`` that a header line declares for an INFO key, if it does.

    >>> _info_number('##INFO=<Number=A,ID=label,Type=Integer,Description="Number=1, or not">')
    {'label': 'A'}
    >>> _info_number('##INFO=<ID=label, Number = A , Type=Integer>')
    {'label': 'A'}
    """
    found = re.match(r"##INFO\s*=\s*<(.*)>", line)
    if found is None:
        return {}
    parts = [part.partition("=") for part in re.sub(r'"(\\.|[^"\\])*"', "", found[1]).split(",")]
    fields = {name.strip(): value.strip() for name, _, value in parts}
    return {fields["ID"]: fields.get("Number", ".")} if "ID" in fields else {}


def _positions(path: Path, column: pa.ChunkedArray, line_numbers: Ints) -> Ints:
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = pc.match_substring_regex(column, r"^[1-9][0-9]{0,17}$").to_numpy()
    if not whole.all():
        told = name_rows(np.flatnonzero(~whole), lambda row: f"line {line_numbers[row]} ({column[row].as_py()!r})")
        raise InputError(f"{path}: POS must be a whole number, 1 or more: {told}. Fix or remove these lines")
    positions: Ints = column.cast(pa.int64()).to_numpy()
    return positions


@dataclass(frozen=True, kw_only=True)
class _Info:
    """The column INFO of n lines, and the rows that they become.

    Attributes:
        path: The file.
        column: The texts.
        number_of: The declared ``Number`` of each key.
        line_numbers: Line of each text in the file, shape (n,).
        n_alleles: Alternative alleles of each line, shape (n,).
        line: Index of each row's line, shape (rows,).
        allele: Number of each row's allele in its line, counted from 0, shape (rows,).
    """

    path: Path
    column: pa.ChunkedArray
    number_of: dict[str, str]
    line_numbers: Ints
    n_alleles: Ints
    line: Ints
    allele: Ints

    def values(self, key: str) -> pa.Array | None:
        """Return the values of one key, one per row, empty if a line lacks it; None if all lines lack it.

        Raises:
            InputError: The key has no value, has several, or is spelled in several ways.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        found, key = self._find(key)
        if found.null_count == len(found):
            return None
        self._refuse(key, pc.fill_null(pc.equal(found, ""), False), "stands without a value; write KEY=VALUE")
        twice = pc.greater(pc.count_substring_regex(self.column, rf"(?:^|;)\s*{re.escape(key)}\s*="), 1)
        self._refuse(key, twice, "occurs twice; write it once")
        values = pc.utf8_trim_whitespace(pc.utf8_slice_codeunits(pc.fill_null(found, "="), 1))
        values = pc.if_else(pc.equal(values, "."), "", values)
        number = self.number_of.get(key, ".")
        if number not in ("A", "R"):
            return values.take(pa.array(self.line))
        first = int(number == "R")  # R also has a value for the reference allele, the first one
        parts = pc.split_pattern(values, ",")
        n_parts = pc.list_value_length(parts).to_numpy(zero_copy_only=False).astype(np.int64)
        given = pc.not_equal(values, "").to_numpy(zero_copy_only=False)
        self._refuse(
            key,
            given & (n_parts != self.n_alleles + first),
            f"has another number of values than ALT has alleles (Number={number}); write one for each"
            + (", and one for REF" if first else ""),
        )
        starts = np.cumsum(n_parts) - n_parts
        flat = pc.utf8_trim_whitespace(parts.flatten())
        source = np.where(given[self.line], starts[self.line] + first + self.allele, starts[self.line])
        of_rows = flat.take(pa.array(source))
        return pc.if_else(pc.equal(of_rows, "."), "", of_rows)

    def _find(self, key: str) -> tuple[pa.Array, str]:
        """Return ``=`` and the value in each line, empty for a key without a value, null without the key; its spelling.

        Keys are case-sensitive. Another spelling is taken only if no line has the given one.
        """
        import pyarrow.compute as pc

        pattern = rf"(?:^|;)\s*(?P<key>{re.escape(key)})\s*(?P<rest>|=[^;]*)(?:;|$)"
        exact = pc.extract_regex(self.column, pattern).combine_chunks()
        other = pc.extract_regex(self.column, "(?i)" + pattern).combine_chunks()
        spellings = sorted(set(pc.struct_field(other, "key").filter(pc.is_valid(other)).unique().to_pylist()))
        if spellings == [key] or exact.null_count == other.null_count:
            return pc.if_else(pc.is_valid(exact), pc.struct_field(exact, "rest"), None), key
        if len(spellings) > 1:
            raise InputError(
                f"{self.path}: INFO spells the key {key!r} in several ways ({', '.join(spellings)}); use one of them"
            )
        return pc.if_else(pc.is_valid(other), pc.struct_field(other, "rest"), None), spellings[0]

    def _refuse(self, key: str, wrong: pa.Array | pa.ChunkedArray | Bools, text: str) -> None:
        """Raise if some lines are wrong."""
        marked = wrong if isinstance(wrong, np.ndarray) else wrong.to_numpy(zero_copy_only=False)
        bad = np.flatnonzero(marked)
        if len(bad):
            told = name_rows(bad, lambda n: f"line {self.line_numbers[n]} ({self.column[int(n)].as_py()[:60]!r})")
            raise InputError(f"{self.path}: the INFO key {key!r} {text}: {told}")
