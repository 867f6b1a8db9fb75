"""Open the labels of an HDF5 file, and refuse whatever HDF5 would read as zeros although it was never stored.

HDF5 returns its fill value, by default 0, for chunks that were never written, for virtual datasets whose source is
missing and for external files that are too short. As a label, 0 is a class.
"""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bend_hf.data.bed import name_rows
from bend_hf.errors import LabelError
from bend_hf.types import Bools, Ints

if TYPE_CHECKING:
    import h5py

_NAME: Final = "labels"
_DEEPEST: Final = 8  # virtual datasets of virtual datasets
_WIDEST: Final = 64  # times the longest row that records may be padded to
_LEAST_WIDTH: Final = 1 << 16  # labels per record that are always accepted
_LEAST_CHUNK_BYTES: Final = 1 << 28  # size of a chunk that is always accepted; HDF5 allows 4 GB
_LARGEST_MAP: Final = 1 << 30  # places of a virtual dataset that are marked one by one
# https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md, and the library's own
_FILTERS: Final = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    305: "lzo",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32019: "fcidecomp",
    32022: "b3d",
    32024: "sz3",
    32026: "blosc2",
}


@contextlib.contextmanager
def open_labels(path: Path) -> Iterator[h5py.Dataset]:
    """Open the dataset ``labels`` of an HDF5 file: one- or two-dimensional, of numbers or of arrays of numbers.

    Raises:
        LabelError: The file is not HDF5, has no such dataset, or cannot be decompressed here; or reading fails inside
            the block.
    """
    import h5py

    if not path.is_file():
        raise LabelError(f"{path} does not exist; put the HDF5 file of labels next to the BED file, or pass --labels")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise LabelError(f"{path} cannot be read as HDF5 ({error}); copy or download it again") from error
    with file:
        try:
            yield _dataset(path, file, _NAME)
        except (OSError, RuntimeError, UnicodeError) as error:
            raise LabelError(f"{path} is damaged ({error}); copy or download it again") from error


def label_files(path: Path) -> list[Path]:
    """List the files that hold the labels: the HDF5 file, and those that it only points to, each once.

    Raises:
        LabelError: The labels cannot be opened.
    """
    with open_labels(path) as dataset:
        return list(dict.fromkeys([path, *_files_of(dataset, depth=0)]))


def _files_of(dataset: h5py.Dataset, depth: int) -> Iterator[Path]:
    """Yield the files behind a dataset: of an external link, of external storage, of the sources of a virtual one."""
    import h5py

    path = Path(dataset.file.filename)
    yield path
    yield from (file for file, _, _ in _external_parts(dataset, path))
    for source in dataset.virtual_sources() if dataset.is_virtual and depth < _DEEPEST else ():
        file = path if source.file_name == "." else _source_file(source.file_name, path)
        if file is not None:
            with contextlib.suppress(OSError, KeyError, RuntimeError), h5py.File(file, "r") as other:
                yield from _files_of(other[source.dset_name], depth + 1)
            yield file


# HDF5 File Format Specification 3.0, section III.E: the global heap, which holds the rows of ragged datasets. The
# header of a collection and of an object take 16 bytes each if lengths have 8; objects are padded to multiples of 8.
_HEAP_MARK: Final = b"GCOL\x01\x00\x00\x00"
_HEAP_HEADER_BYTES: Final = 16
_SIZE_OF_LENGTHS: Final = 8


def check_heaps(dataset: h5py.Dataset) -> None:
    """Check the sizes in the heaps of a ragged dataset; HDF5 2.0 reads on forever if one of them is damaged.

    Raises:
        LabelError: The objects of a heap do not fill it.
    """
    for path in dict.fromkeys(_files_of(dataset, depth=0)):
        if path.stat().st_size and dataset.file.id.get_create_plist().get_sizes()[1] == _SIZE_OF_LENGTHS:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
                _check_heaps(raw, path)


def _check_heaps(raw: mmap.mmap, path: Path) -> None:
    start = raw.find(_HEAP_MARK)
    while start >= 0:
        (n_bytes,) = struct.unpack_from("<Q", raw, start + 8) if start + _HEAP_HEADER_BYTES <= len(raw) else (0,)
        end, at = start + n_bytes, start + _HEAP_HEADER_BYTES
        while at + _HEAP_HEADER_BYTES <= end <= len(raw):
            number, size = struct.unpack_from("<H6xQ", raw, at)
            # Object 0 is the free space, header and all.
            at += size if number == 0 and size >= _HEAP_HEADER_BYTES else _HEAP_HEADER_BYTES + (size + 7) // 8 * 8
            if number == 0 and size == 0:
                break
        if not end - _HEAP_HEADER_BYTES < at <= end:
            raise LabelError(f"{path} is damaged (the heap at byte {start}); copy or download it again")
        start = raw.find(_HEAP_MARK, end)


