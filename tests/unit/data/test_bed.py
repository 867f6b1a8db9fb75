"""Reading a bed: the forms that are read, and what is said about each kind of bad input."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bend_hf.data.bed import BedTable, name_rows, read_bed
from bend_hf.errors import InputError
from tests.bgzip import bgzip
from tests.shared_data import CHR20, needs_shared

HEADER = "chromosome\tstart\tend\tstrand\tlabel\tsplit\n"
ROWS = "chr1\t0\t5\t+\t1,2\ttrain\nchr2\t10\t20\t-\t\tvalid\n"


def bed(folder: Path, text: str | bytes) -> Path:
    path = folder / "my.bed"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def columns(table: BedTable) -> tuple[list[str], list[int], list[int]]:
    return table.chromosome.to_pylist(), table.start_bp.tolist(), table.end_bp.tolist()


def test_columns_are_read_by_name(tmp_path: Path) -> None:
    table = read_bed(bed(tmp_path, HEADER + ROWS), require=("label",))
    assert columns(table) == (["chr1", "chr2"], [0, 10], [5, 20])
    assert table.strand is not None
    assert table.strand.tolist() == [1, -1]
    assert table.columns["label"].to_pylist() == ["1,2", ""]
    assert len(table) == 2


def test_the_order_of_columns_does_not_matter(tmp_path: Path) -> None:
    table = read_bed(bed(tmp_path, "split\tend\tchromosome\tstart\ntest\t5\tchr1\t2\n"))
    assert columns(table) == (["chr1"], [2], [5])


def test_valid_is_read_as_validation_and_other_names_stay(tmp_path: Path) -> None:
    text = "chromosome\tstart\tend\tsplit\n" + "".join(f"c\t0\t1\t{name}\n" for name in ("valid", "part0", "3", "test"))
    table = read_bed(bed(tmp_path, text))
    assert table.split is not None
    assert table.split.to_pylist() == ["validation", "part0", "3", "test"]
    assert table.split_names() == ["3", "part0", "test", "validation"]
    assert table.columns["split"].to_pylist()[0] == "valid"


def test_a_file_without_strand_and_split_gives_none(tmp_path: Path) -> None:
    table = read_bed(bed(tmp_path, "chromosome\tstart\tend\nchr1\t0\t5\n"))
    assert table.strand is None
    assert table.split is None
    assert table.split_names() == []


@pytest.mark.parametrize("header", ["chrom\tchromStart\tchromEnd", "#chrom\tstart\tend", "#chromosome\tstart\tend"])
def test_ucsc_spellings_of_the_first_columns_are_read(tmp_path: Path, header: str) -> None:
    table = read_bed(bed(tmp_path, f"{header}\nchr1\t0\t5\n"))
    assert table.columns.column_names == ["chromosome", "start", "end"]


def test_a_fourth_column_of_plus_and_minus_is_the_strand(tmp_path: Path) -> None:
    table = read_bed(bed(tmp_path, "chromosome\tstart\tend\tfourth\tsplit\nc\t0\t5\t-\ttrain\nc\t0\t5\t+\ttrain\n"))
    assert table.strand is not None
    assert table.strand.tolist() == [-1, 1]


def test_a_deletion_in_the_fourth_column_is_not_a_strand(tmp_path: Path) -> None:
    table = read_bed(bed(tmp_path, "chromosome\tstart\tend\tref\talt\nc\t0\t5\t-\tA\n"))
    assert table.strand is None


@pytest.mark.parametrize("pack", [gzip.compress, lambda text: bgzip(text, 20)], ids=["gzip", "bgzip"])
def test_a_compressed_bed_is_read_whatever_its_name(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    assert columns(read_bed(bed(tmp_path, pack((HEADER + ROWS).encode()))))[1] == [0, 10]


@pytest.mark.parametrize(
    "text",
    [
        (HEADER + ROWS).replace("\n", "\r\n"),
        (HEADER + ROWS).replace("\n", "\r"),
        (HEADER + ROWS).replace("\n", "\r\r\n"),
        (HEADER + ROWS).removesuffix("\n"),
        HEADER + ROWS + "\n  \n\n",
        "\ufeff" + HEADER + ROWS,
    ],
    ids=["CRLF", "CR", "CRCRLF", "no last line end", "blank lines at the end", "byte order mark"],
)
def test_line_ends_and_marks_change_nothing(tmp_path: Path, text: str) -> None:
    table = read_bed(bed(tmp_path, text))
    assert columns(table) == (["chr1", "chr2"], [0, 10], [5, 20])
    assert table.split is not None
    assert table.split.to_pylist() == ["train", "validation"]


def test_quotes_are_ordinary_characters(tmp_path: Path) -> None:
    table = read_bed(bed(tmp_path, 'chromosome\tstart\tend\tnote\nc\t0\t5\t"a\nc\t0\t5\tb"c\\t\n'))
    assert table.columns["note"].to_pylist() == ['"a', 'b"c\\t']


def test_words_for_nothing_stay_words(tmp_path: Path) -> None:
    table = read_bed(bed(tmp_path, "chromosome\tstart\tend\tnote\nNA\t0\t5\tnull\n"))
    assert (table.chromosome.to_pylist(), table.columns["note"].to_pylist()) == (["NA"], ["null"])


def test_row_numbers_are_lines_of_the_file(tmp_path: Path) -> None:
    path = bed(tmp_path, "chromosome\tstart\tend\nc\t0\t5\n\n  \nc\t1\t5\nc\t2\t5\n")
    table = read_bed(path)
    assert [table.row_number(row) for row in range(3)] == [2, 5, 6]
    assert table.describe(1) == f"{path}, line 5"


def test_taken_rows_keep_their_line_numbers(tmp_path: Path) -> None:
    table = read_bed(bed(tmp_path, HEADER + ROWS)).take(np.array([1]))
    assert columns(table) == (["chr2"], [10], [20])
    assert (table.line_numbers.tolist(), table.columns["split"].to_pylist()) == ([3], ["valid"])


def test_a_variant_file_may_hold_empty_intervals(tmp_path: Path) -> None:
    path = bed(tmp_path, "chromosome\tstart\tend\tref\talt\nc\t7\t7\tA\tC\n")
    assert read_bed(path, allow_empty=True).start_bp.tolist() == [7]
    with pytest.raises(InputError, match=r"line 2: start \(7\) must be smaller than end \(7\); BED is 0-based"):
        read_bed(path)


START = "chromosome\tstart\tend\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"my\.bed is empty; expected a tab-separated header"),
        (START, r"my\.bed has a header but no rows"),
        (START + "\n\n", r"my\.bed has a header but no rows"),
        ("chr1\t0\t5\nchr1\t6\t9\n", r"first line 'chr1\\t0\\t5' looks like data; expected a tab-separated header"),
        ("chromosome start end\nchr1 0 5\n", "no tab in the first line"),
        ("chromosome,start,end\nchr1,0,5\n", "no tab in the first line"),
        ('"chromosome"\t"start"\t"end"\n"c"\t0\t5\n', r"column names are in quotes.*quote=FALSE"),
        ("chromosome\tstrat\tend\nc\t0\t5\n", r"no column 'start' among chromosome, strat, end; did you mean 'strat'"),
        (START + "c\t0\t5\nc\tx\t5\n", r"start must be a whole number.*line 3 \('x'\)\. Fix or remove"),
        (START + "c\t0\t5.0\n", r"end must be a whole number.*line 2 \('5\.0'\)"),
        (START + "c\t0x1\t5\n", r"start must be a whole number.*line 2 \('0x1'\)"),
        (START + "c\t\t5\n", r"start must be a whole number.*line 2 \(''\)"),
        (START + "c\t-3\t5\n", r"start must be a whole number, 0 or more.*line 2 \('-3'\)"),
        (START + "c\t0\t99999999999999999999\n", r"end must be a whole number.*line 2"),
        (START + "c\t0\t5\n\nc\t5\t5\n", r"line 4: start \(5\) must be smaller than end \(5\)"),
        (START + "c\t6\t5\n" * 7, r"line 2: start \(6\).*Fix or remove line 2, line 3, .*line 6 and 2 more"),
        (START + "\t0\t5\n", "chromosome is empty in line 2"),
        (HEADER + "c\t0\t5\t+\t\t\n", "split is empty in line 2"),
        (HEADER + "c\t0\t5\t.\t\ttest\n", r"the strand must be \+ or -: line 2 \('\.'\)"),
        (START[:-1] + "\tfourth\nc\t0\t5\t+\nc\t0\t5\t.\n", r"the strand must be \+ or -.*line 3 \('\.'\)"),
        (START + "c\t0\t5\nc\t0\nc\t0\t5\t6\n", "the header has 3 columns, but line 3 has 2, line 4 has 4. Write"),
        (START + "c\t0\n" * 7, "line 6 has 2 and 2 more"),
        (START[:-1] + "\tend\nc\t0\t5\t5\n", "the column 'end' occurs twice in the header"),
        (START[:-1] + "\t\nc\t0\t5\t5\n", "a column has no name in the header"),
    ],
    ids=[
        "empty", "header only", "blank rows", "no header", "blanks", "commas", "quotes", "missing column", "no number",
        "decimal", "hexadecimal", "blank number", "negative", "too large", "start = end", "many", "no chromosome",
        "no split", "strand", "strand of the fourth column", "ragged", "many ragged", "double column",
        "nameless column",
    ],
)  # fmt: skip
def test_bad_input_names_file_row_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        read_bed(bed(tmp_path, text))
    assert str(tmp_path / "my.bed") in str(raised.value)


def test_a_missing_required_column_raises(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no column 'label' among chromosome, start, end, lable; did you mean 'lable'"
    ):
        read_bed(bed(tmp_path, "chromosome\tstart\tend\tlable\nc\t0\t5\t1\n"), require=("label",))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.bed: the BED file cannot be read \(No such file.*check the path"):
        read_bed(tmp_path / "none.bed")


def test_a_folder_is_not_a_bed_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_bed(tmp_path)


def test_a_truncated_gzip_is_an_error(tmp_path: Path) -> None:
    packed = gzip.compress((HEADER + ROWS * 5000).encode(), mtime=0)
    with pytest.raises(InputError, match=r"my\.bed: cannot be read as tab-separated text"):
        read_bed(bed(tmp_path, packed[: len(packed) // 2]))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("chromosome\tstart\tend\n".encode("utf-16"), r"my\.bed is UTF-16 text; expected UTF-8"),
        (b"PK\x03\x04\x00\x00\n", r"my\.bed is not a text file; expected a tab-separated header"),
        (b"chromosome\tstart\tend\tid\xe9e\n", r"my\.bed, line 1: byte 0xe9 is not UTF-8.*iconv -f latin1 -t utf-8"),
        (START.encode() + b"c\t0\t5\nc\xff\t0\t5\n", r"my\.bed, line 3: byte 0xff is not UTF-8"),
    ],
    ids=["UTF-16", "binary", "header", "row"],
)
def test_bytes_that_are_not_utf8_are_an_error(tmp_path: Path, raw: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_bed(bed(tmp_path, raw))


@pytest.mark.parametrize("place", [0, 3, 5])
@pytest.mark.parametrize("name", ["Strand", "STRAND", "strand", " Strand "])
def test_the_strand_is_found_anywhere_however_it_is_spelled(tmp_path: Path, name: str, place: int) -> None:
    names, cells = ["chromosome", "start", "end", "label", "split"], ["chr1", "0", "5", "1", "train"]
    names.insert(place, name)
    cells.insert(place, "-")
    table = read_bed(bed(tmp_path, "\t".join(names) + "\n" + "\t".join(cells) + "\n"))
    assert table.strand is not None
    assert table.strand.tolist() == [-1]


def test_every_column_with_a_meaning_is_found_in_capitals(tmp_path: Path) -> None:
    names = ["chromosome", "start", "end", "strand", "label", "full_label", "split", "ref", "alt"]
    header = "\t".join(
        ("Chromosome", "START", "chromEND", "Strand", "LABEL", "Full_Label", "Split", "REF", "Alt", "Other")
    )
    table = read_bed(bed(tmp_path, header + "\nc\t0\t5\t-\t1\tx\ttrain\tA\tC\tz\n"))
    assert table.columns.column_names == [*names, "Other"]


def test_an_exact_name_is_preferred_to_other_spellings(tmp_path: Path) -> None:
    table = read_bed(bed(tmp_path, START[:-1] + "\tLabel\tlabel\nc\t0\t5\tbenign\t0\n"))
    assert table.columns["label"].to_pylist() == ["0"]


def test_two_spellings_of_one_column_raise(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'Strand' and 'STRAND' may each be the column 'strand'; name one of them"):
        read_bed(bed(tmp_path, START[:-1] + "\tStrand\tSTRAND\nc\t0\t5\t+\t-\n"))


def test_up_to_five_rows_are_named_without_a_count() -> None:
    assert name_rows(np.arange(2), "line {}".format) == "line 0, line 1"


@needs_shared
@pytest.mark.parametrize("path", sorted(CHR20.glob("*.bed")), ids=lambda path: path.stem)
def test_real_beds_are_read_as_pandas_reads_them(path: Path) -> None:
    table = read_bed(path)
    reference = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    assert table.columns.to_pandas().equals(reference)
    assert table.start_bp.tolist() == reference["start"].astype(int).tolist()
    assert table.end_bp.tolist() == reference["end"].astype(int).tolist()


def test_a_row_of_another_width_that_is_not_utf_8_is_one_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "a.bed"
    path.write_bytes(b"chromosome\tstart\tend\nchr1\t1\t2\nchr\xe4\t1\n")
    with pytest.raises(InputError, match="line 3: byte 0xe4 is not UTF-8"):
        read_bed(path)
    assert capfd.readouterr().err == ""
    assert [str(one.message) for one in recwarn] == []
