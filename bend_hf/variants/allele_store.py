"""The rows of both alleles at every variant, on disk, read a batch at a time.

Put together from the pieces that scoring left; 300,000 variants of a model of width 768 are 1.8 GB.

>>> AlleleStore.__name__
'AlleleStore'
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

from bend_hf.errors import RecordError
from bend_hf.files import atomic_path, explain_write_errors
from bend_hf.types import Bools, Floats, Ints
from bend_hf.variants.checkpoint import ScoringCheckpoint
from bend_hf.variants.score import ALT_ROW, REF_ROW


class AlleleStore:
    """Rows of n variants.

    Args:
        path: The file, n times two rows of float32.
        width: Numbers in a row.
        has_rows: Whether a variant has rows; an insertion or deletion has none. Shape (n,).
    """

    def __init__(self, path: Path, width: int, has_rows: Bools) -> None:
        self.path = path
        self.width = width
        self.has_rows = has_rows
        self._rows = np.memmap(path, np.float32, "r", shape=(len(has_rows), 2, width))

    def __len__(self) -> int:
        return len(self.has_rows)

    def features(self, variants: Ints) -> Floats:
        """REF, ALT and their difference side by side, shape (variants, 3 * width)."""
        ref, alt = self._rows[variants, 0], self._rows[variants, 1]
        return np.concatenate([ref, alt, alt - ref], axis=1)

    @classmethod
    def gather(cls, parts: ScoringCheckpoint, keys: list[str], item: Ints, *, write: bool) -> AlleleStore:
        """The rows of all pieces in the order of some items.

        Args:
            parts: Where the pieces are.
            keys: Which of them.
            item: Items in the order wanted, rising, shape (n,).
            write: Whether this process writes the file; the others only find out its shape.

        Raises:
            RecordError: A piece is gone or has no rows, or the file cannot be written.
        """
        path = parts.folder / "rows.f32"
        has_rows = np.zeros(len(item), np.bool_)
        rows: np.memmap | None = None
        width = 0
        with ExitStack() as writing:
            if write:
                writing.enter_context(explain_write_errors(path))
                part = writing.enter_context(atomic_path(path))
            for key in keys:
                piece = parts.read(key, ["item", REF_ROW, ALT_ROW])
                if piece is None or REF_ROW not in piece.column_names:
                    raise RecordError(f"{parts.path(key)} is gone or holds no rows; score again with rows kept")
                ref, alt = (piece[name].combine_chunks() for name in (REF_ROW, ALT_ROW))
                width = ref.type.list_size
                at = np.searchsorted(item, piece["item"].to_numpy())
                has_rows[at] = ref.is_valid().to_numpy(zero_copy_only=False)
                if not write:
                    continue
                if rows is None:
                    rows = np.memmap(part, np.float32, "w+", shape=(len(item), 2, width))
                rows[at, 0], rows[at, 1] = _matrix(ref), _matrix(alt)
            if rows is not None:
                rows.flush()
        return cls(path, width, has_rows) if write else _Later(path, width, has_rows)

    def remove(self) -> None:
        """Takes the file away."""
        self.path.unlink(missing_ok=True)


class _Later(AlleleStore):
    """A store whose file another process writes; opened at first use."""

    def __init__(self, path: Path, width: int, has_rows: Bools) -> None:
        self.path, self.width, self.has_rows = path, width, has_rows

    def features(self, variants: Ints) -> Floats:
        if "_rows" not in self.__dict__:
            self._rows = np.memmap(self.path, np.float32, "r", shape=(len(self.has_rows), 2, self.width))
        return super().features(variants)


def _matrix(column: pa.FixedSizeListArray) -> Floats:
    flat: Floats = column.values.to_numpy(zero_copy_only=False)
    size = column.type.list_size
    return flat[column.offset * size : (column.offset + len(column)) * size].reshape(-1, size)