def check_declared(dataset: h5py.Dataset, path: Path, needed: Ints) -> None:
    """Raise if a file declares sizes far beyond what its BED file needs, before memory is taken for them.

    A dataset that was never written may declare any size, and HDF5 holds a whole chunk in memory.

    Args:
        dataset: The labels, one record per row.
        path: The file.
        needed: How many labels of each record are read, shape (records,).

    Raises:
        LabelError: There are too few or too many records, a record is many times wider than the longest row, or a
            chunk is far larger than all labels.
    """
    if dataset.shape[0] != len(needed):
        raise LabelError(
            f"{path} holds {dataset.shape[0]} records, its BED file {len(needed)} rows; "
            "expected one record per row. Use the HDF5 file that was made for this BED file"
        )
    longest = int(needed.max(initial=0))
    width = prod(dataset.shape[1:])
    if width > max(_LEAST_WIDTH, _WIDEST * longest):
        raise LabelError(
            f"{path}: {_NAME!r} declares {width:,} labels per record, and the longest row needs {longest:,}; expected "
            "padding to the longest row. Use the HDF5 file that was made for this BED file"
        )
    _check_chunks(dataset, path)


def _check_chunks(dataset: h5py.Dataset, path: Path) -> None:
    """Raise if HDF5 would have to hold a chunk in memory that is far larger than the dataset."""
    n_bytes = prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
    all_bytes = prod(dataset.shape) * dataset.dtype.itemsize
    if n_bytes > max(_LEAST_CHUNK_BYTES, all_bytes):
        raise LabelError(
            f"{path}: {dataset.name!r} declares chunks of {n_bytes:,} bytes for {all_bytes:,} bytes; expected "
            f"chunks below {_LEAST_CHUNK_BYTES:,} bytes. Write the file again with smaller chunks"
        )


def check_written(
    dataset: h5py.Dataset, path: Path, needed: Ints, *, row_number: Callable[[int], int] = lambda row: row + 1
) -> None:
    """Raise if a label was never stored, so that HDF5 would read its fill value in its place.

    A fill value below zero is accepted: it says that there is no label.

    Args:
        dataset: The labels, one record per row.
        path: The file.
        needed: How many labels of each record are read, shape (records,).
        row_number: Gives the line number of a row for messages.

    Raises:
        LabelError: A place was never stored, or the file that holds it is missing.
    """
    missing = _missing_rows(dataset, path, needed, depth=0)
    if len(missing):
        named = name_rows(missing, lambda row: f"row {row_number(row)}")
        raise LabelError(
            f"{path}: the labels of {len(missing)} of {len(needed)} rows were never written ({named}); HDF5 would read "
            f"them as {_fill_text(dataset)}. Run what wrote the file again until it ends"
        )


