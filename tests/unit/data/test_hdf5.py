"""Labels in HDF5: what was never stored is refused with its place, and never read as class 0."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tracemalloc
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bend_hf.data.hdf5 import label_files
from bend_hf.data.labels import labels_from_hdf5
from bend_hf.data.user_task import user_task_from_hdf5
from bend_hf.errors import LabelError
from bend_hf.tasks import NamedSplits, NucleotideClasses

KIND = NucleotideClasses(names=("a", "b", "c"))
LENGTHS = np.full(4, 6)
LABELS = np.arange(24).reshape(4, 6) % 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.hdf5"


def read(path: Path, lengths: np.ndarray = LENGTHS) -> list[int]:
    values: list[int] = labels_from_hdf5(path, KIND, lengths).values.tolist()
    return values


def write(path: Path, make: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        make(file)
    return path


NOT_LABELS = {
    "scalar": (lambda file: file.__setitem__("labels", 3), "'labels' is a single value; expected"),
    "empty": (lambda file: file.__setitem__("labels", h5py.Empty("i2")), "'labels' is empty; expected"),
    "cube": (lambda file: file.__setitem__("labels", np.zeros((4, 6, 2))), r"'labels' is of shape \(4, 6, 2\)"),
    "text": (lambda file: file.__setitem__("labels", [b"ab"] * 4), r"'labels' of shape \(4,\) holds text"),
    "words": (lambda file: file.__setitem__("labels", ["ab"] * 4), "holds text; expected class indices"),
    "table": (lambda file: file.__setitem__("labels", np.zeros(4, "i2,f4")), "holds .*'f1'.*; expected class indices"),
    "group": (lambda file: file.create_group("labels"), "'labels' is a group, not a dataset"),
    "type": (lambda file: file.__setitem__("labels", np.dtype("f8")), "'labels' is a data type, not a dataset"),
    "soft link": (lambda file: file.__setitem__("labels", h5py.SoftLink("/gone")), "a link to '/gone', which does not"),
    "external link": (
        lambda file: file.__setitem__("labels", h5py.ExternalLink("gone.hdf5", "/labels")),
        "a link to '/labels' in 'gone.hdf5', which cannot be opened",
    ),
    "nothing": (lambda file: None, r"has no dataset 'labels' \(it holds: nothing\)"),
    "another": (lambda file: file.__setitem__("label", LABELS), r"has no dataset 'labels' \(it holds: label\)"),
}


@pytest.mark.parametrize("name", NOT_LABELS)
def test_what_is_not_a_dataset_of_labels_is_refused(path: Path, name: str) -> None:
    make, message = NOT_LABELS[name]
    write(path, make)
    with pytest.raises(LabelError, match=rf"labels\.hdf5.*{message}"):
        read(path)
    with pytest.raises(LabelError, match=rf"labels\.hdf5.*{message}"):
        user_task_from_hdf5("mine", path, LENGTHS)


@pytest.mark.parametrize(("code", "name"), [(32015, "zstd"), (32001, "blosc"), (32099, "unknown to bend_hf")])
def test_a_filter_that_is_not_installed_is_named(path: Path, code: int, name: str) -> None:
    # Filters are optional when a file is made, so any number can be stored.
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((2, 6))
    plist.set_filter(code, h5py.h5z.FLAG_OPTIONAL, ())
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((4, 6))
        made = h5py.h5d.create(file.id, b"labels", h5py.h5t.NATIVE_INT16, space, dcpl=plist)
        h5py.Dataset(made)[:] = LABELS
    with pytest.raises(LabelError, match=rf"\({name}, {code}\) that is not installed.*not damaged.*hdf5plugin"):
        read(path)


def test_hdf5plugin_is_used_if_it_is_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, lambda file: file.create_dataset("labels", data=LABELS, compression="gzip"))
    missing = [1]
    there = h5py.h5z.filter_avail
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code not in missing and there(code))
    with pytest.raises(LabelError, match=r"a filter \(gzip, 1\)"):
        read(path)

    class Loader:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "hdf5plugin":
                missing.clear()
                sys.modules[name] = types.ModuleType(name)
                monkeypatch.delitem(sys.modules, name)

    monkeypatch.setattr(sys, "meta_path", [Loader(), *sys.meta_path])
    assert read(path) == LABELS.reshape(-1).tolist()


def test_damage_is_still_called_damage(path: Path) -> None:
    write(path, lambda file: file.create_dataset("labels", data=LABELS, chunks=(1, 6), fletcher32=True))
    with h5py.File(path) as file:
        at = file["labels"].id.get_chunk_info(2).byte_offset
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    with pytest.raises(LabelError, match=r"is damaged \(.*\); copy or download it again"):
        read(path)


def killed(file: h5py.File) -> None:
    labels = file.create_dataset("labels", (4, 6), "i2", chunks=(1, 6), compression="gzip")
    labels[:2] = LABELS[:2]


def killed_in_large_chunks(file: h5py.File) -> None:
    labels = file.create_dataset("labels", (4, 6), "i2", chunks=(2, 4))
    labels[:2] = LABELS[:2]
    labels[2:, :4] = LABELS[2:, :4]


def grown(file: h5py.File) -> None:
    labels = file.create_dataset("labels", data=LABELS[:2], maxshape=(None, 6), chunks=(1, 6))
    labels.resize(4, axis=0)


def ragged(file: h5py.File) -> None:
    labels = file.create_dataset("labels", (4,), h5py.vlen_dtype(np.int16), chunks=(1,))
    labels[0], labels[1] = LABELS[0], LABELS[1]


@pytest.mark.parametrize("make", [killed, killed_in_large_chunks, grown, ragged])
def test_chunks_that_were_never_written_are_refused_with_their_rows(
    path: Path, make: Callable[[h5py.File], object]
) -> None:
    write(path, make)
    with pytest.raises(LabelError, match=r"the labels of 2 of 4 rows were never written \(row 3, row 4\)"):
        read(path)


def test_a_dataset_that_was_never_written_is_refused(path: Path) -> None:
    write(path, lambda file: file.create_dataset("labels", (4, 6), "i2"))
    with pytest.raises(LabelError, match="the labels of 4 of 4 rows were never written"):
        read(path)


def test_places_after_the_labels_of_a_row_need_not_be_written(path: Path) -> None:
    def make(file: h5py.File) -> None:
        labels = file.create_dataset("labels", (4, 60), "i2", chunks=(1, 6), fillvalue=-1)
        labels[:, :6] = LABELS

    assert read(write(path, make)) == LABELS.reshape(-1).tolist()


def test_a_fill_value_that_says_no_label_is_accepted(path: Path) -> None:
    def make(file: h5py.File) -> None:
        labels = file.create_dataset("labels", (4, 6), "i2", chunks=(1, 6), fillvalue=-100)
        labels[1] = LABELS[1]

    assert read(write(path, make)) == [-100] * 6 + LABELS[1].tolist() + [-100] * 12


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_is_read_only_if_every_needed_chunk_was_written(path: Path, data: st.DataObject) -> None:
    n, width = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 9))
    chunks = (data.draw(st.integers(1, n)), data.draw(st.integers(1, width)))
    lengths = np.array(data.draw(st.lists(st.integers(1, width), min_size=n, max_size=n)))
    labels = np.where(np.arange(width) < lengths[:, None], 1, -1)
    grid = [(a, b) for a in range(0, n, chunks[0]) for b in range(0, width, chunks[1])]
    chosen = data.draw(st.lists(st.sampled_from(grid), unique=True))
    was_written = np.zeros((n, width), bool)
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("labels", (n, width), "i2", chunks=chunks)
        for a, b in chosen:
            part = (slice(a, a + chunks[0]), slice(b, b + chunks[1]))
            dataset[part] = labels[part]
            was_written[part] = True
    missing = (~was_written & (labels == 1)).any(axis=1)
    if missing.any():
        with pytest.raises(LabelError, match=f"the labels of {missing.sum()} of {n} rows were never written"):
            read(path, lengths)
    elif was_written.all():
        assert read(path, lengths) == [1] * int(lengths.sum())


def virtual(folder: Path, *, rows: int = 4, source: str = "source.hdf5") -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout(shape=(4, 6), dtype="i2")
    for row in range(rows):
        layout[row] = h5py.VirtualSource(source, "data", shape=(4, 6))[row]
    return layout


def test_a_virtual_dataset_is_read(path: Path) -> None:
    write(path.with_name("source.hdf5"), lambda file: file.create_dataset("data", data=LABELS))
    write(path, lambda file: file.create_virtual_dataset("labels", virtual(path.parent)))
    assert read(path) == LABELS.reshape(-1).tolist()


def test_a_virtual_dataset_of_its_own_file_is_read(path: Path) -> None:
    def make(file: h5py.File) -> None:
        file["data"] = LABELS
        file.create_virtual_dataset("labels", virtual(path.parent, source="."))

    assert read(write(path, make)) == LABELS.reshape(-1).tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (None, "its source 'data' in 'source.hdf5' does not exist"),
        (lambda file: None, "its source 'data' in 'source.hdf5' cannot be read"),
        (lambda file: file.create_dataset("data", data=LABELS[:2]), r"has the shape \(2, 6\), too small"),
        (lambda file: file.create_dataset("data", (4, 6), "i2"), "was not written in record 0, record 1"),
        (
            lambda file: file.create_dataset("data", (4, 6), "i2", chunks=(1, 6)).__setitem__(0, LABELS[0]),
            "was not written in record 1, record 2, record 3",
        ),
        (lambda file: file.create_virtual_dataset("data", virtual(Path(), rows=3, source="further.hdf5")), "not exist"),
    ],
    ids=["no file", "no dataset", "too few rows", "never written", "killed", "virtual source without its source"],
)
def test_a_virtual_dataset_without_its_source_is_refused(
    path: Path, make: Callable[[h5py.File], object] | None, message: str
) -> None:
    if make is not None:
        write(path.with_name("source.hdf5"), make)
    write(path, lambda file: file.create_virtual_dataset("labels", virtual(path.parent)))
    with pytest.raises(LabelError, match=message):
        read(path)


def test_places_that_no_source_of_a_virtual_dataset_fills_are_refused(path: Path) -> None:
    write(path.with_name("source.hdf5"), lambda file: file.create_dataset("data", data=LABELS))
    write(path, lambda file: file.create_virtual_dataset("labels", virtual(path.parent, rows=3)))
    with pytest.raises(LabelError, match=r"the labels of 1 of 4 rows were never written \(row 4\)"):
        read(path)


@pytest.mark.parametrize(("n_bytes", "message"), [(48, None), (40, "is too short"), (None, "does not exist")])
def test_external_storage_must_be_there_and_whole(path: Path, n_bytes: int | None, message: str | None) -> None:
    raw = path.with_name("labels.raw")
    with h5py.File(path, "w") as file:
        file.create_dataset("labels", (4, 6), "i2", external=[(str(raw), 0, 48)])[:] = LABELS
    content = raw.read_bytes()
    raw.unlink()
    if n_bytes is not None:
        raw.write_bytes(content[:n_bytes])
    if message is None:
        assert read(path) == LABELS.reshape(-1).tolist()
        return
    with pytest.raises(LabelError, match=f"'labels' is stored in .*labels.raw', which {message}"):
        read(path)


def test_an_external_file_is_found_from_the_working_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with h5py.File(path, "w") as file:
        file.create_dataset("labels", (4, 6), "i2", external=[("labels.raw", 0, 48)])[:] = LABELS
    assert read(path) == LABELS.reshape(-1).tolist()
    os.chdir("/")
    with pytest.raises(LabelError, match="which does not exist"):
        read(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.5])
def test_labels_that_are_not_whole_are_refused(path: Path, bad: float) -> None:
    values = LABELS.astype(np.float32)
    values[2, 3] = bad
    write(path, lambda file: file.create_dataset("labels", data=values))
    assert user_task_from_hdf5("mine", path, LENGTHS).label.names[-1] == "class_2"
    with pytest.raises(LabelError, match=f"label {bad} is not a class index"):
        read(path)


def declared(shape: tuple[int, int], chunks: tuple[int, int], **options: object) -> Callable[[h5py.File], object]:
    return lambda file: file.create_dataset("labels", shape, "i1", chunks=chunks, **options)


def virtual_of_a_giant(file: h5py.File) -> None:
    file.create_dataset("source", (4, 1 << 36), "i1", chunks=(1, 1))
    layout = h5py.VirtualLayout((4, 6), "i1")
    layout[:] = h5py.VirtualSource(file["source"])[:, :6]
    file.create_virtual_dataset("labels", layout)


def virtual_and_wide(file: h5py.File) -> None:
    file["source"] = LABELS.astype("i1")
    layout = h5py.VirtualLayout((4, 1 << 27), "i1")
    layout[:, :6] = h5py.VirtualSource(".", "source", (4, 6))
    file.create_virtual_dataset("labels", layout, fillvalue=-100)


@pytest.mark.parametrize("reader", ["task", "user"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            declared((4, 1 << 36), (1, 1 << 20), fillvalue=-100),
            "declares 68,719,476,736 labels per record, .* needs 6;",
        ),
        (declared((4, 1 << 36), (1, 1)), "declares 68,719,476,736 labels per record"),
        (declared((4, 1 << 30), (1, 1 << 28), compression="gzip"), "declares 1,073,741,824 labels per record"),
        (declared((4, 6), (4, 1 << 29), maxshape=(4, None)), "declares chunks of 2,147,483,648 bytes for 24 bytes"),
        (declared((1 << 40, 6), (1 << 20, 6), fillvalue=-100), "holds 1099511627776 records, its BED file 4 rows"),
        (virtual_and_wide, "declares 134,217,728 labels per record"),
    ],
)
def test_sizes_far_beyond_the_bed_file_are_refused_before_memory_is_taken(
    path: Path, make: Callable[[h5py.File], object], message: str, reader: str
) -> None:
    write(path, make)
    user = partial(user_task_from_hdf5, "own", path, LENGTHS, names=None, partition=NamedSplits(), stranded=False)
    tracemalloc.start()
    with pytest.raises(LabelError, match=message):
        read(path) if reader == "task" else user()
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_a_source_of_a_virtual_dataset_that_declares_far_more_is_refused(path: Path) -> None:
    with pytest.raises(LabelError, match="has 274,877,906,944 places, too many to check"):
        read(write(path, virtual_of_a_giant))


def test_records_may_be_padded_and_chunks_of_padding_left_unwritten(path: Path) -> None:
    def make(file: h5py.File) -> None:
        padded = file.create_dataset("labels", (4, 60_000), "i1", chunks=(1, 6), fillvalue=-100)
        padded[:, :6] = LABELS

    assert read(write(path, make)) == LABELS.reshape(-1).tolist()


@pytest.mark.parametrize("kind", ["soft", "two soft", "external", "two external", "virtual", "two virtual"])
def test_links_and_virtual_datasets_that_lead_to_themselves_are_refused(path: Path, kind: str) -> None:
    other = path.with_name("other.hdf5")

    def make(target: Path) -> Callable[[h5py.File], object]:
        def virtual(file: h5py.File) -> None:
            layout = h5py.VirtualLayout((4, 6), "i1")
            layout[:] = h5py.VirtualSource(str(target) if "two" in kind else ".", "labels", (4, 6))
            file.create_virtual_dataset("labels", layout)

        def linked(file: h5py.File) -> None:
            if "external" in kind:
                file["labels"] = h5py.ExternalLink(target.name, "labels")
            else:
                file["labels"] = h5py.SoftLink("/other" if "two" in kind else "/labels")
                if "two" in kind:
                    file["other"] = h5py.SoftLink("/labels")

        return virtual if "virtual" in kind else linked

    write(other, make(path))
    write(path, make(other if "two" in kind else path))
    with pytest.raises(LabelError, match=r"which does not exist|cannot be opened|is a virtual dataset of itself"):
        read(path)
    with contextlib.suppress(LabelError):
        assert len(label_files(path)) <= 10  # of a file that was not checked before


def test_a_file_with_flipped_bytes_is_read_or_refused_as_labels(path: Path) -> None:
    make = lambda file: file.create_dataset("labels", data=LABELS, chunks=(2, 3), compression="gzip")  # noqa: E731
    whole = bytearray(write(path, make).read_bytes())
    places = np.random.default_rng(0).permutation(min(len(whole), 2048))[:250]
    for place in places.tolist():
        whole[place] ^= 0x41
        path.write_bytes(whole)
        whole[place] ^= 0x41
        with contextlib.suppress(LabelError):
            assert len(read(path)) == LABELS.size


def ragged(file: h5py.File) -> None:
    made = file.create_dataset("labels", (4,), dtype=h5py.vlen_dtype(np.int64))
    for row in range(4):
        made[row] = LABELS[row]


def outcome_of_reading(path: Path) -> int:
    """0 if labels are read, 1 if they are refused; HDF5 cannot be interrupted, so a process of its own reads them."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        try:
            read(path)
            os._exit(0)
        except LabelError as error:
            os._exit(1 if "damaged" in str(error) or "expected" in str(error) else 2)
        finally:
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_damaged_heap_of_a_ragged_file_is_refused_and_not_read_forever(path: Path) -> None:
    whole = bytearray(write(path, ragged).read_bytes())
    heap = whole.find(b"GCOL")
    assert heap > 0
    assert outcome_of_reading(path) == 0
    for place in range(heap + 8, heap + 240, 8):  # sizes, and what lies between them
        whole[place] ^= 1
        path.write_bytes(whole)
        whole[place] ^= 1
        assert outcome_of_reading(path) in (0, 1), place
    whole[heap + 24] ^= 1  # the size of the first object
    path.write_bytes(whole)
    with pytest.raises(LabelError, match=rf"is damaged \(the heap at byte {heap}\)"):
        read(path)
