"""Choose the windows of the bundled sample for the chromatin, histone, CpG and enhancer tasks.

>>> draw(np.eye(4, dtype=bool), 2, np.random.default_rng(0)).shape
(2,)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sample_region import Bools, Region, block_of
from sample_rules import CENTRE_BP, CPG_RULES, WINDOW_BP, Rule, apply_rules
from sample_sources import Ints
from sample_tracks import Tracks, sums

ENHANCER_WINDOW_BP: Final = 100_096  # BEND: enhancer_annotation, 782 bins of 128 bp
BIN_BP: Final = 128
_ENHANCER_WINDOWS_PER_BLOCK: Final = 4
_HALF_BIN_BP: Final = BIN_BP // 2
_CPG_STEP_BP: Final = 128  # at most one CpG per such stretch, so that islands do not dominate the task
_OWN_PROMOTER_BP: Final = 1_000
ENHANCER_NAMES: Final = ("other", "distal_cpg_island")
ENHANCER_TEXT: Final = (
    "at least half of the bin's 128 bp in a CpG island after Takai and Jones and more than "
    f"{_OWN_PROMOTER_BP:,} bp from the start of the gene in the middle"
)


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Rows of one region.

    Attributes:
        starts: Where they start, ascending, shape (n,).
        strands: ``+`` or ``-``, shape (n,).
        labels: Truth values, shape (n, labels).
    """

    starts: Ints
    strands: NDArray[np.str_]
    labels: Bools


def tile_windows(
    region: Region,
    borders: Ints,
    rules: tuple[Rule, ...],
    *,
    offset_bp: int,
    stranded: bool,
    rng: np.random.Generator,
) -> Windows:
    """Tile the region with adjacent windows within blocks, on random strands or all on plus."""
    starts = np.arange(offset_bp, region.n_bp - WINDOW_BP + 1, WINDOW_BP)
    starts = starts[block_of(starts, starts + WINDOW_BP, borders) >= 0]
    strands = rng.choice(["+", "-"], len(starts)) if stranded else np.full(len(starts), "+")
    return Windows(starts=starts, strands=strands, labels=apply_rules(Tracks(region), rules, starts, strands))


def cpg_windows(region: Region, borders: Ints, rng: np.random.Generator) -> Windows:
    """Return windows around CpG dinucleotides, one per 128 bp, on random strands."""
    tracks = Tracks(region)
    sites = np.flatnonzero(tracks.cpg)
    sites = sites[rng.permutation(len(sites))]
    _, chosen = np.unique(sites // _CPG_STEP_BP, return_index=True)
    starts = np.sort(sites[chosen]) - CENTRE_BP
    starts = starts[(starts >= 0) & (starts + WINDOW_BP <= region.n_bp)]
    starts = starts[block_of(starts, starts + WINDOW_BP, borders) >= 0]
    strands = rng.choice(["+", "-"], len(starts))
    return Windows(starts=starts, strands=strands, labels=apply_rules(tracks, CPG_RULES, starts, strands))


def draw(labels: Bools, n_rows: int, rng: np.random.Generator) -> Ints:
    """Draw rows at random, those with rare labels more often.

    Weighted sampling without replacement (Efraimidis and Spirakis 2006, doi 10.1016/j.ipl.2005.11.003).

    Args:
        labels: Truth values, shape (n, labels).
        n_rows: Number of rows to draw.
        rng: Random generator.

    Returns:
        Ascending row numbers, shape (n_rows,).
    """
    share = labels.mean(axis=0).clip(1 / len(labels))
    weight = 1 + (labels / share).sum(axis=1)
    return np.sort(np.argsort(np.log(rng.random(len(labels))) / weight, kind="stable")[-n_rows:])


@dataclass(frozen=True, kw_only=True)
class EnhancerWindows:
    """Windows around starts of genes: starts (n,), blocks (n,), labels int8 (n, 782)."""

    starts: Ints
    blocks: Ints
    labels: NDArray[np.int8]


def enhancer_windows(region: Region, borders: Ints) -> EnhancerWindows:
    """Choose four genes of each block, spread over it, whose windows are within the block."""
    starts = np.unique([t.tss_bp for t in region.representatives]) - ENHANCER_WINDOW_BP // 2
    starts = starts[(starts >= 0) & (starts + ENHANCER_WINDOW_BP <= region.n_bp)]
    blocks = block_of(starts, starts + ENHANCER_WINDOW_BP, borders)
    chosen = []
    for block in range(region.span.n_blocks):
        within = np.flatnonzero(blocks == block)
        chosen += within[np.linspace(0, len(within) - 1, _ENHANCER_WINDOWS_PER_BLOCK).round().astype(int)].tolist()
    starts, blocks = starts[chosen], blocks[chosen]
    bins = starts[:, None] + np.arange(0, ENHANCER_WINDOW_BP, BIN_BP)
    in_island = sums(Tracks(region).strict_island, bins, BIN_BP) >= _HALF_BIN_BP
    from_middle_bp = np.abs(bins[0] - starts[0] + _HALF_BIN_BP - ENHANCER_WINDOW_BP // 2)
    labels = (in_island & (from_middle_bp > _OWN_PROMOTER_BP)).astype(np.int8)
    return EnhancerWindows(starts=starts, blocks=blocks + region.span.first_block, labels=labels)
