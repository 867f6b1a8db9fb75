"""Embeddings of both alleles at every variant, in one file that a head reads in batches.

The file is assembled from the batches of a scoring. 300,000 variants of a model of width 768 take 1.8 GB.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from bend_hf.errors import RecordError
from bend_hf.files import atomic_path, explain_write_errors
from bend_hf.types import Bools, Floats, Ints
from bend_hf.variants.checkpoint import ScoringCheckpoint
from bend_hf.variants.score import ALT_EMBEDDING, REF_EMBEDDING


class AlleleStore:
    """Embeddings of n variants, opened when they are first read.

    Args:
        path: The file: REF and ALT of each variant, float32, shape (n, 2, width).
        width: Width of an embedding.
        has_embeddings: False for insertions and deletions, shape (n,).
    """

    def __init__(self, path: Path, width: int, has_embeddings: Bools) -> None:
        self.path = path
        self.width = width
        self.has_embeddings = has_embeddings
        self._values: np.memmap | None = None

    def __len__(self) -> int:
        return len(self.has_embeddings)

    def features(self, variants: Ints) -> Floats:
        """Return REF, ALT and their difference, shape (variants, 3 * width)."""
        if self._values is None:
            self._values = np.memmap(self.path, np.float32, "r", shape=(len(self), 2, self.width))
        ref, alt = self._values[variants, 0], self._values[variants, 1]
        return np.concatenate([ref, alt, alt - ref], axis=1)

    @classmethod
    def gather(cls, checkpoint: ScoringCheckpoint, keys: list[str], item: Ints, *, write: bool) -> AlleleStore:
        """Assemble the embeddings of all batches, in the order of the items.

        Args:
            checkpoint: The finished batches.
            keys: Keys of the batches.
            item: Items in ascending order, shape (n,).
            write: Whether this process writes the file; the other processes only find out its shape.

        Raises:
            RecordError: A batch is missing or has no embeddings, or the file cannot be written.
        """
        path = checkpoint.folder / "rows.f32"
        has_embeddings = np.zeros(len(item), np.bool_)
        width = 0
        with contextlib.ExitStack() as stack:
            values: np.memmap | None = None
            for key in keys:
                batch = checkpoint.read(key, ["item", REF_EMBEDDING, ALT_EMBEDDING])
                if batch is None or REF_EMBEDDING not in batch.column_names:
                    raise RecordError(
                        f"{checkpoint.path(key)} is missing or holds no embeddings; score again with "
                        "keep_embeddings=True"
                    )
                ref, alt = (batch[name].combine_chunks() for name in (REF_EMBEDDING, ALT_EMBEDDING))
                width = ref.type.list_size
                at = np.searchsorted(item, batch["item"].to_numpy())
                has_embeddings[at] = ref.is_valid().to_numpy(zero_copy_only=False)
                if not write:
                    continue
                if values is None:
                    stack.enter_context(explain_write_errors(path))
                    part = stack.enter_context(atomic_path(path))
                    values = np.memmap(part, np.float32, "w+", shape=(len(item), 2, width))
                values[at, 0], values[at, 1] = _matrix(ref), _matrix(alt)
            if values is not None:
                values.flush()
        return cls(path, width, has_embeddings)

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def _matrix(column: pa.FixedSizeListArray) -> Floats:
    flat: Floats = column.values.to_numpy(zero_copy_only=False)
    size = column.type.list_size
    return flat[column.offset * size : (column.offset + len(column)) * size].reshape(-1, size)
