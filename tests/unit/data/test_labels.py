"""Labels out of columns and hdf5, and what is said when they are bad."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest

from bend_hf.data.labels import labels_from_column, labels_from_hdf5, read_label_names
from bend_hf.errors import InputError, LabelError
from bend_hf.tasks._labels import BinClasses, MultiLabel, NucleotideClasses, SequenceClass

ABC = MultiLabel(names=("a", "b", "c"))
NINE = NucleotideClasses(names=tuple("abcdefghi"))
BINS = BinClasses(names=("no", "yes"), bin_bp=128)


def test_indices_are_read_with_spaces_decimals_and_empty_rows() -> None:
    table = labels_from_column(pa.array(["0, 2", "", None, "1.0", "2."]), ABC)
    assert table.values.tolist() == [0, 2, 1, 2]
    assert table.offsets.tolist() == [0, 2, 2, 2, 3, 4]


def test_a_single_integer_column_is_read() -> None:
    assert labels_from_column(pa.array(["1", "0"]), SequenceClass(names=("x", "y"))).values.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,3", r"line 2.*'3'.*expected 0 to 2"),
        ("-1", "'-1'"),
        ("0,x", "'x'.*whole numbers"),
        ("1.5", "'1.5'"),
        ("0,", "''"),
    ],
)
def test_a_label_out_of_range_or_unreadable_names_file_row_and_value(text: str, message: str) -> None:
    with pytest.raises(LabelError, match=rf"(?s)my\.bed.*{message}"):
        labels_from_column(pa.array([text]), ABC, where="my.bed", named=lambda row: f"line {row + 2}")


def test_a_missing_scalar_is_refused() -> None:
    with pytest.raises(LabelError, match="exactly one label per row"):
        labels_from_column(pa.array(["1", ""]), SequenceClass(names=("x", "y")))


def test_ragged_hdf5_is_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.hdf5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("labels", (2,), dtype=h5py.vlen_dtype(np.int64))
        dataset[0], dataset[1] = [8, 0, 1], [2, -100]
    table = labels_from_hdf5(path, NINE, np.array([3, 2]))
    assert table.values.tolist() == [8, 0, 1, 2, -100]
    assert table.offsets.tolist() == [0, 3, 5]


def test_padding_of_a_rectangular_hdf5_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "labels.hdf5"
    with h5py.File(path, "w") as file:
        file["labels"] = np.array([[1, 2, 3], [4, -100, -100]])
    assert labels_from_hdf5(path, NINE, np.array([3, 1])).values.tolist() == [1, 2, 3, 4]


def test_labels_behind_an_interval_must_be_padding(tmp_path: Path) -> None:
    path = tmp_path / "labels.hdf5"
    with h5py.File(path, "w") as file:
        file["labels"] = np.array([[1, 2, 3], [4, 5, -100]])
    with pytest.raises(LabelError, match=r"row 2: 3 labels for an interval that needs 1; expected negative padding"):
        labels_from_hdf5(path, NINE, np.array([3, 1]))


def write(path: Path, values: object, name: str = "labels") -> Path:
    with h5py.File(path, "w") as file:
        file[name] = values
    return path


def test_bad_hdf5_files_are_refused_with_their_reason(tmp_path: Path) -> None:
    lengths = np.array([256, 256])
    good = np.zeros((2, 2), np.int8)
    with pytest.raises(LabelError, match="does not exist; put the HDF5 file of labels next to the BED file"):
        labels_from_hdf5(tmp_path / "none.hdf5", BINS, lengths)
    (tmp_path / "text.hdf5").write_text("no hdf5")
    with pytest.raises(LabelError, match="cannot be read as HDF5"):
        labels_from_hdf5(tmp_path / "text.hdf5", BINS, lengths)
    with pytest.raises(LabelError, match=r"no dataset 'labels' \(it holds: other\)"):
        labels_from_hdf5(write(tmp_path / "a.hdf5", good, "other"), BINS, lengths)
    with pytest.raises(LabelError, match="holds 3 records, its BED file 2 rows"):
        labels_from_hdf5(write(tmp_path / "b.hdf5", np.zeros((3, 2))), BINS, lengths)
    with pytest.raises(LabelError, match="1 labels for an interval that needs 2"):
        labels_from_hdf5(write(tmp_path / "c.hdf5", np.zeros((2, 1))), BINS, lengths)
    with pytest.raises(LabelError, match=r"row 2: '2'.*expected 0 to 1"):
        labels_from_hdf5(write(tmp_path / "d.hdf5", np.array([[0, 1], [0, 2]])), BINS, lengths)
    with pytest.raises(LabelError, match=r"label 0\.5 is not a class index"):
        labels_from_hdf5(write(tmp_path / "e.hdf5", np.array([[0, 0.5], [0, 1]])), BINS, lengths)


def test_a_cut_hdf5_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.hdf5", np.zeros((2, 2000), np.int8))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(LabelError, match=r"cannot be read as HDF5|is damaged"):
        labels_from_hdf5(path, BinClasses(names=("n", "y"), bin_bp=1), np.array([2000, 2000]))


def test_label_names_must_be_unique_and_not_blank(tmp_path: Path) -> None:
    path = tmp_path / "x.labels.txt"
    path.write_text("a\nb\n")
    assert read_label_names(path) == ("a", "b")
    path.write_text("a\na\n")
    with pytest.raises(LabelError, match="none blank or repeated"):
        read_label_names(path)


@pytest.mark.parametrize("raw", [b"a\nb\n", b"\xef\xbb\xbfa\r\nb", b"a\rb\r", b"a\nb\n\n  \n"])
def test_marks_line_ends_and_blank_last_lines_are_no_part_of_label_names(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "x.labels.txt"
    path.write_bytes(raw)
    assert read_label_names(path) == ("a", "b")


def test_only_line_ends_divide_label_names(tmp_path: Path) -> None:
    path = tmp_path / "x.labels.txt"
    path.write_text("one\u2028two\nthree\x0cfour\nfive\x85\x1csix\n", encoding="utf-8")
    assert read_label_names(path) == ("one\u2028two", "three\x0cfour", "five\x85\x1csix")


def test_label_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.labels.txt"
    path.write_bytes(b"a\ncaf\xe9\n")
    with pytest.raises(InputError, match=r"x\.labels\.txt, line 2: byte 0xe9 is not UTF-8"):
        read_label_names(path)
