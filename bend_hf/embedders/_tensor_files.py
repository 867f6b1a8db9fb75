"""Read the tensors of large checkpoints one at a time, so that a file of any size needs the memory of one tensor.

Two kinds of files are supported: safetensors, in one file or in shards, and pickles of ``torch.save`` (``.pt``), also
those that are cut into parts (``.pt.part0``, ``.pt.part1``) whose bytes belong together. Of a pickle only the names,
shapes and places of the tensors are unpickled, with ``weights_only=True``, which runs no code; the bytes of each tensor
are then read from its place.

    with open_tensors([Path("evo2_7b.pt")]) as tensors:
        tensors.shapes["norm.scale"], tensors.read("norm.scale")

>>> bytes_of(torch.bfloat16, (2, 3))
12
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from bend_hf.embedders._weights import check_archive, check_weight_file
from bend_hf.errors import ModelError


def bytes_of(dtype: torch.dtype, shape: Sequence[int]) -> int:
    """Count the bytes of a tensor."""
    return dtype.itemsize * math.prod(shape)


class JoinedFile(io.RawIOBase):
    """Several files, read as if they were one after the other in one file."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._files = [path.open("rb", buffering=0) for path in paths]
        self._sizes = [path.stat().st_size for path in paths]
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in all files together."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, counted from the start, the current position or the end."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: sum(self._sizes)}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 as io declares it
        """Fill a buffer, or a part of it at the end of one of the files."""
        before = 0
        for file, size in zip(self._files, self._sizes, strict=True):
            if self._at < before + size:
                file.seek(self._at - before)
                n_read = file.readinto(memoryview(buffer)[: before + size - self._at]) or 0
                self._at += n_read
                return n_read
            before += size
        return 0

    def close(self) -> None:
        """Close all files."""
        for file in self._files:
            file.close()
        super().close()


class TensorFiles(ABC):
    """Tensors by name, read one at a time.

    Attributes:
        shapes: Shape of each tensor.
        dtypes: Type of each tensor.
        blobs: Contents of entries that are bytes and not tensors.
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]
    blobs: dict[str, bytes]

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """Read one tensor into new memory of the host."""


class _Safetensors(TensorFiles):
    def __init__(self, paths: Sequence[Path], stack: ExitStack) -> None:
        from safetensors import safe_open

        self.shapes, self.dtypes, self.blobs = {}, {}, {}
        self._path_of: dict[str, Path] = {}
        for path in paths:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  safe_open is no mapping
                    part = file.get_slice(name)
                    self._path_of[name] = path
                    self.shapes[name] = tuple(part.get_shape())
                    self.dtypes[name] = _SAFE_DTYPES[part.get_dtype()]

    def read(self, name: str) -> Tensor:
        from safetensors import safe_open

        # opened anew, because the pages that a mapping has read count as memory until it is closed
        with safe_open(self._path_of[name], framework="pt") as file:
            value: Tensor = file.get_tensor(name)
        return value


_SAFE_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


class _Pickled(TensorFiles):
    def __init__(self, paths: Sequence[Path], stack: ExitStack) -> None:
        self._file = stack.enter_context(contextlib.closing(JoinedFile(paths)))
        self._name = paths[0].name
        check_archive(cast("IO[bytes]", self._file), paths[0])
        self._size = self._file.seek(0, io.SEEK_END)
        self._file.seek(0)
        with torch.serialization.safe_globals([io.BytesIO]):  # entries of Transformer Engine; never executed
            loaded = torch.load(cast("IO[bytes]", self._file), map_location="meta", weights_only=True)
        if not isinstance(loaded, dict):
            raise ModelError(f"{paths[0]} holds a {type(loaded).__name__}; expected a dictionary of tensors")
        tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
        self.blobs = {str(key): value.getvalue() for key, value in loaded.items() if isinstance(value, io.BytesIO)}
        odd = [str(key) for key in loaded if str(key) not in tensors and str(key) not in self.blobs]
        if odd:
            raise ModelError(f"{paths[0]} holds {odd[0]!r}, which is neither a tensor nor bytes; expected only these")
        self.shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        self.dtypes = {name: value.dtype for name, value in tensors.items()}
        self._start = {name: self._place(name, value) for name, value in tensors.items()}

    def _place(self, name: str, value: Tensor) -> int:
        start = getattr(value.untyped_storage(), "_checkpoint_offset", None)
        if start is None or not value.is_contiguous() or sys.byteorder != "little":
            raise ModelError(
                f"torch {torch.__version__} does not say where {name} lies in {self._name}; use torch 2.13 on a "
                f"little-endian machine, or convert the file to safetensors elsewhere"
            )
        place = int(start) + int(value.storage_offset()) * value.element_size()
        end = place + bytes_of(value.dtype, tuple(value.shape))
        if end > self._size:
            raise ModelError(f"{self._name} has {self._size} bytes, and {name} would end at {end}; download it again")
        return place

    def read(self, name: str) -> Tensor:
        buffer = bytearray(bytes_of(self.dtypes[name], self.shapes[name]))
        view, n_read = memoryview(buffer), 0
        self._file.seek(self._start[name])
        while n_read < len(buffer):
            n_new = self._file.readinto(view[n_read:])
            if not n_new:
                raise ModelError(f"{self._name} ends inside {name}; download it again")
            n_read += n_new
        return torch.frombuffer(buffer, dtype=self.dtypes[name]).view(self.shapes[name])


@contextlib.contextmanager
def open_tensors(paths: Sequence[Path]) -> Iterator[TensorFiles]:
    """Open the files of a checkpoint.

    Args:
        paths: Shards of safetensors, or one pickle, or all parts of one in order.

    Raises:
        ModelError: A file is damaged, is not a weight file, or holds something other than tensors and bytes.
    """
    import pickle

    check_weight_file(paths[0], is_part=len(paths) > 1)
    with ExitStack() as stack:
        kind = _Safetensors if paths[0].suffix == ".safetensors" else _Pickled
        try:
            tensors: TensorFiles = kind(paths, stack)
        except pickle.UnpicklingError as error:
            raise ModelError(
                f"{paths[0]} is not a plain state dict: it is damaged, or holds objects that could run code when they "
                f"are read. Download it again"
            ) from error
        except ModelError:
            raise
        except Exception as error:  # safetensors and torch raise many kinds of errors for a truncated file
            raise ModelError(
                f"{paths[0]} cannot be read: {type(error).__name__}: {error}; download it again"
            ) from error
        yield tensors
