"""Variants read from BED and VCF files, and the message for each invalid one before a model loads."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bend_hf.config import DataConfig
from bend_hf.data.dataset import open_task
from bend_hf.data.sources import sources_of
from bend_hf.data.vcf import read_vcf
from bend_hf.errors import BendError, ConfigError, GenomeError, InputError, LabelError
from bend_hf.publishing.verify_dataset import _read_rows
from bend_hf.types import RefMismatch
from bend_hf.variants import ReadSettings, VariantRun, read_variants
from bend_hf.variants.read import VariantFile
from tests.bgzip import bgzip
from tests.tiny import write_bed, write_genome

VCF_HEADER = '##fileformat=VCFv4.2\n##INFO=<ID=label,Number=A,Type=Integer,Description="class">\n'
VCF_COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}


@pytest.fixture
def genome_of(tmp_path: Path) -> Callable[[str], Path]:
    def write(sequence: str) -> Path:
        path = tmp_path / "small.fa"
        path.write_text(f">chr1\n{sequence}\n")
        return path

    return write


@pytest.fixture(scope="module")
def contigs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    return path, write_genome(path)


def vcf(path: Path, lines: list[str], columns: str = VCF_COLUMNS) -> Path:
    path.write_text(VCF_HEADER + columns + "\n" + "".join(line + "\n" for line in lines))
    return path


def bed(path: Path, rows: list[tuple[object, ...]], further: tuple[str, ...] = ("label",)) -> Path:
    return write_bed(path, ("chromosome", "start", "end", "ref", "alt", *further), rows)


def places(found: VariantFile) -> list[tuple[str, int, str, str, int]]:
    table = found.table(np.arange(len(found)))
    columns = (table[name].to_pylist() for name in ("chromosome", "start", "ref", "alt", "label"))
    return list(zip(*columns, strict=True))


def test_vcf_and_bed_give_the_same_rows(tmp_path: Path, contigs: tuple[Path, dict[str, str]]) -> None:
    genome, letters = contigs
    at = [1_000, 5_000]
    bases = [letters["chr1"][place] for place in at]
    rows = [("chr1", p, p + 1, base, OTHER[base], n) for n, (p, base) in enumerate(zip(at, bases, strict=True))]
    lines = [
        f"chr1\t{p + 1}\t.\t{base}\t{OTHER[base]}\t.\t.\tlabel={n}"
        for n, (p, base) in enumerate(zip(at, bases, strict=True))
    ]
    from_bed = read_variants(bed(tmp_path / "a.bed", rows), genome)
    plain = vcf(tmp_path / "a.vcf", lines)
    (tmp_path / "b.vcf.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "c.vcf.bgz").write_bytes(bgzip(plain.read_bytes()))
    for path in (plain, tmp_path / "b.vcf.gz", tmp_path / "c.vcf.bgz"):
        found = read_variants(path, genome)
        assert places(found) == places(from_bed)
        assert found.table(np.arange(2))["sequence"] == from_bed.table(np.arange(2))["sequence"]


def test_start_equal_end_and_one_base_mean_the_same(tmp_path: Path, contigs: tuple[Path, dict[str, str]]) -> None:
    genome, letters = contigs
    base = letters["chr1"][777]
    rows: list[tuple[object, ...]] = [("chr1", 777, end, base, OTHER[base], 1) for end in (777, 778)]
    one, other = places(read_variants(bed(tmp_path / "a.bed", rows), genome))
    assert one == other


def test_multi_allelic_lines_are_split_with_their_labels(tmp_path: Path, contigs: tuple[Path, dict[str, str]]) -> None:
    genome, letters = contigs
    base = letters["chr2"][99]
    others = [other for other in "ACGT" if other != base]
    path = vcf(tmp_path / "a.vcf", [f"chr2\t100\trs1\t{base}\t{','.join(others)}\t.\t.\tx=1;label=0,1,0"])
    found = read_variants(path, genome)
    assert places(found) == [("chr2", 99, base, other, n) for other, n in zip(others, (0, 1, 0), strict=True)]
    assert found.bed.line_numbers.tolist() == [4, 4, 4]


def test_bases_that_both_alleles_share_are_trimmed(tmp_path: Path, genome_of: Callable[[str], Path]) -> None:
    genome = genome_of("GGCAGTT")
    path = vcf(tmp_path / "a.vcf", ["chr1\t3\t.\tCAG\tCTG,CG,C,CAGG\t.\t.\t."])
    found = read_variants(path, genome, ReadSettings(indels="likelihood"))
    assert [place[1:4] for place in places(found)] == [(3, "A", "T"), (2, "CA", "C"), (2, "CAG", "C"), (3, "A", "AG")]
    assert found.counts.normalized == 3


@pytest.mark.parametrize(
    ("sequence", "row", "expected"),
    [
        ("GACACACT", ("7", "CT", "T"), None),  # the C of CT is not repeated: it stays, written after the A before it
        ("GACACACT", ("4", "ACA", "A"), (0, "GAC", "G")),  # one unit of a repeat, wherever it is deleted
        ("GACACACT", ("1", "GACACACT", "GACACT"), (0, "GAC", "G")),
        ("GACACACT", ("7", "C", "CAC"), (0, "G", "GAC")),
        ("AAAAT", ("4", "AT", "T"), (0, "AA", "A")),  # no base before the contig: written before the base after it
        ("AAAAT", ("4", "A", "AAA"), (0, "A", "AAA")),
        ("GCAT", ("2", "CA", "TTT"), (1, "CA", "TTT")),  # replaced as a whole: nothing to move
    ],
)
def test_insertions_and_deletions_are_written_as_far_left_as_they_go(
    tmp_path: Path,
    genome_of: Callable[[str], Path],
    sequence: str,
    row: tuple[str, str, str],
    expected: tuple[int, str, str] | None,
) -> None:
    position, ref, alt = row
    path = vcf(tmp_path / "a.vcf", [f"chr1\t{position}\t.\t{ref}\t{alt}\t.\t.\t."])
    (found,) = places(read_variants(path, genome_of(sequence), ReadSettings(indels="likelihood")))
    assert found[1:4] == (expected or (5, "AC", "A"))


def test_a_long_repeat_is_passed_whole(tmp_path: Path, genome_of: Callable[[str], Path]) -> None:
    genome = genome_of("C" + "AT" * 2_000 + "G")
    path = vcf(tmp_path / "a.vcf", ["chr1\t3999\t.\tTAT\tT\t.\t.\t."])
    (found,) = places(read_variants(path, genome, ReadSettings(indels="likelihood")))
    assert found[1:4] == (0, "CAT", "C")


@pytest.mark.parametrize("ref_mismatch", ["error", "drop"])
@pytest.mark.parametrize(("ref", "alt"), [("AC", "AT"), ("CCAG", "CCTG"), ("CAT", "CAA"), ("CAGG", "CAG")])
def test_ref_is_checked_before_shared_bases_are_trimmed(
    tmp_path: Path, genome_of: Callable[[str], Path], ref: str, alt: str, ref_mismatch: RefMismatch
) -> None:
    genome = genome_of("GGCAGTT")
    path = vcf(tmp_path / "a.vcf", [f"chr1\t3\t.\t{ref}\t{alt}\t.\t.\t."])
    settings = ReadSettings(indels="likelihood", ref_mismatch=ref_mismatch)
    if ref_mismatch == "drop":
        assert read_variants(path, genome, settings).counts.dropped_ref_mismatch == 1
        return
    with pytest.raises(InputError, match=f"REF is {ref}, the genome has"):
        read_variants(path, genome, settings)


def test_lower_case_vcf_alleles_are_read(tmp_path: Path) -> None:
    found = read_vcf(vcf(tmp_path / "a.vcf", ["chr1\t11\t.\ta\tg\t.\t.\t."]))
    assert found.columns["ref"].to_pylist() + found.columns["alt"].to_pylist() == ["A", "G"]


def test_no_label_is_needed(tmp_path: Path, contigs: tuple[Path, dict[str, str]]) -> None:
    genome, letters = contigs
    base = letters["chr1"][50]
    rows: list[tuple[object, ...]] = [("chr1", 50, 51, base, OTHER[base])]
    found = read_variants(bed(tmp_path / "a.bed", rows, ()), genome)
    assert found.label.tolist() == [-100]
    assert found.counts.unlabelled == 1


def test_empty_labels_are_counted(tmp_path: Path, contigs: tuple[Path, dict[str, str]]) -> None:
    genome, letters = contigs
    rows: list[tuple[object, ...]] = [
        ("chr1", p, p + 1, letters["chr1"][p], OTHER[letters["chr1"][p]], label) for p, label in ((900, "1"), (901, ""))
    ]
    found = read_variants(bed(tmp_path / "a.bed", rows), genome)
    assert found.label.tolist() == [1, -100]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chr1\t0\t.\tA\tG\t.\t.\t.", r"POS must be a whole number, 1 or more: line 4 \('0'\)"),
        ("chr1\tx\t.\tA\tG\t.\t.\t.", r"POS must be a whole number.*line 4 \('x'\)"),
        ("chr1\t5\t.\tA\tG\t.", "the header has 8 columns, but line 4 has 6. Write every field"),
    ],
)
def test_bad_vcf_line_raises(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_vcf(vcf(tmp_path / "a.vcf", [line]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no line that begins with #CHROM; expected a VCF file"),
        ("chr1\t5\tA\n", "line 1: 'chr1.*is not the header of a VCF file"),
        (VCF_HEADER + VCF_COLUMNS + "\n", "has a header but no variants"),
    ],
)
def test_file_that_is_not_a_vcf_raises(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.vcf"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_vcf(path)


@pytest.mark.parametrize("blank", ["\n", "  \n", "\n\n"])
def test_blank_lines_of_a_vcf_are_skipped_and_counted(tmp_path: Path, blank: str) -> None:
    path, line = tmp_path / "a.vcf", "chr1\t{}\t.\tA\tG\t.\t.\t.\n"
    path.write_text(VCF_HEADER + blank + VCF_COLUMNS + "\n" + line.format(5) + blank + line.format(6) + blank)
    found = read_vcf(path)
    assert found.start_bp.tolist() == [4, 5]
    assert found.line_numbers.tolist() == [4 + blank.count("\n"), 5 + 2 * blank.count("\n")]


def test_marks_and_other_encodings_of_a_vcf(tmp_path: Path) -> None:
    path = tmp_path / "a.vcf"
    comment, text = "##author=Andr\xe9\n".encode("latin-1"), (VCF_HEADER + VCF_COLUMNS).encode()
    path.write_bytes(b"\xef\xbb\xbf" + comment + text + b"\nchr1\t5\t.\tA\tG\t.\t.\t.\n")
    assert read_vcf(path).start_bp.tolist() == [4]
    path.write_bytes(text + b"\nchr1\t5\t.\tA\tG\t.\t.\tgene=Andr\xe9\n")
    with pytest.raises(InputError, match=r"a\.vcf, line 4: byte 0xe9 is not UTF-8"):
        read_vcf(path)


@pytest.mark.parametrize(
    ("number", "info", "labels"),
    [
        ("A", "label=1,0", ["1", "0"]),
        ("A", "label=1,.", ["1", ""]),
        ("A", "label=.", ["", ""]),
        ("A", "label=", ["", ""]),
        ("R", "label=0,1,0", ["1", "0"]),
        ("1", "label=1", ["1", "1"]),
        (".", "DP=3; label=1", ["1", "1"]),
        (".", "DP=3;label = 1 ;x", ["1", "1"]),
        ("1", "LABEL=1;xlabel=0;label2=0", ["1", "1"]),
        ("1", ".", None),
        ("1", "xlabel=1", None),
    ],
)
def test_labels_of_info(tmp_path: Path, number: str, info: str, labels: list[str] | None) -> None:
    header = f'##fileformat=VCFv4.2\n##INFO=<ID=label,Type=Integer,Description="Number=A,",Number={number}>\n'
    header += f"##INFO=<ID=LABEL,Number={number},Type=Integer>\n"
    path = tmp_path / "a.vcf"
    path.write_text(f"{header}{VCF_COLUMNS}\nchr1\t5\t.\tA\tG,T\t.\t.\t{info}\n")
    columns = read_vcf(path).columns
    assert (columns["label"].to_pylist() if "label" in columns.column_names else None) == labels


@pytest.mark.parametrize(
    ("number", "infos", "message"),
    [
        ("A", ["label=1"], r"another number of values than ALT has alleles \(Number=A\).*line 4 \('label=1'\)"),
        ("A", ["label=1,0,1"], "another number of values than ALT has alleles"),
        ("R", ["label=1,0"], r"\(Number=R\); write one for each, and one for REF: line 4"),
        ("0", ["DP=3;label"], r"'label' stands without a value; write KEY=VALUE: line 4 \('DP=3;label'\)"),
        ("1", ["label=1;label=0"], "'label' occurs twice; write it once: line 4"),
        ("1", ["label=1", "LABEL=0"], r"spells the key 'label' in several ways \(LABEL, label\)"),
    ],
)
def test_labels_of_info_that_cannot_be_read_raise(tmp_path: Path, number: str, infos: list[str], message: str) -> None:
    path = tmp_path / "a.vcf"
    header = f'##fileformat=VCFv4.2\n##INFO=<ID=label,Number={number},Type=Integer,Description="x">\n{VCF_COLUMNS}\n'
    path.write_text(header + "".join(f"chr1\t5\t.\tA\tG,T\t.\t.\t{info}\n" for info in infos))
    with pytest.raises(InputError, match=message):
        read_vcf(path)


def test_missing_vcf_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the VCF file cannot be read"):
        read_vcf(tmp_path / "none.vcf")


def rows_of(letters: str, shift: int = 0, swap: bool = False, strand: bool = False) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    complement = dict(zip("ACGT", "TGCA", strict=True))
    for p in range(2_000, 2_400, 20):
        ref = complement[letters[p]] if strand else letters[p]
        alt = OTHER[ref]
        rows.append(("chr1", p + shift, p + shift + 1, *((alt, ref) if swap else (ref, alt)), 0))
    return rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shift": 1}, "the positions look 1-based, but BED is 0-based"),
        ({"shift": -1}, "the positions look too small by one"),
        ({"shift": 20_011}, "check that the variants were called on this assembly"),
        ({"swap": True}, r"REF is ., the genome has . \(REF and ALT swapped\?\)"),
        ({"strand": True}, r"REF is ., the genome has . \(other strand\?\)"),
    ],
)
def test_ref_that_is_not_the_genomes_raises_with_a_guess(
    tmp_path: Path, contigs: tuple[Path, dict[str, str]], change: dict[str, bool], message: str
) -> None:
    genome, letters = contigs
    path = bed(tmp_path / "a.bed", rows_of(letters["chr1"], **change))
    with pytest.raises(InputError, match=message):
        read_variants(path, genome)


def test_ref_equal_to_alt_raises(tmp_path: Path, contigs: tuple[Path, dict[str, str]]) -> None:
    genome, letters = contigs
    base = letters["chr1"][50]
    with pytest.raises(InputError, match=f"line 2: REF and ALT are both {base}"):
        read_variants(bed(tmp_path / "a.bed", [("chr1", 50, 51, base, base, 0)]), genome)


def test_dropped_mismatches_are_counted(tmp_path: Path, contigs: tuple[Path, dict[str, str]]) -> None:
    genome, letters = contigs
    good, bad = letters["chr1"][50], letters["chr1"][60]
    rows: list[tuple[object, ...]] = [
        ("chr1", 60, 61, OTHER[bad], bad, 0),
        ("chr1", 50, 51, good, OTHER[good], 1),
    ]
    found = read_variants(bed(tmp_path / "a.bed", rows), genome, ReadSettings(ref_mismatch="drop"))
    assert (found.item.tolist(), found.counts.dropped_ref_mismatch) == ([1], 1)


def indel_file(folder: Path, letters: str, alts: tuple[str, ...] = ("{0}AA",)) -> Path:
    base, labels = letters[500], ",".join("1" * len(alts))
    return vcf(
        folder / "indels.vcf",
        [
            f"chr1\t501\t.\t{base}\t{','.join(alt.format(base) for alt in alts)}\t.\t.\tlabel={labels}",
            f"chr1\t601\t.\t{letters[600]}\t{OTHER[letters[600]]}\t.\t.\tlabel=0",
        ],
    )


def test_indels_raise_with_a_count(tmp_path: Path, contigs: tuple[Path, dict[str, str]]) -> None:
    genome, letters = contigs
    path = indel_file(tmp_path, letters["chr1"])
    with pytest.raises(InputError, match=r"1 of 2 variants are not substitutions of one base.*--indels likelihood"):
        read_variants(path, genome)
    dropped = read_variants(path, genome, ReadSettings(indels="drop"))
    assert (len(dropped), dropped.counts.dropped_indels) == (1, 1)
    kept = read_variants(path, genome, ReadSettings(indels="likelihood"))
    assert (len(kept), kept.counts.scored_by_likelihood_alone) == (2, 1)


def test_alleles_that_are_not_spelled_out_raise(tmp_path: Path, contigs: tuple[Path, dict[str, str]]) -> None:
    genome, letters = contigs
    path = indel_file(tmp_path, letters["chr1"], ("<DEL>", "*"))
    with pytest.raises(InputError, match="2 of 3 variants do not spell out both alleles"):
        read_variants(path, genome, ReadSettings(indels="likelihood"))


def test_indel_whose_ref_is_not_the_genomes_raises(tmp_path: Path, contigs: tuple[Path, dict[str, str]]) -> None:
    genome, letters = contigs
    wrong = OTHER[letters["chr1"][500]] + letters["chr1"][501]
    path = vcf(tmp_path / "a.vcf", [f"chr1\t501\t.\t{wrong}\t{wrong[0]}\t.\t.\t."])
    with pytest.raises(InputError, match=f"REF disagrees with .*REF is {wrong}, the genome has"):
        read_variants(path, genome, ReadSettings(indels="likelihood"))
    assert len(read_variants(path, genome, ReadSettings(indels="likelihood", ref_mismatch="drop"))) == 0


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        (("chr1", 10, 20, "A", "C", 0), InputError, "line 2 has 10 bp and 1 bases"),
        (("chr1", 130_000, 130_001, "A", "C", 0), GenomeError, "past the end of its contig"),
        (("chr9", 10, 11, "A", "C", 0), GenomeError, "chr9"),
        (("chr1", 10, 11, "R", "C", 0), InputError, "1 of 1 variants do not spell out both alleles"),
    ],
)
def test_bad_row_raises(
    tmp_path: Path,
    contigs: tuple[Path, dict[str, str]],
    row: tuple[object, ...],
    error: type[BendError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        read_variants(bed(tmp_path / "a.bed", [row]), contigs[0])


def test_bad_label_raises(tmp_path: Path, contigs: tuple[Path, dict[str, str]]) -> None:
    genome, letters = contigs
    base = letters["chr1"][50]
    with pytest.raises(
        LabelError, match=r"line 2: '2'.*expected 0 to 1; write 0 or 1 in the column 'label'; a variant without"
    ):
        read_variants(bed(tmp_path / "a.bed", [("chr1", 50, 51, base, OTHER[base], 2)]), genome)


@pytest.mark.parametrize(
    ("label", "told"),
    [("2", "'2'"), ("x", "'x'"), ("0.5", "'0.5'"), ("0,1", "'2 values'"), ("-100", "'-100'")],
)
def test_bad_label_of_a_vcf_names_its_line_and_what_to_write(
    tmp_path: Path, contigs: tuple[Path, dict[str, str]], label: str, told: str
) -> None:
    genome, letters = contigs
    base = letters["chr1"][50]
    line = f"chr1\t51\t.\t{base}\t{OTHER[base]}\t.\t.\t"
    path = tmp_path / "a.vcf"
    path.write_text(f"##fileformat=VCFv4.2\n{VCF_COLUMNS}\n{line}label=1\n{line}.\n{line}label={label}\n")
    with pytest.raises(LabelError, match=rf"line 5: {told}.*; write label=0 or label=1 in INFO, .*Number=A") as raised:
        read_variants(path, genome)
    assert "BED" not in str(raised.value)
    assert "labels.txt" not in str(raised.value)


@pytest.mark.parametrize("declared", ["ID=label, Number=A", "ID=label,Number=A ", "Number = A , ID = label"])
def test_blanks_in_a_header_line_are_skipped(tmp_path: Path, declared: str) -> None:
    path = tmp_path / "a.vcf"
    header = f'##INFO=<{declared}, Type=Integer, Description="of an \\"allele\\", Number=1">'
    path.write_text(f"##fileformat=VCFv4.2\n{header}\n{VCF_COLUMNS}\nchr1\t5\t.\tA\tG,T\t.\t.\tlabel=1,0\n")
    assert read_vcf(path).columns["label"].to_pylist() == ["1", "0"]
    assert [row["label"] for row in _read_rows(path)] == ["1", "0"]


def test_contradicting_labels_are_told_once_with_their_number(
    tmp_path: Path, contigs: tuple[Path, dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    genome, letters = contigs
    a, b, c = letters["chr1"][50:53]
    rows: list[tuple[object, ...]] = [
        ("chr1", 50, 51, a, OTHER[a], 1),
        ("chr1", 51, 52, b, OTHER[b], 0),  # contradicted by line 6, which writes it with a base more
        ("chr1", 51, 52, b, OTHER[OTHER[b]], 1),  # another allele
        ("chr1", 50, 51, a, OTHER[a], 1),  # the same label
        ("chr1", 51, 53, b + c, OTHER[b] + c, 1),
        ("chr1", 51, 52, b, OTHER[b], ""),
        ("chr1", 52, 53, c, OTHER[c], 1),
        ("chr1", 52, 53, c.lower(), OTHER[c], 0),
        ("chr2", 52, 53, letters["chr2"][52], OTHER[letters["chr2"][52]], 0),
    ]
    found = read_variants(bed(tmp_path / "a.bed", rows), genome)
    assert found.label.tolist() == [1, 0, 1, 1, 1, -100, 1, 0, 0]
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{tmp_path / 'a.bed'}: 2 variants have rows with different labels, the first of them in line 3 ({b} to "
        f"{OTHER[b]}, label 0) and line 6 (label 1); each row keeps its label. Correct them, or remove these rows"
    )


def test_labels_that_agree_are_not_told(
    tmp_path: Path, contigs: tuple[Path, dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    genome, letters = contigs
    a = letters["chr1"][50]
    read_variants(bed(tmp_path / "a.bed", [("chr1", 50, 51, a, OTHER[a], 1)] * 3), genome)
    assert not caplog.records


def test_bed_without_alleles_raises(tmp_path: Path, contigs: tuple[Path, dict[str, str]]) -> None:
    path = write_bed(tmp_path / "a.bed", ("chromosome", "start", "end"), [("chr1", 5, 6)])
    with pytest.raises(InputError, match=r"has no column 'ref'.*variants need ref and alt"):
        read_variants(path, contigs[0])


def test_missing_named_column_raises(tmp_path: Path, contigs: tuple[Path, dict[str, str]]) -> None:
    genome, letters = contigs
    base = letters["chr1"][50]
    path = bed(tmp_path / "a.bed", [("chr1", 50, 51, base, OTHER[base], 1)])
    with pytest.raises(InputError, match="has no column 'lable'; did you mean 'label'"):
        read_variants(path, genome, ReadSettings(label_column="lable"))


@pytest.mark.parametrize("name", ["score", "item", "label", "target", "entropy", "left_bp", "sequence"])
def test_column_that_scoring_writes_cannot_be_kept(
    tmp_path: Path, contigs: tuple[Path, dict[str, str]], name: str
) -> None:
    genome, letters = contigs
    base = letters["chr1"][10]
    path = bed(tmp_path / "a.bed", [("chr1", 10, 11, base, OTHER[base], "1")], further=(name,))
    with pytest.raises(ConfigError, match=f"the column '{name}' cannot be kept.*rename it"):
        read_variants(path, genome, ReadSettings(keep=(name,)))


def test_coordinates_that_are_kept_are_those_of_the_normalized_variant(
    tmp_path: Path, genome_of: Callable[[str], Path]
) -> None:
    path = bed(tmp_path / "a.bed", [("chr1", 1, 4, "cgt", "cat", "1")])
    for keep in (("chromosome", "start", "end", "ref", "alt"), ()):
        found = read_variants(path, genome_of("ACGTACGT"), ReadSettings(keep=keep))
        table = found.table(np.arange(1)).drop_columns(["sequence"])
        assert table.to_pylist() == [
            {"item": 0, "variant_offset": 2, "label": 1, "chromosome": "chr1", "start": 2, "end": 3}
            | {"ref": "G", "alt": "A"}
        ]


@pytest.mark.parametrize("alt", ["R", "U", "*", "<DEL>", "", "."])
def test_alleles_that_are_not_spelled_out_are_told_no_remedy_that_refuses_them(
    tmp_path: Path, genome_of: Callable[[str], Path], alt: str
) -> None:
    path = vcf(tmp_path / "a.vcf", [f"chr1\t2\t.\tC\t{alt}\t.\t.\t."])
    with pytest.raises(InputError, match=r"do not spell out both alleles.*with --indels drop") as raised:
        read_variants(path, genome_of("ACGTACGT"))
    assert "likelihood" not in str(raised.value)


def test_training_command_takes_a_vcf_too(tmp_path: Path, contigs: tuple[Path, dict[str, str]]) -> None:
    genome, letters = contigs
    lines = [
        f"chr1\t{p + 1}\t.\t{letters['chr1'][p]}\t{OTHER[letters['chr1'][p]]}\t.\t.\tlabel={p % 2}" for p in (700, 801)
    ]
    config = DataConfig(bed=vcf(tmp_path / "mine.vcf", lines), genome=genome)
    ((source, _),) = sources_of(config)
    data = open_task(source, config)
    assert data.splits(None)["test"]["label"] == [0, 1]
    assert data.splits(None)["test"]["start"] == [700, 801]


@pytest.mark.parametrize(("base", "n_records"), [(0, 1), (1, 0)])
def test_training_command_tells_of_contradicting_labels_of_rows_that_it_scores(
    tmp_path: Path,
    contigs: tuple[Path, dict[str, str]],
    caplog: pytest.LogCaptureFixture,
    base: int,
    n_records: int,
) -> None:
    genome, letters = contigs
    ref = letters["chr1"][700]
    written = [ref, OTHER[ref]][base]  # a REF that disagrees with the genome is dropped, and contradicts nothing
    lines = [f"chr1\t701\t.\t{written}\t{OTHER[OTHER[ref]]}\t.\t.\tlabel={label}" for label in (0, 1)]
    lines.append(f"chr1\t701\t.\t{ref}\t{OTHER[ref]}\t.\t.\tlabel=1")
    config = DataConfig(bed=vcf(tmp_path / "mine.vcf", lines), genome=genome, ref_mismatch="drop")
    ((source, _),) = sources_of(config)
    open_task(source, config)
    told = [record for record in caplog.records if "rows with different labels" in record.getMessage()]
    assert len(told) == n_records


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--genome FASTA is needed"),
        ({"genome": Path("g.fa"), "window_bp": -1}, "--window-bp is -1; it must be 0 or more"),
        ({"genome": Path("g.fa"), "indels": "likelihood", "no_likelihood": True}, "exclude each other"),
    ],
)
def test_contradicting_flags_raise(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VariantRun(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_long_header_lines_are_read_whole(tmp_path: Path, end: str) -> None:
    samples = "".join(f"\tsample{number:06d}" for number in range(8_000))
    genotypes = "\t0|1" * 8_000
    text = f"##fileformat=VCFv4.2\n##command={'x ' * 50_000}\n{VCF_COLUMNS}\tFORMAT{samples}\n"
    path = tmp_path / "a.vcf"
    path.write_bytes((text + f"chr1\t11\t.\tA\tG\t.\t.\t.\tGT{genotypes}\n").replace("\n", end).encode())
    found = read_vcf(path)
    assert found.start_bp.tolist() == [10]
    assert found.describe(0) == f"{path}, line 4"
