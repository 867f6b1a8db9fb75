"""Scores of variants without a model: the GC content around a variant, and the CpG sites that it makes or breaks.

>>> sequence = Nucleotides.of(["ACGT"])
>>> changes(sequence.codes, np.array([2]), np.array([0]), np.array([4]), np.array([ord("A")])).tolist()
[1]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._tokens import Nucleotides
from bend_hf.evaluation.predictions import Predictions
from bend_hf.runs.controls._linear import of_windows
from bend_hf.tasks import TaskSpec, VariantSpec
from bend_hf.types import Bytes, Ints

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_BATCH_VARIANTS: Final = 8192
_C, _G = ord("C"), ord("G")


def variant_predictions(task: TaskSpec, dataset: Dataset, score: NDArray[np.number]) -> Predictions:
    """Return the predictions of a variant task, given one score per variant."""
    target = dataset.select_columns(["label"]).with_format("arrow")[:]["label"].to_numpy().astype(np.int16)
    n = len(dataset)
    return of_windows(task, dataset, np.arange(n), np.ones(n, np.int64), target, score.astype(np.float32))


def gc_around(dataset: Dataset, spec: VariantSpec) -> NDArray[np.float64]:
    """Return the fraction of G and C around each variant, in the context that a model sees, shape (variants,)."""
    found = []
    for table in _tables(dataset):
        nucleotides = _nucleotides(table)
        place = nucleotides.starts[:-1] + table["variant_offset"].to_numpy()
        low = np.maximum(place - spec.context_bp, nucleotides.starts[:-1])
        high = np.minimum(place + spec.context_bp + 1, nucleotides.starts[1:])
        gc, known = (np.concatenate([[0], np.cumsum(np.isin(nucleotides.codes, codes))]) for codes in (_GC, _BASES))
        found.append((gc[high] - gc[low]) / np.maximum(known[high] - known[low], 1))
    return np.concatenate(found)


def cpg_changes(dataset: Dataset) -> NDArray[np.int64]:
    """Count the CpG sites that each variant makes and breaks, 0 to 2, shape (variants,)."""
    found = []
    for table in _tables(dataset):
        nucleotides = _nucleotides(table)
        place = nucleotides.starts[:-1] + table["variant_offset"].to_numpy()
        alt = np.frombuffer("".join(table["alt"].to_pylist()).encode("ascii"), np.uint8)
        found.append(changes(nucleotides.codes, place, nucleotides.starts[:-1], nucleotides.starts[1:], alt))
    return np.concatenate(found)


def changes(codes: Bytes, place: Ints, start: Ints, end: Ints, alt: NDArray[np.integer]) -> Ints:
    """Count the CpG sites made and broken by substitutions.

    Args:
        codes: ASCII codes of all sequences.
        place: Position of each substitution in them, shape (n,).
        start: Start of its sequence, shape (n,).
        end: End of its sequence, shape (n,).
        alt: ASCII code of the new base, shape (n,).
    """
    before = (place > start) & (codes[np.maximum(place - 1, 0)] == _C)
    after = (place + 1 < end) & (codes[np.minimum(place + 1, len(codes) - 1)] == _G)
    ref = codes[place]
    broken = (before & (ref == _G)).astype(np.int64) + (after & (ref == _C))
    made = (before & (alt == _G)).astype(np.int64) + (after & (alt == _C))
    return np.where(ref == alt, 0, broken + made)


_GC: Final = np.frombuffer(b"GC", np.uint8)
_BASES: Final = np.frombuffer(b"ACGT", np.uint8)


def _tables(dataset: Dataset) -> Iterator[pa.Table]:
    view = dataset.select_columns(["sequence", "variant_offset", "alt"]).with_format("arrow")
    for start in range(0, len(view), _BATCH_VARIANTS):
        yield view[start : start + _BATCH_VARIANTS]


def _nucleotides(table: pa.Table) -> Nucleotides:
    return Nucleotides.of([text.upper() for text in table["sequence"].to_pylist()])
