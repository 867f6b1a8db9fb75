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

import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.data.bed import BedTable, name_rows, tab_separated
from bend_hf.data.fasta_index import is_gzip
from bend_hf.errors import InputError
from bend_hf.types import Ints

if TYPE_CHECKING:
    import pyarrow as pa

_ENDINGS: Final = (".vcf", ".vcf.gz", ".vcf.bgz")
_COLUMNS: Final = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO")  # VCF 4.3, section 1.5
_LABELS: Final = ("label", "full_label")


def is_vcf(path: str | Path) -> bool:
    """Whether a file has the name of a VCF file."""
    return str(path).lower().endswith(_ENDINGS)


def read_vcf(path: str | Path, *, info: Sequence[str] = _LABELS) -> BedTable:
    """Read a VCF file.

    Args:
        path: The file.
        info: Keys of INFO that become columns if the file has them. Values per alternative allele (``Number=A`` in
            the header) are split.

    Returns:
        Columns ``chromosome``, ``start``, ``end``, ``ref``, ``alt``, ``id``, ``filter`` and those of INFO, as
        strings. Rows from one line of the file share its line number.

    Raises:
        InputError: The file is missing, empty or not a VCF file, or a line is invalid; the message names it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    path = Path(path)
    header = _header(path)
    lines, line_numbers = _lines(path, header)
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
    for key in info:
        values = _info_column(lines["INFO"], key, line, number, counts, by_allele=key in header.by_allele)
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
    """The header: its number of lines, the columns, and the INFO keys with one value per allele."""

    n_lines: int
    columns: list[str]
    by_allele: frozenset[str]
    compressed: bool


def _header(path: Path) -> _Header:
    by_allele = set()
    try:
        with path.open("rb") as file:
            compressed = is_gzip(file.read(2))
        with gzip.open(path, "rt", encoding="utf-8") if compressed else path.open(encoding="utf-8") as text:
            for number, line in enumerate(text, start=1):
                if line.startswith("##"):
                    found = re.match(r"##INFO=<ID=([^,]+),Number=A,", line)
                    by_allele |= {found.group(1)} if found else set()
                    continue
                columns = line.rstrip("\r\n").split("\t")
                if tuple(columns[: len(_COLUMNS)]) != _COLUMNS:
                    raise InputError(
                        f"{path}, line {number}: {line[:60]!r} is not the header of a VCF file; expected "
                        f"{' '.join(_COLUMNS)} with tabs between them"
                    )
                return _Header(n_lines=number, columns=columns, by_allele=frozenset(by_allele), compressed=compressed)
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file; expected a VCF file, plain or compressed with gzip") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: the VCF file cannot be read ({reason}); check the path") from None
    raise InputError(f"{path} has no line that begins with #CHROM; expected a VCF file")


def _lines(path: Path, header: _Header) -> tuple[pa.Table, Ints]:
    """Read the first eight columns as strings, and the line number of each row."""
    import pyarrow as pa
    from pyarrow import csv

    odd: list[tuple[int, int]] = []
    blank: list[int] = []

    def on_other_width(row: csv.InvalidRow) -> str:
        if row.text.strip():
            odd.append((row.number, row.actual_columns))
        else:
            blank.append(row.number)
        return "skip"

    try:
        with pa.input_stream(path, compression="gzip" if header.compressed else None) as stream:
            table = csv.read_csv(
                stream,
                read_options=csv.ReadOptions(use_threads=False, column_names=header.columns, skip_rows=header.n_lines),
                parse_options=tab_separated(on_other_width),
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys(_COLUMNS, pa.string()),
                    include_columns=list(_COLUMNS),
                    strings_can_be_null=False,
                ),
            )
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: cannot be read as a VCF file ({error}); write or download it again") from None
    if odd:
        told = name_rows(range(len(odd)), lambda at: f"line {odd[at][0]} has {odd[at][1]}")
        raise InputError(f"{path}: the header has {len(header.columns)} columns, but {told}. Write every field")
    if not table.num_rows:
        raise InputError(f"{path} has a header but no variants; download or write it again")
    first = header.n_lines + 1
    numbers = np.delete(np.arange(first, first + table.num_rows + len(blank)), np.array(blank, np.int64) - first)
    return table, numbers


def _positions(path: Path, column: pa.ChunkedArray, line_numbers: Ints) -> Ints:
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = pc.match_substring_regex(column, r"^[1-9][0-9]{0,17}$").to_numpy()
    if not whole.all():
        told = name_rows(np.flatnonzero(~whole), lambda row: f"line {line_numbers[row]} ({column[row].as_py()!r})")
        raise InputError(f"{path}: POS must be a whole number, 1 or more: {told}. Fix or remove these lines")
    positions: Ints = column.cast(pa.int64()).to_numpy()
    return positions


def _info_column(
    info: pa.ChunkedArray, key: str, line: Ints, number: Ints, counts: Ints, *, by_allele: bool
) -> pa.Array | None:
    """Return the values of one key, one per row, empty if a line lacks it; None if all lines lack it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.extract_regex(info, rf"(?:^|;){re.escape(key)}=(?P<value>[^;]*)").combine_chunks()
    if found.null_count == len(found):
        return None
    values = pc.fill_null(pc.struct_field(found, "value"), "")
    values = pc.if_else(pc.equal(values, "."), "", values)
    if not by_allele:
        return values.take(pa.array(line))
    parts = pc.split_pattern(values, ",")
    n_parts = pc.list_value_length(parts).to_numpy(zero_copy_only=False).astype(np.int64)
    starts = np.cumsum(n_parts) - n_parts
    apart = n_parts[line] == counts[line]
    flat = parts.flatten().take(pa.array(np.where(apart, starts[line] + number, starts[line])))
    return pc.if_else(pa.array(apart), flat, "")
