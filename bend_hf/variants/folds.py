"""Splits variants into folds that share no sequence: by chromosome, or by blocks of position on a single one.

>>> fold_by_place(["chr1", "chr2", "chr1"], np.array([5, 5, 9]), n_folds=5, apart_bp=100).fold.tolist()
[0, 1, 0]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa

from bend_hf.errors import ConfigError
from bend_hf.shapes import Ints

FoldsBy: TypeAlias = Literal["chromosome", "blocks of position"]


@dataclass(frozen=True, kw_only=True)
class PlaceFolds:
    """The fold of each variant, counted from 0, shape (n,), and what they were made of."""

    fold: Ints
    by: FoldsBy
    n_folds: int


def fold_by_place(chromosome: Sequence[str] | pa.Array, start_bp: Ints, *, n_folds: int, apart_bp: int) -> PlaceFolds:
    """The folds of some variants.

    Whole chromosomes, the largest first, each to the fold that has least so far; all variants of one chromosome in
    blocks of neighbouring positions, which are only cut where the gap is wide enough.

    Args:
        chromosome: Of each variant, length n.
        start_bp: Position of each, shape (n,).
        n_folds: Folds wanted; there are fewer where there are fewer chromosomes or gaps.
        apart_bp: How far apart two variants must be for a cut between them: the length of a sequence that is shown.

    Raises:
        ConfigError: Less than two folds can be made.
    """
    names = pa.array(chromosome, pa.string()) if not isinstance(chromosome, pa.Array) else chromosome
    encoded = names.cast(pa.string()).dictionary_encode()
    code = encoded.indices.to_numpy().astype(np.int64)
    if len(encoded.dictionary) > 1:
        return _by_chromosome(code, n_folds)
    return _by_blocks(start_bp, n_folds, apart_bp)


def _by_chromosome(code: Ints, n_folds: int) -> PlaceFolds:
    counts = np.bincount(code)
    n = min(n_folds, len(counts))
    load = np.zeros(n, np.int64)
    fold_of = np.empty(len(counts), np.int64)
    for chromosome in np.argsort(-counts, kind="stable").tolist():
        fold_of[chromosome] = load.argmin()
        load[fold_of[chromosome]] += counts[chromosome]
    return PlaceFolds(fold=fold_of[code], by="chromosome", n_folds=n)


def _by_blocks(start_bp: Ints, n_folds: int, apart_bp: int) -> PlaceFolds:
    order = np.argsort(start_bp, kind="stable")
    ranked = start_bp[order]
    group = np.concatenate([[0], np.cumsum(np.diff(ranked) >= apart_bp)])
    size = np.bincount(group)
    middle = np.cumsum(size) - size / 2
    wanted = np.minimum((middle * n_folds / len(ranked)).astype(np.int64), n_folds - 1)
    if len(size) < 2:
        raise ConfigError(
            f"the {len(start_bp)} variants stand on one chromosome without a gap of {apart_bp} bp to cut at; a probe "
            "needs two folds that share no sequence, so give more variants or leave the probe out"
        )
    if wanted[0] == wanted[-1]:  # one group has nearly all of them: cut once, as near to the middle as can be
        wanted = np.arange(len(size)) > np.abs(np.cumsum(size)[:-1] - len(ranked) / 2).argmin()
    block = np.unique(wanted, return_inverse=True)[1]
    fold = np.empty(len(start_bp), np.int64)
    fold[order] = block[group]
    return PlaceFolds(fold=fold, by="blocks of position", n_folds=int(block[-1]) + 1)
