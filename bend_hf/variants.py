"""Zero-shot variant effects: how far an embedding moves where one base changes.

BEND's score is the cosine distance between the embeddings of the two alleles at the token that holds the variant.

>>> cosine_distance(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])).tolist()
[1.0]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.errors import AlignmentError, ConfigError
from bend_hf.predictions import Predictions, concatenate
from bend_hf.shapes import Floats, Ints
from bend_hf.tasks import VariantSpec

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

    from bend_hf.embedders._base import Embedder

_BATCH_VARIANTS = 64
_BESIDE = ("chromosome", "start", "end", "ref", "alt")


@dataclass(frozen=True, kw_only=True)
class Alleles:
    """Sequences around some variants, one a variant and allele, and where in them the variant stands.

    Attributes:
        ref: With the reference base.
        alt: The same with the alternative base.
        offset_bp: Place of the variant in both, int64, shape (n,).
    """

    ref: list[str]
    alt: list[str]
    offset_bp: Ints


def alleles(sequences: Sequence[str], offset_bp: Ints, alt: Sequence[str], *, left_bp: int, right_bp: int) -> Alleles:
    """Cuts the context out of stored sequences and puts the alternative base in.

    Near a contig's end the context is what there is.

    Args:
        sequences: Stored sequence around each variant, with the reference base.
        offset_bp: Place of the variant in each, int64, shape (n,).
        alt: The alternative base of each.
        left_bp: Nucleotides wanted before the variant.
        right_bp: Nucleotides wanted behind it.
    """
    starts = np.maximum(offset_bp - left_bp, 0)
    ref = [s[a : o + 1 + right_bp] for s, a, o in zip(sequences, starts, offset_bp, strict=True)]
    places = offset_bp - starts
    changed = [r[:p] + base + r[p + 1 :] for r, p, base in zip(ref, places, alt, strict=True)]
    return Alleles(ref=ref, alt=changed, offset_bp=places)


def cosine_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """One minus the cosine of the angle between rows, float64, shape (n,); 0 where both rows are equal.

    A row of zeros has no direction: its distance to anything but itself is 1.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.divide((a * b).sum(axis=1), norms, out=np.zeros(len(a)), where=norms > 0)
    distance: NDArray[np.float64] = np.clip(1.0 - cosine, 0.0, 2.0)
    distance[(a == b).all(axis=1)] = 0.0
    return distance


def variant_rows(embedder: Embedder, sequences: list[str], offset_bp: Ints) -> Floats:
    """The embedding of the token that holds the variant, shape (n, width).

    Raises:
        AlignmentError: A sequence's tokens end before the variant.
    """
    picked = []
    for embedded, offset in zip(embedder.embed_tokens(sequences), offset_bp, strict=True):
        row = int(np.searchsorted(np.cumsum(embedded.row_bp), offset, side="right"))
        if row >= len(embedded.rows):
            raise AlignmentError(f"the tokens end before nucleotide {offset} that holds the variant")
        picked.append(embedded.rows[row])
    return np.stack(picked)


def score_zero_shot(
    dataset: Dataset,
    embedder: Embedder,
    spec: VariantSpec,
    label_names: tuple[str, ...],
    accelerator: Accelerator,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Predictions:
    """Scores every variant by BEND's cosine distance, spread over the processes.

    Causal models see the sequence up to the variant and no further; the others the same on either side.

    Args:
        dataset: Variants with ``sequence``, ``variant_offset``, ``ref``, ``alt`` and ``label``.
        embedder: What embeds the alleles.
        spec: How much context they get.
        label_names: Names of the two classes.
        accelerator: The processes.
        progress: Told how many of this process's variants are done, and how many there are.

    Raises:
        ConfigError: There is no variant.
    """
    causal = embedder.direction == "causal"
    left_bp = spec.causal_context_bp if causal else spec.context_bp
    right_bp = 0 if causal else spec.context_bp
    mine = np.arange(len(dataset))[accelerator.process_index :: accelerator.num_processes]
    columns = ["item", "sequence", "variant_offset", "label", *_BESIDE]
    view = dataset.select_columns([*columns, *(["full_label"] if "full_label" in dataset.column_names else [])])
    view = view.with_format("arrow")
    parts = []
    for start in range(0, len(mine), _BATCH_VARIANTS):
        table = view[mine[start : start + _BATCH_VARIANTS]]
        pair = alleles(
            table["sequence"].to_pylist(),
            table["variant_offset"].to_numpy().astype(np.int64),
            table["alt"].to_pylist(),
            left_bp=left_bp,
            right_bp=right_bp,
        )
        n = len(pair.ref)
        rows = variant_rows(embedder, pair.ref + pair.alt, np.concatenate([pair.offset_bp, pair.offset_bp]))
        parts.append(_predictions(table, cosine_distance(rows[:n], rows[n:]), label_names))
        progress(min(start + n, len(mine)), len(mine))
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        parts = gather_object(parts)
    if not parts:
        raise ConfigError("there is no variant to score; check the bed")
    return concatenate(parts)


def _predictions(table: pa.Table, distance: NDArray[np.float64], label_names: tuple[str, ...]) -> Predictions:
    beside = {name: table[name].combine_chunks() for name in (*_BESIDE, "full_label") if name in table.column_names}
    return Predictions(
        item=table["item"].to_numpy(),
        windows=np.arange(len(table) + 1),
        target=table["label"].to_numpy().astype(np.int16),
        score=distance.astype(np.float32),
        predicted=None,
        label_names=label_names,
        beside=beside,
    )
