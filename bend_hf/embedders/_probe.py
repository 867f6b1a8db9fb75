"""Recognize a user's model by what it computes: its embeddings of two fixed sequences.

The content of files does not say everything about a model that runs a user's code. Its embeddings of two short
sequences are therefore stored with what was computed with it, and compared when that is found again. Devices and
libraries differ in the last digits, so the comparison has a tolerance: embeddings that were cached on a GPU are found
on a CPU.

>>> rows = np.array([[1.0, -20.0], [0.5, 3.0]], np.float32)
>>> is_close(rows, rows * 1.00001), is_close(rows, rows * 1.01)
(True, False)
"""

from __future__ import annotations

import hashlib
import logging
import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.errors import ModelError
from bend_hf.files import atomic_path, explain_write_errors, json_sha256
from bend_hf.types import Floats

if TYPE_CHECKING:
    from bend_hf.embedders._embedder import Embedder

log = logging.getLogger(__name__)

_PROBE_BP: Final = 512  # as in BEND's shortest task, so that every model takes it
# Convolutions on an Ampere GPU compute in TF32, whose 10 bits of mantissa leave an error of about 1e-3.
_TOLERANCE: Final = 1e-3
PROBES: Final = ".probes"  # folder of the stored embeddings
_MOST: Final = 1000


def probe_sequences() -> list[str]:
    """Return the two sequences, the same on every machine.

    >>> [len(sequence) for sequence in probe_sequences()], probe_sequences()[0][:8]
    ([512, 512], 'ATTCGATC')
    """
    drawn = (hashlib.shake_128(f"bend_hf probe {n}".encode()).digest(_PROBE_BP) for n in range(2))
    return ["".join("ACGT"[byte & 3] for byte in one) for one in drawn]


def summarize(rows: list[Floats]) -> Floats:
    """Return some rows of each sequence and the mean of all, shape (10, D)."""
    kept = [x_LD[[0, len(x_LD) // 4, len(x_LD) // 2, len(x_LD) - 1]] for x_LD in rows]
    means = [x_LD.mean(axis=0, keepdims=True) for x_LD in rows]
    return np.concatenate([*kept, *means]).astype(np.float32)


def is_close(one: Floats, two: Floats) -> bool:
    """Whether two summaries are equal up to the arithmetic of different devices.

    Args:
        one: Shape (rows, D).
        two: Shape (rows, D).
    """
    if one.shape != two.shape or (np.isfinite(one) != np.isfinite(two)).any():
        return False
    largest_D = np.abs(np.nan_to_num(one, posinf=0, neginf=0)).max(axis=0)  # a few dimensions may be much larger
    limit_D = _TOLERANCE * (largest_D + largest_D.mean())
    return bool((np.abs(np.nan_to_num(one) - np.nan_to_num(two)) <= limit_D).all())


def identity_in(folder: Path, embedder: Embedder) -> dict[str, str]:
    """Return the identity of an embedder, with the name that its probe has in a folder.

    A model of this package is identified by its files. For a model that runs a user's code, the folder remembers the
    embeddings of the probes. Several processes that ask at the same time get the same answer.

    Args:
        folder: Where what the model computed is stored; the probes are in ``.probes`` below it.
        embedder: The embedder.

    Raises:
        ModelError: The model gives other embeddings each time.
        RecordError: The folder cannot be written.
    """
    identity = embedder.identity
    rows = embedder.probe()
    if rows is None:
        return identity
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", embedder.name)[:40]
    stem = f"{name}-{json_sha256(dict(identity))[:24]}"
    others = any((folder / PROBES).glob(f"{name}-*.npy"))
    for number in range(_MOST):
        path = folder / PROBES / f"{stem}-{number}.npy"
        if not path.is_file():
            _warn_of_other_embeddings(embedder, rows, folder if others else None)
            _write_once(path, rows)
        stored = path.read_bytes()
        if is_close(np.load(BytesIO(stored)), rows):
            return {**identity, "probe": hashlib.sha256(stored).hexdigest()[:32]}
    raise ModelError(
        f"{embedder.name} gave {_MOST} different embeddings of the same two sequences; expected the same each time. "
        f"Turn off dropout and seed what it draws, then remove {folder / PROBES}."
    )


def _warn_of_other_embeddings(embedder: Embedder, rows: Floats, used_in: Path | None) -> None:
    """Log why embeddings were not found: the model draws at random, which is said once, or is another than before.

    Args:
        embedder: The embedder.
        rows: Its embeddings of the probes, shape (rows, D).
        used_in: The folder, if a model of this name was used there.
    """
    if not embedder.is_repeatable:
        return
    again = embedder.probe()
    if again is None or is_close(again, rows):
        if used_in is not None:
            log.warning(
                "%s is not the model that was used in %s under this name: its code, files or embeddings differ; "
                "they are computed again",
                embedder.name,
                used_in,
            )
        return
    embedder.is_repeatable = False
    log.warning(
        "%s gave other embeddings of the same sequence when it was asked a second time, so its scores cannot be "
        "repeated and nothing that it computed is used again. Turn off dropout, put its networks in evaluation mode, "
        "and seed what it draws in each call",
        embedder.name,
    )


def _write_once(path: Path, rows: Floats) -> None:
    """Write a summary unless another process was faster."""
    written = BytesIO()
    np.save(written, rows)
    with explain_write_errors(path):
        try:
            with atomic_path(path, overwrite=False) as part:
                part.write_bytes(written.getvalue())
        except FileExistsError:
            pass
