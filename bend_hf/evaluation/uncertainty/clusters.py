"""What counts as one independent observation: an item, a chromosome, or a block of neighboring positions.

Neighbors on a chromosome share sequence, genes and chromatin. Items are therefore not independent, and intervals over
items are too narrow. In gene finding and enhancer annotation an item is a gene. ``choose_clusters`` picks what the data
allow: chromosomes if there are enough, otherwise blocks as long as labels stay correlated.

>>> codes_of(np.array(["b", "a", "b"])).tolist()
[1, 0, 1]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.errors import ConfigError, RecordError, did_you_mean
from bend_hf.evaluation.predictions import Predictions
from bend_hf.types import Ints

ClusterBy: TypeAlias = Literal["item", "chromosome", "block"]
CLUSTERS: Final[tuple[ClusterBy, ...]] = get_args(ClusterBy)
AUTO: Final = "auto"
BLOCK_BP: Final = 1_000_000  # longer than most genes and most blocks of linkage disequilibrium

# Choices of ``choose_clusters``; docs/uncertainty.md gives the reasons.
_ENOUGH_CHROMOSOMES: Final = 10  # of equal size
_ENOUGH_BLOCKS: Final = 30
_BLOCKS_BP: Final = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
_CORRELATED: Final = 0.05  # labels at a distance count as independent below this correlation
_APART: Final = 0.05  # items are far apart if fewer than this fraction have a neighbor within BLOCK_BP


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """The cluster of each item.

    Attributes:
        of_item: Numbers from 0 without a gap, int64, shape (items,).
        by: ``item``, ``chromosome`` or ``block``.
        block_bp: Length of a block; None for items and chromosomes.
        reason: Why these clusters, in words.
    """

    of_item: Ints
    by: str
    block_bp: int | None
    reason: str

    def __len__(self) -> int:
        return int(self.of_item.max(initial=-1)) + 1

    @property
    def noun(self) -> str:
        """What the clusters are, in words."""
        if self.block_bp is None:
            return f"{self.by}s"
        return f"blocks of {bp_text(self.block_bp)}"


def bp_text(length_bp: int) -> str:
    """Write a length.

    >>> bp_text(1_000_000), bp_text(300_000), bp_text(1_500)
    ('1 Mb', '300 kb', '1500 bp')
    """
    for unit, name in ((1_000_000, "Mb"), (1_000, "kb")):
        if length_bp % unit == 0:
            return f"{length_bp // unit} {name}"
    return f"{length_bp} bp"


def as_clusters(predictions: Predictions, by: str = AUTO, *, block_bp: int | None = None) -> Clusters:
    """Assign each item to a cluster, chosen from the data or as asked.

    Args:
        predictions: The items.
        by: ``auto``, ``item``, ``chromosome`` or ``block``.
        block_bp: Length of a block; by default 1 Mb.

    Raises:
        ConfigError: As for ``clusters_of``.
        RecordError: As for ``clusters_of``.
    """
    if by == AUTO and block_bp is None:
        return choose_clusters(predictions)
    by = "block" if by == AUTO else by
    block_bp = BLOCK_BP if block_bp is None else block_bp
    codes = clusters_of(predictions, by, block_bp=block_bp)
    return Clusters(of_item=codes, by=by, block_bp=block_bp if by == "block" else None, reason="as asked")


def choose_clusters(predictions: Predictions) -> Clusters:
    """Choose what counts as one observation.

    Items with many windows (genes) stay alone, and so do items without places and items that are far apart. Otherwise
    chromosomes are taken if there are 10 or more; or blocks of 1 Mb, longer if labels stay correlated farther, and
    shorter if the items fill fewer than 30 blocks.

    Args:
        predictions: The items, with the columns ``chromosome``, ``start`` and ``end`` if they have places.
    """
    items = np.arange(len(predictions), dtype=np.int64)
    if not {"chromosome", "start", "end"} <= predictions.columns.keys():
        return Clusters(of_item=items, by="item", block_bp=None, reason="the items have no places")
    if len(items) and int(np.diff(predictions.windows).max()) > 1:
        return Clusters(of_item=items, by="item", block_bp=None, reason="each item has several windows")
    chromosome = codes_of(_column(predictions, "chromosome", "chromosome"))
    share = np.bincount(chromosome) / max(len(items), 1)
    if len(items) and 1 / float((share**2).sum()) >= _ENOUGH_CHROMOSOMES:
        reason = f"{len(share)} chromosomes are enough"
        return Clusters(of_item=chromosome, by="chromosome", block_bp=None, reason=reason)
    middle_bp = _middle_bp(predictions, "block")
    if _near(chromosome, middle_bp) < _APART:
        return Clusters(of_item=items, by="item", block_bp=None, reason="the items are more than 1 Mb apart")
    needed_bp, reason = _correlated_bp(predictions, chromosome, middle_bp)
    return _blocks(chromosome, middle_bp, needed_bp, reason)


def _blocks(chromosome: Ints, middle_bp: Ints, needed_bp: int, reason: str) -> Clusters:
    """Blocks that are long enough if there are enough of them, otherwise the longest of which there are."""
    wanted_bp = max(needed_bp, BLOCK_BP)
    for block_bp in sorted((length for length in _BLOCKS_BP if length <= wanted_bp), reverse=True):
        codes = _block_codes(chromosome, middle_bp, block_bp)
        if int(codes.max()) + 1 >= _ENOUGH_BLOCKS or block_bp <= min(needed_bp, BLOCK_BP):
            break
    if block_bp < wanted_bp:
        reason += f"; the items fill fewer than {_ENOUGH_BLOCKS} longer blocks"
    return Clusters(of_item=codes, by="block", block_bp=block_bp, reason=reason)


def _correlated_bp(predictions: Predictions, chromosome: Ints, middle_bp: Ints) -> tuple[int, str]:
    """The shortest length of a block from which on labels are not correlated, and the finding in words."""
    target = predictions.target.reshape(len(predictions), -1).astype(np.float64)
    target[target < 0] = np.nan
    if np.isnan(target).all(axis=0).any():  # of a label without a value there is no mean
        target = target[:, ~np.isnan(target).all(axis=0)]
    if not target.shape[1]:
        return _BLOCKS_BP[0], "no label is known"
    centered = target - np.nanmean(target, axis=0)
    order = np.lexsort((middle_bp, chromosome))
    place = middle_bp[order] + chromosome[order] * (int(middle_bp.max()) + 2 * max(_BLOCKS_BP))
    variance = float(np.nanmean(centered**2))
    found = [_correlation(centered[order], place, bp) / variance if variance > 0 else 0.0 for bp in _BLOCKS_BP]
    long = [bp for bp, one in zip(_BLOCKS_BP, found, strict=True) if one >= _CORRELATED]
    at = _BLOCKS_BP[min(_BLOCKS_BP.index(long[-1]) + 1, len(_BLOCKS_BP) - 1)] if long else _BLOCKS_BP[0]
    return at, f"labels at {bp_text(at)} and farther have a correlation below {_CORRELATED}"


def _correlation(centered: NDArray[np.float64], place: Ints, distance_bp: int) -> float:
    """Mean product of the labels of pairs about so far apart; 0 if there are too few pairs to tell."""
    other = place.searchsorted(place + distance_bp)
    inside = np.flatnonzero(other < len(place))
    inside = inside[place[other[inside]] - place[inside] < 2 * distance_bp]
    products = centered[inside] * centered[other[inside]]
    known = products[~np.isnan(products)]
    if len(inside) < 2 * _ENOUGH_BLOCKS or not len(known):
        return 0.0
    return float(known.mean())


def _near(chromosome: Ints, middle_bp: Ints) -> float:
    """Fraction of the items that have a neighbor within BLOCK_BP."""
    if len(middle_bp) < 2:
        return 0.0
    order = np.lexsort((middle_bp, chromosome))
    same = np.diff(chromosome[order]) == 0
    close = same & (np.diff(middle_bp[order]) < BLOCK_BP)
    return float((np.append(close, False) | np.append(False, close)).mean())


def clusters_of(predictions: Predictions, by: str, *, block_bp: int = BLOCK_BP) -> Ints:
    """Assign each item to a cluster.

    Args:
        predictions: The items, with the columns ``chromosome``, ``start`` and ``end`` unless ``by`` is ``item``.
        by: ``item``, ``chromosome``, or ``block``: the block of the chromosome that holds the middle of the item.
        block_bp: Length of a block.

    Returns:
        Numbers from 0 without a gap, int64, shape (items,).

    Raises:
        ConfigError: ``by`` is unknown, or the length of a block is below 1.
        RecordError: The predictions lack a column.
    """
    if by not in CLUSTERS:
        raise ConfigError(f"unknown clusters {by!r}; {did_you_mean(by, list(CLUSTERS))}")
    if by == "item":
        return np.arange(len(predictions), dtype=np.int64)
    chromosome = codes_of(_column(predictions, "chromosome", by))
    if by == "chromosome":
        return chromosome
    if block_bp < 1:
        raise ConfigError(f"blocks have {block_bp} bp; expected 1 or more, such as {BLOCK_BP}")
    return _block_codes(chromosome, _middle_bp(predictions, by), block_bp)


def _middle_bp(predictions: Predictions, by: str) -> Ints:
    middle: Ints = (_column(predictions, "start", by).astype(np.int64) + _column(predictions, "end", by)) // 2
    return middle


def _block_codes(chromosome: Ints, middle_bp: Ints, block_bp: int) -> Ints:
    block = middle_bp // block_bp
    return codes_of(chromosome * (int(block.max(initial=0)) + 1) + block)


def codes_of(values: NDArray[Any]) -> Ints:
    """Number the distinct values from 0, in their order; equal values get the same number."""
    codes: Ints = np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return codes


def _column(predictions: Predictions, name: str, by: str) -> NDArray[Any]:
    column = predictions.columns.get(name)
    if column is None:
        found = ", ".join(sorted(predictions.columns)) or "nothing"
        raise RecordError(
            f"clusters by {by} need the column {name!r}, but the predictions have {found}; "
            "choose clusters by item, or repeat the run"
        )
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return array.astype(str) if array.dtype == object else array