def _dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset of numbers in one or two dimensions. Raise if it is anything else."""
    import h5py

    try:
        found = file[name]
    except (KeyError, OSError, RuntimeError) as error:
        raise LabelError(_why_absent(path, file, name)) from error
    if not isinstance(found, h5py.Dataset):
        raise LabelError(
            f"{path}: {name!r} is a {'group' if isinstance(found, h5py.Group) else 'data type'}, not a dataset; "
            "store one record per BED row under that name"
        )
    if found.shape is None or found.ndim not in (1, 2):
        shape = "empty" if found.shape is None else "a single value" if not found.ndim else f"of shape {found.shape}"
        raise LabelError(f"{path}: {name!r} is {shape}; expected (rows, labels). Store one record per BED row")
    inner = h5py.check_vlen_dtype(found.dtype)
    of_numbers = found.dtype.kind in "iufb" or (found.ndim == 1 and np.dtype(inner or object).kind in "iufb")
    if not of_numbers:
        held = "text" if h5py.check_string_dtype(found.dtype) else str(found.dtype if inner is None else inner)
        raise LabelError(
            f"{path}: {name!r} of shape {found.shape} holds {held}; expected class indices (integers). Store one "
            "record of them per BED row"
        )
    _check_filters(path, found)
    return found


def _why_absent(path: Path, file: h5py.File, name: str) -> str:
    """Say why a name cannot be opened."""
    import h5py

    link = file.get(name, getlink=True) if name in file.keys() else None  # noqa: SIM118  # a broken link is a key too
    if isinstance(link, h5py.ExternalLink):
        return (
            f"{path}: {name!r} is a link to {link.path!r} in {link.filename!r}, which cannot be opened; put that file "
            "back, or store the labels themselves"
        )
    if isinstance(link, h5py.SoftLink):
        return f"{path}: {name!r} is a link to {link.path!r}, which does not exist; store the labels themselves"
    # names that are not UTF-8 come as bytes
    held = [one.decode(errors="backslashreplace") if isinstance(one, bytes) else str(one) for one in file]
    return (
        f"{path} has no dataset {name!r} (it holds: {', '.join(held) or 'nothing'}); "
        "store one record per BED row under that name"
    )


def _check_filters(path: Path, dataset: h5py.Dataset) -> None:
    """Raise if the dataset is compressed with something that is not installed."""
    import h5py

    plist = dataset.id.get_create_plist()
    codes = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    if all(h5py.h5z.filter_avail(code) for code in codes):
        return
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")  # makes its filters known to HDF5
    missing = [code for code in codes if not h5py.h5z.filter_avail(code)]
    if missing:
        named = " and ".join(f"{_FILTERS.get(code, 'unknown to bend_hf')}, {code}" for code in missing)
        raise LabelError(
            f"{path}: {_NAME!r} is compressed with a filter ({named}) that is not installed; the file is not damaged. "
            "pip install hdf5plugin, or write the file again with gzip"
        )


def _fill_text(dataset: h5py.Dataset) -> str:
    """Say what HDF5 reads where nothing was written."""
    return str(np.asarray(dataset.fillvalue)) if dataset.dtype.kind in "iufb" else "nothing"


def _fills_with_no_label(dataset: h5py.Dataset) -> bool:
    """Whether what was never written reads as a negative number, chosen by whoever made the dataset."""
    import h5py

    plist = dataset.id.get_create_plist()
    if plist.fill_value_defined() != h5py.h5d.FILL_VALUE_USER_DEFINED or h5py.check_vlen_dtype(dataset.dtype):
        return False
    return bool(np.asarray(dataset.fillvalue) < 0)


def _missing_rows(dataset: h5py.Dataset, path: Path, needed: Ints, *, depth: int) -> Ints:
    """Return the rows of which a needed place was never stored."""
    import h5py

    plist = dataset.id.get_create_plist()
    if not dataset.size:
        return np.zeros(0, np.int64)
    if dataset.is_virtual:
        return _missing_rows_of_virtual(dataset, path, needed, depth)
    if plist.get_external_count():
        _check_external(dataset, path)
        return np.zeros(0, np.int64)
    if _fills_with_no_label(dataset) or plist.get_layout() == h5py.h5d.COMPACT:
        return np.zeros(0, np.int64)
    if dataset.chunks is None:
        unwritten = dataset.id.get_storage_size() == 0
        return np.flatnonzero(needed > 0) if unwritten else np.zeros(0, np.int64)
    return _missing_rows_of_chunks(dataset, needed)


def _missing_rows_of_chunks(dataset: h5py.Dataset, needed: Ints) -> Ints:
    """Return the rows with a needed place in a chunk that was never written."""
    grid = [-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    if dataset.id.get_num_chunks() == prod(grid):
        return np.zeros(0, np.int64)
    if dataset.ndim == 2:  # chunks that hold padding only need not be looked at
        grid[1] = min(grid[1], -(-int(needed.max(initial=0)) // dataset.chunks[1]))
    written = np.zeros(grid, np.bool_)

    def mark(chunk: Any) -> None:  # noqa: ANN401  # h5py's StoreInfo has no public name
        place = tuple(at // size for at, size in zip(chunk.chunk_offset, dataset.chunks, strict=True))
        if dataset.ndim == 1 or place[1] < grid[1]:
            written[place] = True

    dataset.id.chunk_iter(mark)
    rows = np.arange(dataset.shape[0])
    by_row: Bools = written.reshape(grid[0], -1)[rows // dataset.chunks[0]]
    first_label = np.arange(by_row.shape[1]) * (dataset.chunks[1] if dataset.ndim == 2 else 1)
    return np.flatnonzero((~by_row & (first_label < needed[:, None])).any(axis=1))


def _check_external(dataset: h5py.Dataset, path: Path) -> None:
    """Raise if an external file of a dataset is missing or too short."""
    wanted = dataset.size * dataset.dtype.itemsize
    for file, offset, size in _external_parts(dataset, path):
        n_bytes = min(wanted, size)
        wanted -= n_bytes
        if not file.is_file() or file.stat().st_size < offset + n_bytes:
            state = "is too short" if file.is_file() else "does not exist"
            raise LabelError(
                f"{path}: {_NAME!r} is stored in {str(file)!r}, which {state}; copy that file too, or store the labels "
                "in the HDF5 file itself"
            )


def _external_parts(dataset: h5py.Dataset, path: Path) -> Iterator[tuple[Path, int, int]]:
    """Yield the external files of a dataset, with the first byte and the number of bytes."""
    plist, access = dataset.id.get_create_plist(), dataset.id.get_access_plist()
    prefix = os.fsdecode(os.environ.get("HDF5_EXTFILE_PREFIX") or access.get_efile_prefix() or b"")
    folder = prefix.replace("${ORIGIN}", str(path.resolve().parent))
    for number in range(plist.get_external_count()):
        name, offset, size = plist.get_external(number)
        yield Path(folder) / os.fsdecode(name), offset, size


def _source_file(name: str, path: Path) -> Path | None:
    """Return the file of a source of a virtual dataset, where HDF5 looks for it; None if it is missing."""
    prefix = os.environ.get("HDF5_VDS_PREFIX", "").replace("${ORIGIN}", str(path.resolve().parent))
    places = [*([Path(prefix) / name, path.resolve().parent / name] if prefix else []), path.resolve().parent / name]
    return next((at for at in places if at.is_file()), None)


def _missing_rows_of_virtual(dataset: h5py.Dataset, path: Path, needed: Ints, depth: int) -> Ints:
    """Return the rows of a virtual dataset with a needed place that no source holds. Raise if a source is missing."""
    if depth >= _DEEPEST:
        raise LabelError(f"{path}: {_NAME!r} is a virtual dataset of itself; store the labels themselves")
    if dataset.size > _LARGEST_MAP:
        raise LabelError(
            f"{path}: {_NAME!r} is a virtual dataset of {dataset.size:,} places, too many to check; copy it into "
            "a plain dataset"
        )
    stored = np.zeros(dataset.shape, np.bool_)
    for source in dataset.virtual_sources():
        _check_source(source, dataset, path, depth)
        stored[_selected(source.vspace, dataset.shape)] = True
    if _fills_with_no_label(dataset):
        return np.zeros(0, np.int64)
    stored = stored.reshape(len(stored), -1)
    return np.flatnonzero((~stored & (np.arange(stored.shape[1]) < needed[:, None])).any(axis=1))


def _selected(space: Any, shape: tuple[int, ...]) -> Any:  # noqa: ANN401  # h5py.h5s.SpaceID; an index of numpy
    """Return the index of the places that a source fills."""
    import h5py

    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS:
        return ...
    if space.is_regular_hyperslab():
        start, stride, count, block = space.get_regular_hyperslab()
        sides = []
        for number, size in enumerate(shape):
            n_blocks = min(count[number], -(-size // max(stride[number], 1)))
            at = start[number] + stride[number] * np.arange(n_blocks)[:, None] + np.arange(min(block[number], size))
            sides.append(np.unique(at[at < size]))
        return np.ix_(*sides)
    marked = np.zeros(shape, np.bool_)
    for first, last in space.get_select_hyper_blocklist():
        marked[tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))] = True
    return marked


def _check_source(source: Any, dataset: h5py.Dataset, path: Path, depth: int) -> None:  # noqa: ANN401  # h5py.VDSmap
    """Raise if the source of a part of a virtual dataset is missing, too small, or was not written."""
    import h5py

    place = f"{path}: {_NAME!r} is a virtual dataset, and its source {source.dset_name!r} in {source.file_name!r}"
    remedy = "put the file back, or copy the labels into a plain dataset"
    if "%b" in source.file_name or "%b" in source.dset_name:
        raise LabelError(f"{place} stands for any number of files; copy the labels into a plain dataset")
    own = source.file_name == "."
    file = _source_file(source.file_name, path)
    if not own and file is None:
        raise LabelError(f"{place} does not exist; {remedy}")
    try:
        opened = contextlib.nullcontext(dataset.file) if own or file is None else h5py.File(file, "r")
        with opened as other:
            found = other[source.dset_name]
            space = source.src_space
            is_part = space.get_select_type() == h5py.h5s.SEL_HYPERSLABS and space.get_select_npoints() > 0
            reach = [end + 1 for end in space.get_select_bounds()[1]] if is_part else found.shape
            if any(size < end for size, end in zip(found.shape, reach, strict=True)):
                raise LabelError(f"{place} has the shape {found.shape}, too small for the part of it; {remedy}")
            _check_filters(file or path, found)
            _check_chunks(found, file or path)
            if found.size > _LARGEST_MAP:
                raise LabelError(f"{place} has {found.size:,} places, too many to check; {remedy}")
            everything = np.full(found.shape[0], prod(found.shape[1:]), np.int64)
            missing = _missing_rows(found, file or path, everything, depth=depth + 1)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise LabelError(f"{place} cannot be read ({error}); {remedy}") from error
    if len(missing):
        raise LabelError(
            f"{place} was not written in {name_rows(missing, lambda row: f'record {row}')}; run what wrote it again"
        )
