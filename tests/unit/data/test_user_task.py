"""What a task without a declaration is taken for, and the files that belong to its BED file."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest

from bend_hf.data.examples import read_examples
from bend_hf.data.labels import labels_from_column
from bend_hf.data.sources import labels_next_to, user_source
from bend_hf.data.user_task import user_partition, user_task_from_column, user_task_from_hdf5
from bend_hf.errors import InputError, LabelError
from bend_hf.tasks import Folds, NamedSplits
from bend_hf.tasks._labels import MOST_CLASSES, MultiLabel, NucleotideClasses, SequenceClass
from tests.tiny import write_bed, write_genome

N, WINDOW_BP = 12, 64
SPLITS = ("train", "valid", "test")
LENGTHS = np.full(N, WINDOW_BP)


def write_rows(bed: Path, *, labels: list[object] | None = None, split: list[str] | None = None) -> Path:
    header = ["chromosome", "start", "end", "split", *(["label"] if labels else [])]
    rows: list[list[object]] = [
        ["chr1", WINDOW_BP * row, WINDOW_BP * (row + 1), split[row] if split else SPLITS[row % 3]] for row in range(N)
    ]
    return write_bed(bed, header, [row + ([labels[n]] if labels else []) for n, row in enumerate(rows)])


def write_labels(path: Path, values: object, **options: object) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("labels", data=values, **options)
    return path


@pytest.mark.parametrize("label", [32_768, 40_000, 123_456_789])
@pytest.mark.parametrize("further", ["", ",1"])
def test_a_label_beyond_the_stored_type_is_refused_with_its_row(tmp_path: Path, label: int, further: str) -> None:
    write_genome(tmp_path / "genome.fa")
    bed = write_rows(tmp_path / "mine.bed", labels=[f"{label}{further}", *range(1, N)])
    with pytest.raises(LabelError, match=f"line 2: '{label}'.*expected 0 to {MOST_CLASSES - 1}"):
        read_examples(user_source(bed, labels=None, genome=tmp_path / "genome.fa"))


def test_more_names_than_the_stored_type_holds_do_not_allow_larger_labels() -> None:
    kind = MultiLabel(names=tuple(map(str, range(MOST_CLASSES + 10))))
    assert labels_from_column(pa.array([str(MOST_CLASSES - 1)]), kind).values.tolist() == [MOST_CLASSES - 1]
    with pytest.raises(LabelError, match=f"'{MOST_CLASSES}'.*expected 0 to {MOST_CLASSES - 1}"):
        labels_from_column(pa.array([str(MOST_CLASSES)]), kind)


@pytest.mark.parametrize("label", [10**9, 1e18, 2**63 - 1])
def test_a_huge_label_in_hdf5_is_refused(tmp_path: Path, label: float) -> None:
    write_genome(tmp_path / "genome.fa")
    bed = write_rows(tmp_path / "mine.bed")
    write_labels(tmp_path / "mine.hdf5", np.where(np.arange(WINDOW_BP) == 5, label, np.zeros((N, 1), type(label))))
    with pytest.raises(LabelError, match="is not a class index; expected whole numbers below 32,768"):
        read_examples(user_source(bed, labels=None, genome=tmp_path / "genome.fa"))


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i8", "f2", "?"])
@pytest.mark.parametrize("ragged", [False, True])
def test_the_classes_of_an_hdf5_file_are_counted_for_every_type(tmp_path: Path, dtype: str, ragged: bool) -> None:
    values = np.random.default_rng(0).integers(0, 2, (N, WINDOW_BP)).astype(dtype)
    path = tmp_path / "mine.hdf5"
    if ragged:
        with h5py.File(path, "w") as file:
            dataset = file.create_dataset("labels", (N,), h5py.vlen_dtype(np.dtype(dtype)))
            for row in range(N):
                dataset[row] = values[row]
    else:
        write_labels(path, values)
    assert user_task_from_hdf5("mine", path, LENGTHS).label == NucleotideClasses(names=("class_0", "class_1"))


@pytest.mark.parametrize(("padding", "message"), [(-100, None), (0, "expected negative padding")])
def test_records_may_be_padded_beyond_the_longest_row(tmp_path: Path, padding: int, message: str | None) -> None:
    write_genome(tmp_path / "genome.fa")
    bed = write_rows(tmp_path / "mine.bed")
    values = np.random.default_rng(0).integers(0, 3, (N, WINDOW_BP))
    write_labels(tmp_path / "mine.hdf5", np.pad(values, ((0, 0), (0, 6)), constant_values=padding))
    files = user_source(bed, labels=None, genome=tmp_path / "genome.fa")
    if message is None:
        assert read_examples(files).labels.values.tolist() == values.ravel().tolist()
    else:
        with pytest.raises(LabelError, match=message):
            read_examples(files)


def test_rows_without_a_label_among_single_ones_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(user_task_from_column("mine", ["0", "", "1"]).label, MultiLabel)
    assert "1 of 3 rows have no label" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert isinstance(user_task_from_column("mine", ["0", "", "0,1"]).label, MultiLabel)
        assert isinstance(user_task_from_column("mine", ["0", "1"]).label, SequenceClass)
    assert not caplog.text


def test_two_subsets_with_one_number_are_refused(tmp_path: Path) -> None:
    write_genome(tmp_path / "genome.fa")
    names = [f"{row // 2 % 4}{'ab'[row % 2]}" for row in range(N)]
    bed = write_rows(tmp_path / "mine.bed", labels=[row % 2 for row in range(N)], split=names)
    with pytest.raises(InputError, match=r"the subsets '0a' and '0b' both have the number 0.*Rename them"):
        read_examples(user_source(bed, labels=None, genome=tmp_path / "genome.fa"))


def test_splits_in_capitals_are_not_taken_for_folds() -> None:
    assert user_partition(["Train", "Test"]) == NamedSplits()
    assert user_partition(["part0", "part1", "part2"]) == Folds(n=3)


@pytest.mark.parametrize(
    ("bed", "labels"),
    [
        ("mine.bed", "mine.hdf5"),
        ("mine.bed", "mine.h5"),
        ("mine.bed.gz", "mine.hdf5"),
        ("mine.bed.gz", "mine.bed.hdf5"),
        ("mine.v2.bed.gz", "mine.v2.hdf5"),
        ("mine.v2.bed", "mine.hdf5"),
    ],
)
def test_the_files_next_to_a_bed_are_found_whatever_its_ending(tmp_path: Path, bed: str, labels: str) -> None:
    write_genome(tmp_path / "genome.fa")
    path = write_rows(tmp_path / bed)
    if bed.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    write_labels(tmp_path / labels, np.zeros((N, WINDOW_BP), np.int8))
    names = Path(labels).stem.removesuffix(".bed") + ".labels.txt"
    (tmp_path / names).write_text("one\ntwo\n")
    assert labels_next_to(path) == tmp_path / labels
    rows = read_examples(user_source(path, labels=None, genome=tmp_path / "genome.fa"))
    assert rows.task.label == NucleotideClasses(names=("one", "two"))


def test_the_files_of_the_whole_name_come_first(tmp_path: Path) -> None:
    for stem in ("mine", "mine.v2"):
        write_labels(tmp_path / f"{stem}.hdf5", np.zeros((1, 1)))
    assert labels_next_to(tmp_path / "mine.v2.bed") == tmp_path / "mine.v2.hdf5"
