"""What the rows of the two alleles say of substitutions: distances at the variant, around it, over the sequence.

    scores, rows = by_embedding(embedder, alleles(...), ScoreSettings(), overlaps=False)
    scores["score"]                                              # BEND's: the cosine distance at the variant

>>> "score" in AT_VARIANT, "sequence_distance" in AT_VARIANT
(True, False)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.errors import ConfigError
from bend_hf.shapes import Ints
from bend_hf.variants.alleles import Alleles, distinct
from bend_hf.variants.rows_on_device import AlleleRows, RowLayout
from bend_hf.variants.scores import distances, mean_distances
from bend_hf.variants.settings import ScoreSettings

if TYPE_CHECKING:
    from torch import Tensor

    from bend_hf.embedders._base import Embedder

AT_VARIANT: Final = tuple(distances(np.ones((1, 1)), np.ones((1, 1))))  # the scores that need no other row


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What was found for n variants.

    Attributes:
        scores: Each of shape (n,).
        ref: The compared row of the reference allele, shape (n, D).
        alt: The same of the other allele.
    """

    scores: dict[str, NDArray[np.float64]]
    ref: NDArray[np.float32]
    alt: NDArray[np.float32]


def by_embedding(embedder: Embedder, pair: Alleles, settings: ScoreSettings, *, overlaps: bool) -> Compared:
    """Compares the rows of both alleles; where nothing but the variant's row is needed, no other is computed whole.

    Args:
        embedder: What embeds the alleles.
        pair: Substitutions.
        settings: Which scores.
        overlaps: Whether the model's tokens share letters, by which ``embedding_idx`` counts.

    Raises:
        ConfigError: ``embedding_idx`` is behind the end of a sequence.
    """
    n = len(pair.ref)
    shown = distinct(pair.ref + pair.alt)
    ref, alt = shown.code[:n], shown.code[n:]
    rows = AlleleRows.of(embedder, shown.texts)
    place = np.concatenate(
        [_place(rows.layout, sequence, pair.offset_bp, settings.embedding_idx, overlaps) for sequence in (ref, alt)]
    )
    if settings.averages:
        whole = rows.all()
        both = _to_host(whole.some(place))
        scores = distances(both[:n], both[n:])
        scores |= mean_distances(whole, ref, alt, pair.offset_bp, window_bp=settings.window_bp)
    else:
        both = _to_host(rows.some(place))
        scores = distances(both[:n], both[n:])
    return Compared(scores=scores, ref=both[:n], alt=both[n:])


def _place(layout: RowLayout, sequence: Ints, offset_bp: Ints, index: int | None, overlaps: bool) -> Ints:
    """The row that is compared, of each variant."""
    if index is None:
        return layout.at(sequence, offset_bp)
    limit = np.diff(layout.starts if overlaps else layout.starts_bp())[sequence]
    if (limit <= index).any() or index < 0:
        raise ConfigError(
            f"--embedding-idx {index} is outside: the shortest sequence has {int(limit.min())} rows; leave it out "
            "to take the row that holds the variant"
        )
    return layout.starts[sequence] + index if overlaps else layout.at(sequence, np.full(len(sequence), index))


def _to_host(rows: Tensor) -> NDArray[np.float32]:
    host: NDArray[np.float32] = rows.cpu().numpy()
    return host
