"""Find rows whose sequence also occurs in a split that they are tested against: copies, near copies, shifted windows.

Two rows are compared if they share a 17-mer on either strand. Each shared 17-mer gives a diagonal: a way to lay one row
over the other without gaps. The diagonals with the most shared 17-mers are compared letter by letter, so identity and
coverage are counted, not estimated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.evaluation.audit.kmers import OTHER, Sequences, SharedKmers, sampling_of, shared_kmers
from bend_hf.evaluation.audit.rows import AuditRows
from bend_hf.types import Bools, Ints


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When two rows count as copies. Shares are of the length of the row that is looked up.

    Attributes:
        near_identity: Lowest identity of a near copy.
        near_coverage: Lowest share of the row that a near copy covers.
        near_kmers: Share of the row's 21-mers in one other row that makes it a near copy, even with gaps.
        shifted_identity: Lowest identity of a shifted window.
        shifted_coverage: Lowest share of the shorter row that a shifted window covers.
        shifted_bp: Lowest overlap of a shifted window.
        unknown: Rows with more than this share of letters other than A, C, G and T are not compared.
        max_rows: A k-mer that occurs more often than this is a repeat and does not suggest a pair.
    """

    near_identity: float = 0.8
    near_coverage: float = 0.8
    near_kmers: float = 0.5
    shifted_identity: float = 0.95
    shifted_coverage: float = 0.2
    shifted_bp: int = 64
    unknown: float = 0.5
    max_rows: int = 64


