"""Scores that compare the embeddings of the REF and ALT alleles.

BEND's score is the cosine distance between the embeddings of the token that holds the variant.

>>> cosine_distance(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])).tolist()
[1.0]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bend_hf.variants.batch import VariantBatch
from bend_hf.variants.scores import MAIN, VariantScore


def cosine_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute one minus the cosine of the angle between vectors; 0 if both are equal.

    A vector of zeros has no direction: its distance to anything but itself is 1.

    Args:
        a: Shape (n, D).
        b: Shape (n, D).

    Returns:
        Shape (n,).
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.divide((a * b).sum(axis=1), norms, out=np.zeros(len(a)), where=norms > 0)
    distance: NDArray[np.float64] = np.clip(1.0 - cosine, 0.0, 2.0)
    distance[(a == b).all(axis=1)] = 0.0
    return distance


def _cosine(batch: VariantBatch) -> NDArray[np.float64]:
    return cosine_distance(batch.ref_embeddings, batch.alt_embeddings)


def _dot_product(batch: VariantBatch) -> NDArray[np.float64]:
    product: NDArray[np.float64] = (batch.ref_embeddings * batch.alt_embeddings).sum(axis=1)
    return product


def _l1_distance(batch: VariantBatch) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = np.abs(batch.alt_embeddings - batch.ref_embeddings).sum(axis=1)
    return distance


def _l2_distance(batch: VariantBatch) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = np.linalg.norm(batch.alt_embeddings - batch.ref_embeddings, axis=1)
    return distance


def _window_distance(batch: VariantBatch) -> NDArray[np.float64]:
    return batch.segment_distances.mean_around(batch.alleles.offset_bp, batch.settings.window_bp)


def _sequence_distance(batch: VariantBatch) -> NDArray[np.float64]:
    return batch.segment_distances.mean()


SCORES = (
    VariantScore(key=MAIN, text="cosine distance at the variant", rises_with_effect=True, compute=_cosine),
    VariantScore(key="dot_product", text="dot product at the variant", rises_with_effect=False, compute=_dot_product),
    VariantScore(key="l1_distance", text="L1 distance at the variant", rises_with_effect=True, compute=_l1_distance),
    VariantScore(key="l2_distance", text="L2 distance at the variant", rises_with_effect=True, compute=_l2_distance),
    VariantScore(
        key="window_distance",
        text="mean cosine distance around the variant",
        rises_with_effect=True,
        compute=_window_distance,
        needs="sequence",
    ),
    VariantScore(
        key="sequence_distance",
        text="mean cosine distance over the sequence",
        rises_with_effect=True,
        compute=_sequence_distance,
        needs="sequence",
    ),
)
