"""What the rows of the two alleles say of substitutions: distances at the variant, around it, over the sequence.

    scores, rows = by_embedding(embedder, alleles(...), ScoreSettings(), overlaps=False)
    scores["score"]                                              # BEND's: the cosine distance at the variant

>>> "score" in AT_VARIANT, "sequence_distance" in AT_VARIANT
(True, False)

The scores of a variant: what each column means, and the distances between the rows of its two alleles.

BEND's score is the cosine distance between the embeddings of the two alleles at the token that holds the variant.

>>> cosine_distance(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])).tolist()
[1.0]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.errors import ConfigError
from bend_hf.types import Ints
from bend_hf.variants.allele_embeddings import AlleleEmbeddings, RowsOnDevice, TokenLayout
from bend_hf.variants.alleles import Alleles, distinct
from bend_hf.variants.config import ScoreSettings

if TYPE_CHECKING:
    from torch import Tensor

    from bend_hf.embedders._embedder import Embedder

_BLOCK_NUMBERS: Final = 1 << 22  # numbers that are compared at a time, few enough to stay in a cache


@dataclass(frozen=True, kw_only=True)
class ScoreColumn:
    """One score.

    Attributes:
        name: Its column in the prediction file.
        text: What it is, for a record or a plot.
        rises_with_effect: Whether a larger value speaks for an effect; AUROC is taken of the negative otherwise.
    """

    name: str
    text: str
    rises_with_effect: bool


MAIN: Final = "score"  # BEND's, the one that a record is ranked by
SCORE_COLUMNS: Final = (
    ScoreColumn(name=MAIN, text="cosine distance at the variant", rises_with_effect=True),
    ScoreColumn(name="dot_product", text="dot product at the variant", rises_with_effect=False),
    ScoreColumn(name="l1_distance", text="L1 distance at the variant", rises_with_effect=True),
    ScoreColumn(name="l2_distance", text="L2 distance at the variant", rises_with_effect=True),
    ScoreColumn(name="window_distance", text="mean cosine distance around the variant", rises_with_effect=True),
    ScoreColumn(name="sequence_distance", text="mean cosine distance over the sequence", rises_with_effect=True),
    ScoreColumn(name="log_likelihood_ratio", text="log-likelihood of ALT minus that of REF", rises_with_effect=False),
    ScoreColumn(name="entropy", text="entropy of the base at the site, in bits", rises_with_effect=False),
)


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


def distances(ref: NDArray[np.floating], alt: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """The scores that need the variant's own rows alone, shape (n,) each.

    Args:
        ref: Rows of the reference allele, shape (n, D).
        alt: Rows of the other allele, shape (n, D).
    """
    ref, alt = ref.astype(np.float64), alt.astype(np.float64)
    return {
        MAIN: cosine_distance(ref, alt),
        "dot_product": (ref * alt).sum(axis=1),
        "l1_distance": np.abs(alt - ref).sum(axis=1),
        "l2_distance": np.linalg.norm(alt - ref, axis=1),
    }


@dataclass(frozen=True, kw_only=True)
class _Segments:
    """Runs of nucleotides over which neither allele's row changes, of all pairs, one after the other."""

    ref_row: Ints
    alt_row: Ints
    pair: Ints
    start_bp: Ints  # within the sequence
    end_bp: Ints


def mean_distances(
    rows: RowsOnDevice, ref: Ints, alt: Ints, offset_bp: Ints, *, window_bp: int
) -> dict[str, NDArray[np.float64]]:
    """Cosine distance of the two alleles' rows, a nucleotide at a time, averaged on the device.

    Args:
        rows: Rows of all sequences.
        ref: Which sequence has the reference allele, shape (n,).
        alt: Which has the other; of the same length, shape (n,).
        offset_bp: Where the variant stands in both, shape (n,).
        window_bp: Nucleotides on each side of the variant that the window takes in, as far as there are any.

    Returns:
        ``window_distance`` and ``sequence_distance``, shape (n,) each.
    """
    segments = _segments(rows, ref, alt)
    by_segment = _segment_distances(rows.values, segments)
    low, high = offset_bp - window_bp, offset_bp + window_bp + 1
    in_window = np.minimum(segments.end_bp, high[segments.pair]) - np.maximum(segments.start_bp, low[segments.pair])
    weights = {
        "window_distance": np.maximum(in_window, 0),
        "sequence_distance": segments.end_bp - segments.start_bp,
    }
    return {
        name: np.bincount(segments.pair, by_segment * weight, len(ref))
        / np.maximum(np.bincount(segments.pair, weight, len(ref)), 1)
        for name, weight in weights.items()
    }


def _segments(rows: RowsOnDevice, ref: Ints, alt: Ints) -> _Segments:
    starts_bp, ends_bp = rows.starts_bp(), rows.ends_bp()
    lengths_bp = np.diff(starts_bp)[ref]
    pair_ends = np.cumsum(lengths_bp)
    pair_starts = pair_ends - lengths_bp

    def laid_out(sequence: Ints) -> tuple[Ints, Ints]:
        """Rows of each pair's sequence, and where they end counted through all pairs."""
        counts = np.diff(rows.starts)[sequence]
        first = np.repeat(np.cumsum(counts) - counts, counts)
        row = np.repeat(rows.starts[sequence], counts) + np.arange(counts.sum()) - first
        return row, ends_bp[row] + np.repeat(pair_starts - starts_bp[sequence], counts)

    ref_row, ref_end = laid_out(ref)
    alt_row, alt_end = laid_out(alt)
    if len(ref_end) == len(alt_end) and (ref_end == alt_end).all():
        end, ref_of, alt_of = ref_end, ref_row, alt_row
    else:
        end = np.union1d(ref_end, alt_end)
        ref_of, alt_of = ref_row[np.searchsorted(ref_end, end)], alt_row[np.searchsorted(alt_end, end)]
    pair = np.searchsorted(pair_ends, end)
    start = np.concatenate([[0], end[:-1]])
    return _Segments(
        ref_row=ref_of, alt_row=alt_of, pair=pair, start_bp=start - pair_starts[pair], end_bp=end - pair_starts[pair]
    )


def _segment_distances(values: Tensor, segments: _Segments) -> NDArray[np.float64]:
    """Half the squared distance of the rows' unit vectors, which is one minus their cosine, exact where it is 0."""
    import torch

    with torch.inference_mode():
        norms = values.norm(dim=1, keepdim=True)
        unit = values / norms.clamp(min=torch.finfo(values.dtype).tiny)
        is_zero = norms[:, 0] == 0
        block = max(1, _BLOCK_NUMBERS // values.shape[1])
        found = []
        for at in range(0, len(segments.pair), block):
            a, b = (
                torch.from_numpy(row[at : at + block]).to(values.device) for row in (segments.ref_row, segments.alt_row)
            )
            half = (unit[a] - unit[b]).square_().sum(dim=1) / 2
            found.append(torch.where(is_zero[a] ^ is_zero[b], 1.0, half).cpu().numpy())
    return np.concatenate(found).astype(np.float64)


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
    rows = AlleleEmbeddings.of(embedder, shown.texts)
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


def _place(layout: TokenLayout, sequence: Ints, offset_bp: Ints, index: int | None, overlaps: bool) -> Ints:
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