SEED_BP: Final = 17  # 4**17 is 300 times the length of BEND's longest task, so shared 17-mers are rarely by chance
NEAR_BP: Final = 21
SEEN_BP: Final = 31
_DIAGONALS: Final = 8  # compared letter by letter, per row and split
_MAX_SEEDS: Final = 1 << 19  # new seeds before they are counted
_LETTERS: Final = 1 << 18  # letters compared at once
_LEAST_SEEDS: Final = 0.002  # per nucleotide of a diagonal; a tenth of what 80 % identity leaves, 0.8**17


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagonals:
    """D ways to lay a row over another one, without gaps.

    Attributes:
        row: The row that is looked up, shape (D,).
        other: The row that it is found in, shape (D,).
        reverse: Whether the other row is read backwards, shape (D,).
        offset: On the same strand, position in ``row`` minus position in ``other``; else their sum, shape (D,).
        n_seeds: Number of shared 17-mers, shape (D,).
        overlap_bp: Number of nucleotides that lie over each other, shape (D,).
        n_equal: Number of these that are equal, shape (D,).
        n_kmers: Number of 21-mers without a difference, shape (D,).
    """

    row: Ints
    other: Ints
    reverse: Bools
    offset: Ints
    n_seeds: Ints
    overlap_bp: Ints
    n_equal: Ints
    n_kmers: Ints

    def __len__(self) -> int:
        return len(self.row)

    def take(self, chosen: Ints | Bools) -> Diagonals:
        """Return some of the diagonals."""
        return Diagonals(**{name: values[chosen] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class Copies:
    """What was found for each of R rows, against each of S splits.

    Attributes:
        exact: Whether the sequence, on either strand, is a row of the split, shape (R, S).
        near: Whether the split holds a near copy; True for copies, False for shifted windows, shape (R, S).
        shifted: Whether the split holds a window that overlaps this one in part, by its sequence, shape (R, S).
        nearest: The most similar row of any split that this row is tested against; -1 if no 17-mer is shared, (R,).
        equal_share: Share of this row's nucleotides that are equal in the nearest row, shape (R,).
        kmer_share: Share of this row's 21-mers that the nearest row holds, shape (R,).
        seen_share: Share of this row's 31-mers that occur in any split that it is tested against, shape (R,).
        compared: False for rows that are mostly N, shape (R,).
        sampling: Fraction of the k-mers that was used.
    """

    exact: Bools
    near: Bools
    shifted: Bools
    nearest: Ints
    equal_share: NDArray[np.float64]
    kmer_share: NDArray[np.float64]
    seen_share: NDArray[np.float64]
    compared: Bools
    sampling: float


def find_copies(rows: AuditRows, thresholds: Thresholds) -> Copies:
    """Compare the rows of each split with the splits that it is tested against."""
    counts, length = rows.sequences.counts(), rows.sequences.length_bp
    compared = counts[:, OTHER] <= thresholds.unknown * np.maximum(length, 1)
    sampling = sampling_of(int(length.sum()))
    exact = _exact(rows) & compared[:, None]
    near, shifted = exact.copy(), np.zeros_like(exact)
    nearest, equal = np.full(len(rows), -1), np.zeros(len(rows))
    kmers = np.zeros(len(rows))
    found = _compared(rows, _diagonals(rows, thresholds, sampling))
    found = found.take(compared[found.row] & compared[found.other])
    if len(found):
        split = rows.split[found.other]
        in_pair = _kmers_of_pair(found)
        n_words = np.maximum(length[found.row] - NEAR_BP + 1, 1)
        coverage, identity = found.overlap_bp / length[found.row], found.n_equal / found.overlap_bp
        is_near = (identity >= thresholds.near_identity) & (coverage >= thresholds.near_coverage)
        is_near |= in_pair >= thresholds.near_kmers * n_words
        near[found.row[is_near], split[is_near]] = True
        shorter = np.minimum(length[found.row], length[found.other])
        is_shifted = (identity >= thresholds.shifted_identity) & (found.overlap_bp >= thresholds.shifted_bp)
        is_shifted &= found.overlap_bp >= thresholds.shifted_coverage * shorter
        is_shifted &= found.overlap_bp < length[found.row]
        shifted[found.row[is_shifted], split[is_shifted]] = True
        order = np.lexsort((found.other, -in_pair, -found.n_equal, found.row))
        best = order[np.concatenate([[True], found.row[order][1:] != found.row[order][:-1]])]
        nearest[found.row[best]] = found.other[best]
        equal[found.row[best]] = found.n_equal[best] / length[found.row[best]]
        kmers[found.row[best]] = np.minimum(in_pair[best] / n_words[best], 1)
    return Copies(
        exact=exact,
        near=near & ~(shifted & ~exact),
        shifted=shifted & ~exact,
        nearest=nearest,
        equal_share=equal,
        kmer_share=kmers,
        seen_share=_seen_share(rows, sampling),
        compared=compared,
        sampling=sampling,
    )


def _exact(rows: AuditRows) -> Bools:
    """Return whether each row's sequence, on either strand, occurs in each split that it is tested against, (R, S)."""
    _, content = np.unique(rows.canonical, return_inverse=True)
    holds = np.zeros((content.max(initial=-1) + 1, len(rows.split_names)), np.bool_)
    holds[content, rows.split] = True
    return holds[content] & rows.references[rows.split]


def _diagonals(rows: AuditRows, thresholds: Thresholds, sampling: float) -> Diagonals:
    """Collect the diagonals with the most shared 17-mers of each row and split."""
    seeds: list[NDArray[np.int64]] = []
    n_counted = n_new = 0
    for part in shared_kmers(rows.sequences, SEED_BP, sampling=sampling):
        for some in _seeds(rows, _informative(rows, part, thresholds.max_rows)):
            seeds.append(some)
            n_new += some.shape[1]
            if n_new > max(_MAX_SEEDS, n_counted):
                seeds = [_counted(rows, np.concatenate(seeds, axis=1))]
                n_counted, n_new = seeds[0].shape[1], 0
    nothing = np.zeros((5, 0), np.int64)
    row, other, reverse, offset, count = _counted(rows, np.concatenate([nothing, *seeds], axis=1))
    none = np.zeros(len(row), np.int64)
    return Diagonals(
        row=row,
        other=other,
        reverse=reverse > 0,
        offset=offset,
        n_seeds=count,
        overlap_bp=none,
        n_equal=none,
        n_kmers=none,
    )


def _informative(rows: AuditRows, part: SharedKmers, max_rows: int) -> SharedKmers:
    """Keep the k-mers that occur in two splits, and not too often."""
    if not len(part.code):
        return part
    group = part.group
    starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    size = np.diff(np.concatenate([starts, [len(group)]]))
    split = rows.split[rows.sequences.row_of(part.position)]
    useful = (np.minimum.reduceat(split, starts) != np.maximum.reduceat(split, starts)) & (size <= max_rows)
    keep = useful[group]
    return SharedKmers(code=part.code[keep], position=part.position[keep], forward=part.forward[keep])


def _seeds(rows: AuditRows, part: SharedKmers) -> Iterator[NDArray[np.int64]]:
    """Pair the equal k-mers of rows to be compared, some at once.

    Yields:
        Row, other row, strand, offset and a count of 1, shape (5, n).
    """
    group, row = part.group, rows.sequences.row_of(part.position)
    split, at = rows.split[row], part.position - rows.sequences.offsets[row]
    for step in range(1, len(group)):
        alike = np.flatnonzero(group[step:] == group[:-step])
        if not len(alike):
            break
        for first in np.split(alike, range(_MAX_SEEDS, len(alike), _MAX_SEEDS)):
            for query, other in ((first, first + step), (first + step, first)):
                wanted = rows.references[split[query], split[other]]
                a, b = query[wanted], other[wanted]
                reverse = part.forward[a] != part.forward[b]
                offset = np.where(reverse, at[a] + at[b] + SEED_BP - 1, at[a] - at[b])
                if len(a):
                    yield np.stack([row[a], row[b], reverse.astype(np.int64), offset, np.ones(len(a), np.int64)])


def _counted(rows: AuditRows, seeds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add up the seeds of each diagonal, and keep the best diagonals of each row and split."""
    if not seeds.shape[1]:
        return seeds
    row, other, reverse, offset, _ = seeds
    longest = 2 * int(rows.sequences.length_bp.max())
    n_ways = 2 * (2 * longest + 1)
    if len(rows) ** 2 * n_ways < 1 << 63:
        key = (row * len(rows) + other) * n_ways + (offset + longest) * 2 + reverse
        order = np.argsort(key, kind="stable")
        new = key[order][1:] != key[order][:-1]
        seeds = seeds[:, order]
    else:
        seeds = seeds[:, np.lexsort(seeds[:4][::-1])]
        new = (seeds[:4, 1:] != seeds[:4, :-1]).any(axis=0)
    start = np.flatnonzero(np.concatenate([[True], new]))
    count = np.add.reduceat(seeds[4], start)
    seeds = np.concatenate([seeds[:4, start], count[None]])
    split = rows.split[seeds[1]]
    order = np.lexsort((-seeds[4], split, seeds[0]))
    row, split = seeds[0, order], split[order]
    new = np.concatenate([[True], (row[1:] != row[:-1]) | (split[1:] != split[:-1])])
    first = np.flatnonzero(new)
    rank = np.arange(len(order)) - first[np.cumsum(new) - 1]
    return seeds[:, np.sort(order[rank < _DIAGONALS])]


def _compared(rows: AuditRows, found: Diagonals) -> Diagonals:
    """Compare the letters along each diagonal, except those with so few shared 17-mers that they cannot be copies."""
    length = rows.sequences.length_bp
    ours, theirs = length[found.row], length[found.other]
    # The overlap in coordinates of the row that is looked up.
    start = np.where(found.reverse, np.maximum(0, found.offset - theirs + 1), np.maximum(0, found.offset))
    end = np.where(found.reverse, np.minimum(ours, found.offset + 1), np.minimum(ours, theirs + found.offset))
    overlap = end - start
    enough = found.n_seeds >= _LEAST_SEEDS * overlap
    found, start, end, overlap = found.take(enough), start[enough], end[enough], overlap[enough]
    n_equal, n_kmers = np.zeros(len(found), np.int64), np.zeros(len(found), np.int64)
    total = np.cumsum(overlap)
    edges = np.searchsorted(total, np.arange(_LETTERS, int(total[-1]) if len(total) else 0, _LETTERS))
    for chosen in np.split(np.arange(len(found)), np.unique(edges)):
        if len(chosen):
            n_equal[chosen], n_kmers[chosen] = _compare(rows.sequences, found.take(chosen), start[chosen], end[chosen])
    return replace(found, overlap_bp=overlap, n_equal=n_equal, n_kmers=n_kmers)


def _compare(sequences: Sequences, found: Diagonals, start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Count the equal letters and the 21-mers without a difference of each diagonal."""
    n_bp = end - start
    first = np.concatenate([[0], np.cumsum(n_bp)[:-1]])
    step = np.arange(int(n_bp.sum())) - np.repeat(first, n_bp)
    ours = sequences.codes[np.repeat(sequences.offsets[found.row] + start, n_bp) + step]
    begin = np.where(found.reverse, found.offset - start, start - found.offset) + sequences.offsets[found.other]
    theirs = sequences.codes[np.repeat(begin, n_bp) + step * np.repeat(np.where(found.reverse, -1, 1), n_bp)]
    reverse = np.repeat(found.reverse, n_bp)
    known = (ours != OTHER) & (theirs != OTHER)
    equal = known & (ours == np.where(reverse, 3 - theirs, theirs))
    n_different = np.concatenate([[0], np.cumsum(~equal)])
    last = np.minimum(step + NEAR_BP, np.repeat(n_bp, n_bp)) - step
    at = np.arange(len(step))
    whole = (last == NEAR_BP) & (n_different[at + last] == n_different[at])
    return np.add.reduceat(equal, first, dtype=np.int64), np.add.reduceat(whole, first, dtype=np.int64)


def _kmers_of_pair(found: Diagonals) -> Ints:
    """Add up the shared 21-mers of all diagonals of a pair, for each diagonal."""
    order = np.lexsort((found.other, found.row))
    row, other = found.row[order], found.other[order]
    new = np.concatenate([[True], (row[1:] != row[:-1]) | (other[1:] != other[:-1])])
    total = np.add.reduceat(found.n_kmers[order], np.flatnonzero(new))
    of_pair = np.zeros(len(found), np.int64)
    of_pair[order] = total[np.cumsum(new) - 1]
    return of_pair


def _seen_share(rows: AuditRows, sampling: float) -> NDArray[np.float64]:
    """Return the share of each row's 31-mers that occur in a split that it is tested against."""
    n_kmers = _n_kmers(rows.sequences)
    n_seen = np.zeros(len(rows), np.int64)
    for part in shared_kmers(rows.sequences, SEEN_BP, sampling=sampling):
        if not len(part.code):
            continue
        group, row = part.group, rows.sequences.row_of(part.position)
        split = rows.split[row]
        holds = np.zeros((int(group[-1]) + 1, len(rows.split_names)), np.bool_)
        holds[group, split] = True
        seen = (holds[group] & rows.references[split]).any(axis=1)
        n_seen += np.bincount(row[seen], minlength=len(rows))
    share: NDArray[np.float64] = np.minimum(n_seen / np.maximum(n_kmers * sampling, 1), 1.0)
    return share


def _n_kmers(sequences: Sequences) -> Ints:
    """Count the 31-mers of each row that hold no other letter."""
    counts = np.zeros(len(sequences), np.int64)
    for start in range(0, len(sequences.codes), _LETTERS):
        chunk = np.asarray(sequences.codes[start : start + _LETTERS + SEEN_BP - 1])
        if len(chunk) < SEEN_BP:
            break
        n_other = np.concatenate([[0], np.cumsum(chunk == OTHER)])
        at = np.flatnonzero(n_other[SEEN_BP:] == n_other[:-SEEN_BP]) + start
        counts += np.bincount(sequences.row_of(at), minlength=len(sequences))
    return counts
