"""Which places of a genome a window may start at, kept as runs of places and not one by one.

For the sampler:

>>> from pathlib import Path; from tempfile import mkdtemp
>>> from bend_hf.data.genome import Genome
>>> fasta = Path(mkdtemp()) / "tiny.fa"
>>> _ = fasta.write_text(">chr1\\nACGTACGTNNNNACGT\\n")
>>> regions = Regions.of_genome(Genome(fasta))
>>> starts = admissible_starts(
...     regions, Regions.of_places(["chr1:8-12"], Genome(fasta)), window_bp=4, max_unknown=1)
>>> starts.place(np.arange(starts.n_starts))[1].tolist(), starts.n_rich
([0, 1, 2, 3, 4, 5, 11, 12], 5)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bend_hf.shapes import Bools, Ints
from bend_hf.training.pretraining.regions import Regions


@dataclass(frozen=True, kw_only=True, eq=False)
class Starts:
    """Runs of places that windows may start at; R runs in the order of the genome.

    Attributes:
        contig: Number of each run's contig, shape (R,).
        first_bp: The first start of each run, shape (R,).
        before: How many starts come before each run, and how many there are in all, shape (R + 1,).
        n_rich: How many other starts lie wholly inside the regions but have too many unknown letters.
    """

    contig: Ints
    first_bp: Ints
    before: Ints
    n_rich: int

    @property
    def n_starts(self) -> int:
        """How many starts there are."""
        return int(self.before[-1])

    def place(self, number: Ints) -> tuple[Ints, Ints]:
        """The contig and the place of starts, by their numbers, shape (starts,) each."""
        run = np.searchsorted(self.before, number, side="right") - 1
        return self.contig[run], self.first_bp[run] + number - self.before[run]

    def holds(self, contig: Ints, start_bp: Ints) -> Bools:
        """Whether places are among these starts.

        Args:
            contig: Number of each place's contig, shape (places,).
            start_bp: Where on the contig, shape (places,).

        Returns:
            A flag for each, shape (places,).
        """
        if not self.n_starts:
            return np.zeros(len(contig), np.bool_)
        line_bp = int(max(start_bp.max(initial=0), (self.first_bp + np.diff(self.before)).max())) + 1
        at = contig * line_bp + start_bp
        first = self.contig * line_bp + self.first_bp
        run = np.searchsorted(first, at, side="right") - 1
        found: Bools = (run >= 0) & (at < (first + np.diff(self.before))[run])
        return found


def admissible_starts(regions: Regions, unknown: Regions, *, window_bp: int, max_unknown: int) -> Starts:
    """The starts of windows that lie inside one interval and hold few unknown letters.

    The number of unknown letters in a window is a function of its start that is linear between a few borders: where
    a run of unknown letters begins or ends at one edge of the window. So each stretch between two borders has one
    run of admissible starts, and no letter is looked at.

    Args:
        regions: Where windows may lie.
        unknown: The runs of unknown letters in these regions.
        window_bp: Nucleotides in a window.
        max_unknown: How many unknown letters it may hold.
    """
    fits = regions.length_bp >= window_bp
    first, owner = regions.start_bp[fits], regions.contig[fits]
    last = regions.end_bp[fits] - window_bp  # the last start of each
    n_all = int((last - first + 1).sum())
    shift = np.cumsum(regions.lengths_bp + 1) - (regions.lengths_bp + 1)
    low, high = first + shift[owner], last + 1 + shift[owner]

    edges = np.concatenate([unknown.start_bp + shift[unknown.contig], unknown.end_bp + shift[unknown.contig]])
    borders = np.unique(np.concatenate([low, high, edges, edges - window_bp]))
    inside = np.searchsorted(low, borders, side="right") > np.searchsorted(high, borders, side="right")
    left, right = borders[:-1][inside[:-1]], borders[1:][inside[:-1]]

    def n_unknown(start: Ints) -> Ints:
        contig = np.searchsorted(shift, start, side="right") - 1
        place = start - shift[contig]
        count: Ints = unknown.count_before(contig, place + window_bp) - unknown.count_before(contig, place)
        return count

    at_left, at_last = n_unknown(left), n_unknown(right - 1)
    slope = np.sign(at_last - at_left)
    spare = max_unknown - at_left
    from_bp = np.where(slope < 0, left + np.maximum(-spare, 0), np.where((slope == 0) & (spare < 0), right, left))
    to_bp = np.where(slope > 0, np.minimum(left + spare + 1, right), right)
    some = to_bp > from_bp
    from_bp, to_bp = from_bp[some], to_bp[some]
    contig = np.searchsorted(shift, from_bp, side="right") - 1
    before = np.concatenate([[0], np.cumsum(to_bp - from_bp)])
    return Starts(contig=contig, first_bp=from_bp - shift[contig], before=before, n_rich=n_all - int(before[-1]))
