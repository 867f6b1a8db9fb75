"""What is said when the files of a task are bad: file, row and remedy, before any work."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from bend_hf.data.examples import read_examples, subset_number
from bend_hf.data.sources import TaskFiles, find_source, user_source
from bend_hf.errors import BendError, GenomeError, InputError, LabelError, SourceError
from bend_hf.tasks import TASKS, Folds, NamedSplits
from tests.tiny import write_bed, write_data, write_genome

HEADER = ("chromosome", "start", "end", "strand", "label", "split")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_data(
        tmp_path, ["histone_modification", "gene_finding", "enhancer_annotation", "variant_effects_disease"]
    )


def files(folder: Path, name: str) -> TaskFiles:
    source = find_source(TASKS.get(name), data=str(folder))
    assert isinstance(source, TaskFiles)
    return source


def bed_of(folder: Path, name: str, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> TaskFiles:
    found = files(folder, name)
    write_bed(found.bed, header, rows)
    return found


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        (("chr2", 20, 20, "+", "0", "train"), InputError, r"line 2: start \(\d+\) must be smaller than end"),
        (("chr2", 600, 88, "+", "0", "train"), InputError, r"line 2: start \(\d+\) must be smaller than end"),
        (("chr2", -5, 507, "+", "0", "train"), InputError, "whole number.*line 2.*'-5'"),
        (("chr2", 139_900, 140_412, "+", "0", "train"), GenomeError, "past the end.*line 2.*140000 bp.*pad"),
        (
            ("2", 10, 522, "+", "0", "train"),
            GenomeError,
            "the contig of.*line 2.*only the prefix 'chr' is missing",
        ),
        (("chr7", 10, 522, "+", "0", "train"), GenomeError, "the contig of.*chr7.*did you mean"),
        (("chr2", 10, 522, "+", "18", "train"), LabelError, r"line 2: '18'.*expected 0 to 17"),
        (("chr2", 10, 522, "+", "0", "practice"), InputError, "unknown split.*line 2.*'practice'.*expected train"),
        (("chr2", 10, 522, "up", "0", "train"), InputError, r"strand must be \+ or -.*line 2"),
        (
            ("chr2", 10, 500, "+", "0", "train"),
            InputError,
            "windows of histone_modification are 512 bp.*line 2 has 490 bp",
        ),
    ],
)
def test_a_bad_row_is_an_error_that_names_file_row_and_remedy(
    folder: Path, row: tuple[object, ...], error: type[BendError], message: str
) -> None:
    found = bed_of(folder, "histone_modification", HEADER, [row, ("chr2", 10, 522, "+", "0", "test")])
    with pytest.raises(error, match=f"(?s){message}") as caught:
        read_examples(found)
    assert "histone_modification.bed" in str(caught.value)


def test_a_contig_that_only_lacks_chr_is_said_so(folder: Path) -> None:
    write_genome(folder / "genomes" / "genome.fa", prefix="")
    with pytest.raises(GenomeError, match="only the prefix 'chr' is extra"):
        read_examples(files(folder, "histone_modification"))


def test_out_of_bounds_rows_are_padded_or_dropped_where_asked(folder: Path) -> None:
    rows = [("chr2", 139_900, 140_412, "+", "0", "train"), ("chr2", 10, 522, "+", "0", "train")]
    found = bed_of(folder, "histone_modification", HEADER, rows)
    assert len(read_examples(found, out_of_bounds="pad")) == 2
    assert len(read_examples(found, out_of_bounds="drop")) == 2


def test_missing_columns_are_named(folder: Path) -> None:
    found = bed_of(folder, "histone_modification", ("chromosome", "start", "end"), [("chr2", 10, 522)])
    with pytest.raises(InputError, match="no column 'split'"):
        read_examples(found)
    found = bed_of(
        folder, "histone_modification", ("chromosome", "start", "end", "split"), [("chr2", 10, 522, "train")]
    )
    with pytest.raises(InputError, match="no column 'label'"):
        read_examples(found)
    found = bed_of(folder, "histone_modification", ("chromosome", "begin", "end"), [("chr2", 10, 522)])
    with pytest.raises(InputError, match="no column 'start'"):
        read_examples(found)


def test_an_empty_bed_is_refused(folder: Path) -> None:
    found = files(folder, "histone_modification")
    found.bed.write_text("")
    with pytest.raises(InputError, match="empty"):
        read_examples(found)
    found.bed.write_text("\t".join(HEADER) + "\n")
    with pytest.raises(InputError, match=r"no row|header"):
        read_examples(found)


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "gene_finding" / "gene_finding.hdf5").unlink()
    with pytest.raises(SourceError, match=r"gene_finding\.hdf5 does not exist; check the path"):
        files(folder, "gene_finding")
    with pytest.raises(SourceError, match=r"cpg_methylation\.bed.*bend-hf download"):
        files(folder, "cpg_methylation")
    (folder / "genomes" / "genome.fa").unlink()
    with pytest.raises(SourceError, match="no reference genome"):
        files(folder, "histone_modification")


def test_row_counts_of_bed_and_hdf5_must_agree(folder: Path) -> None:
    found = files(folder, "enhancer_annotation")
    lines = found.bed.read_text().splitlines()
    found.bed.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(LabelError, match="holds 20 records, its BED file 19 rows"):
        read_examples(found)


@pytest.mark.parametrize("content", ["not a fasta\n", ""])
def test_a_file_that_is_not_fasta_is_refused(folder: Path, content: str) -> None:
    (folder / "genomes" / "genome.fa").write_text(content)
    with pytest.raises(GenomeError, match=r"genome\.fa"):
        read_examples(files(folder, "histone_modification"))


def test_fold_names_of_any_form_are_ordered_by_their_number(folder: Path) -> None:
    found = files(folder, "enhancer_annotation")
    text = found.bed.read_text()
    for form in ("{}", "fold_{}", "part{}"):
        renamed = [form.format(part + 5) for part in range(10)]
        found.bed.write_text(re.sub(r"part(\d)", lambda match, names=renamed: names[int(match[1])], text))
        rows = read_examples(found)
        assert rows.subset_names == tuple(f"part_{i}" for i in range(10))
        assert rows.subset[:10].tolist() == list(range(10))
    assert subset_number("part10") == 10
    assert subset_number("train") is None


def variants(folder: Path, rows: list[tuple[object, ...]]) -> TaskFiles:
    return bed_of(folder, "variant_effects_disease", ("chromosome", "start", "end", "ref", "alt", "label"), rows)


def test_ref_that_disagrees_is_counted_and_listed(folder: Path) -> None:
    good = files(folder, "variant_effects_disease")
    lines = [tuple(line.split("\t")) for line in good.bed.read_text().splitlines()[1:]]
    wrong = [(c, s, e, a, r, label) for c, s, e, r, a, label in lines[:3]]
    found = variants(folder, wrong + lines[3:])
    with pytest.raises(
        InputError, match=r"(?s)REF disagrees.*3 of 20 rows.*line 2: REF is.*swapped.*--ref-mismatch drop"
    ):
        read_examples(found)
    rows = read_examples(found, ref_mismatch="drop")
    assert rows.n_ref_mismatches == 3
    assert rows.rows_of(0).tolist() == list(range(3, 20))


def test_one_based_positions_are_guessed(folder: Path) -> None:
    good = files(folder, "variant_effects_disease")
    lines = [line.split("\t") for line in good.bed.read_text().splitlines()[1:]]
    shifted = [(c, int(s) + 1, int(e) + 1, r, a, label) for c, s, e, r, a, label in lines]
    with pytest.raises(InputError, match="look 1-based"):
        read_examples(variants(folder, shifted))


def test_ref_equal_to_alt_is_refused(folder: Path) -> None:
    good = files(folder, "variant_effects_disease")
    chromosome, start, end, ref, _, label = good.bed.read_text().splitlines()[1].split("\t")
    with pytest.raises(InputError, match=f"REF and ALT are both {ref}"):
        read_examples(variants(folder, [(chromosome, start, end, ref, ref, label)]))


def test_start_equal_to_end_means_the_same_variant(folder: Path) -> None:
    good = files(folder, "variant_effects_disease")
    wide = read_examples(good)
    lines = [line.split("\t") for line in good.bed.read_text().splitlines()[1:]]
    narrow = read_examples(variants(folder, [(c, s, s, r, a, label) for c, s, e, r, a, label in lines]))
    assert wide.variants is not None
    assert narrow.variants is not None
    np.testing.assert_array_equal(wide.variants.position_bp, narrow.variants.position_bp)


def test_an_indel_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"not substitutions of one base.*line 2 \(A to AC\)"):
        read_examples(variants(folder, [("chr1", 5, 6, "A", "AC", 1)]))


def test_label_names_next_to_the_bed_file_win(folder: Path) -> None:
    (folder / "histone_modification" / "histone_modification.labels.txt").write_text("\n".join("abcdefghijklmnopqr"))
    assert read_examples(files(folder, "histone_modification")).task.label_names == tuple("abcdefghijklmnopqr")


def test_own_tasks_are_read_without_a_declaration(folder: Path) -> None:
    genome = folder / "genomes" / "genome.fa"
    classes = write_bed(
        folder / "mine.bed",
        ("chromosome", "start", "end", "label", "split"),
        [
            ("chr1", 0, 64, "0", "train"),
            ("chr1", 64, 128, "2", "valid"),
            ("chr1", 128, 192, "1.0", "test"),
        ],
    )
    task = read_examples(user_source(classes, labels=None, genome=genome)).task
    assert (len(task.label_names), task.metric, task.window_bp) == (3, "mcc", 64)
    lists = write_bed(
        folder / "many.bed",
        ("chromosome", "start", "end", "label", "split"),
        [
            ("chr1", 0, 64, "0,3", "part1"),
            ("chr1", 64, 128, "", "part2"),
            ("chr1", 128, 192, "1", "part3"),
        ],
    )
    task = read_examples(user_source(lists, labels=None, genome=genome)).task
    assert (len(task.label_names), task.metric, task.partition) == (4, "auroc", Folds(n=3))
    bins = write_bed(
        folder / "bins.bed",
        ("chromosome", "start", "end", "split"),
        [
            ("chr1", 0, 64, "train"),
            ("chr1", 64, 128, "valid"),
            ("chr1", 128, 192, "test"),
        ],
    )
    with h5py.File(folder / "bins.hdf5", "w") as file:
        file["labels"] = np.array([[0, 1], [1, 0], [0, 0]])
    rows = read_examples(user_source(bins, labels=None, genome=genome))
    assert (rows.task.metric, rows.task.partition) == ("auprc", NamedSplits())
    assert replace(rows.task).label.names == ("class_0", "class_1")


def test_real_valued_labels_are_refused(folder: Path) -> None:
    bed = write_bed(
        folder / "real.bed", ("chromosome", "start", "end", "label", "split"), [("chr1", 0, 64, "0.25", "train")]
    )
    with pytest.raises(LabelError, match=r"'0\.25' is a real number"):
        read_examples(user_source(bed, labels=None, genome=folder / "genomes" / "genome.fa"))


def test_a_strand_under_another_name_is_asked_about(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    columns, row = ("chromosome", "start", "end", "label", "split", "orientation"), ("chr1", 0, 512, 1, "train", "-")
    found = bed_of(folder, "histone_modification", columns, [row])
    with pytest.raises(InputError, match="no column 'strand', but 'orientation' holds only"):
        read_examples(found)
    assert read_examples(replace(found, task=None)).strand() is None
    assert "all sequences are read from the plus strand" in caplog.text
