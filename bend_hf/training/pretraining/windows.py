r"""Draw training windows from the memory-mapped genome, as a function of seed and step.

>>> from pathlib import Path; from tempfile import mkdtemp
>>> from bend_hf.training.pretraining.regions import Regions
>>> fasta = Path(mkdtemp()) / "tiny.fa"
>>> _ = fasta.write_text(">chr1\nACGTacgtNNNNACGT\n")
>>> genome = Genome(fasta)
>>> sampler = WindowSampler(genome, Regions.of_genome(genome), window_bp=4, seed=1)
>>> sampler.n_windows, sampler.n_left_out
(6, 7)
>>> sampler.batch(3, 8, low=2, high=4).codes_BL.shape
(2, 4)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bend_hf.data.genome import Genome
from bend_hf.errors import ConfigError
from bend_hf.training.pretraining.nucleotides import CODE_OF, COMPLEMENT_CODE_OF, Stream, random_words, unknown_runs
from bend_hf.training.pretraining.regions import Regions
from bend_hf.types import Bools, Bytes, Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class Starts:
    """R runs of positions that windows may start at, in the order of the genome.

    Attributes:
        contig: Number of each run's contig, shape (R,).
        first_bp: The first start of each run, shape (R,).
        before: Number of starts before each run, and of all starts, shape (R + 1,).
        n_left_out: Number of other starts of windows inside the regions, which have too many unknown nucleotides.
    """

    contig: Ints
    first_bp: Ints
    before: Ints
    n_left_out: int

    @property
    def n_starts(self) -> int:
        """Number of starts."""
        return int(self.before[-1])

    def place(self, number: Ints) -> tuple[Ints, Ints]:
        """Return contig and position of starts by their numbers, shape (starts,) each."""
        run = np.searchsorted(self.before, number, side="right") - 1
        return self.contig[run], self.first_bp[run] + number - self.before[run]

    def holds(self, contig: Ints, start_bp: Ints) -> Bools:
        """Return whether positions are among these starts.

        Args:
            contig: Contig number of each position, shape (positions,).
            start_bp: Position on the contig, shape (positions,).

        Returns:
            One flag per position, shape (positions,).
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
    r"""Find the starts of windows that lie inside one interval and have few unknown nucleotides.

    The number of unknown nucleotides in a window is a function of its start that is linear between a few borders,
    where a run of unknown nucleotides begins or ends at an edge of the window. Each stretch between two borders
    therefore has one run of admissible starts, and no sequence is read.

    >>> from pathlib import Path; from tempfile import mkdtemp
    >>> fasta = Path(mkdtemp()) / "tiny.fa"
    >>> _ = fasta.write_text(">chr1\nACGTACGTNNNNACGT\n")
    >>> regions = Regions.of_genome(Genome(fasta))
    >>> starts = admissible_starts(
    ...     regions, Regions.of_places(["chr1:8-12"], Genome(fasta)), window_bp=4, max_unknown=1)
    >>> starts.place(np.arange(starts.n_starts))[1].tolist(), starts.n_left_out
    ([0, 1, 2, 3, 4, 5, 11, 12], 5)

    Args:
        regions: Regions that windows must lie in.
        unknown: Runs of unknown nucleotides in these regions.
        window_bp: Nucleotides of a window.
        max_unknown: Unknown nucleotides that a window may have.
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
    return Starts(contig=contig, first_bp=from_bp - shift[contig], before=before, n_left_out=n_all - int(before[-1]))


MAX_N_FRACTION: Final = 0.1
_LOWER_CASE_BIT: Final = 0x20  # ASCII


@dataclass(frozen=True, kw_only=True)
class Windows:
    """B windows of L nucleotides.

    Attributes:
        codes_BL: 0 to 3 for A, C, G and T, 4 for unknown nucleotides, shape (batch, nucleotides).
        repeats_BL: Whether the FASTA has lower case, usually for repeats, shape (batch, nucleotides).
        contig_B: Contig number of each window in the order of the file, shape (batch,).
        starts_B: First nucleotide of each window on its contig, 0-based, shape (batch,).
        flipped_B: Whether the window is read as the reverse complement, shape (batch,).
    """

    codes_BL: Bytes
    repeats_BL: Bools
    contig_B: Ints
    starts_B: Ints
    flipped_B: Bools

    def __len__(self) -> int:
        return len(self.starts_B)


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Adjacent windows over some regions.

    Attributes:
        windows: The windows, in the order of the genome.
        n_tiles: Number of all adjacent windows, including those that are not in ``windows``.
        n_left_out: Number of those with too many unknown nucleotides.
    """

    windows: Windows
    n_tiles: int
    n_left_out: int


class WindowSampler:
    """Windows that lie inside one interval of some regions.

    Args:
        genome: The genome.
        regions: Regions that windows must lie in.
        window_bp: Nucleotides of a window.
        max_n_fraction: Windows with a larger fraction of unknown nucleotides are left out.
        reverse_complement: Whether each window is read from the other strand with probability one half.
        seed: 0 or more.

    Attributes:
        n_windows: Number of windows that can be drawn.
        n_left_out: Number of windows inside the regions that are left out for unknown nucleotides.

    Raises:
        ConfigError: A value is out of range, or no window can be drawn.
    """

    def __init__(
        self,
        genome: Genome,
        regions: Regions,
        *,
        window_bp: int,
        max_n_fraction: float = MAX_N_FRACTION,
        reverse_complement: bool = False,
        seed: int = 0,
    ) -> None:
        if window_bp < 1:
            raise ConfigError(f"window_bp is {window_bp}; expected 1 or more nucleotides")
        if not 0 <= max_n_fraction <= 1:
            raise ConfigError(f"max_n_fraction is {max_n_fraction}; expected a fraction between 0 and 1")
        if seed < 0:
            raise ConfigError(f"seed is {seed}; expected 0 or more")
        self.genome = genome
        self.regions = regions
        self.window_bp = window_bp
        self.reverse_complement = reverse_complement
        self.seed = seed
        self._max_unknown = int(max_n_fraction * window_bp + 1e-9)  # 0.29 * 100 is 28.999999999999996
        self._starts: Starts = admissible_starts(
            regions, unknown_runs(genome, regions), window_bp=window_bp, max_unknown=self._max_unknown
        )
        self.n_windows = self._starts.n_starts
        self.n_left_out = self._starts.n_left_out
        if not self.n_windows:
            longest = int(regions.length_bp.max(initial=0))
            raise ConfigError(
                f"no window of {window_bp} bp can be drawn: the longest of {len(regions)} regions has {longest} bp, "
                f"and {self.n_left_out} windows have more than {self._max_unknown} unknown nucleotides; "
                "use shorter windows, larger regions or a larger max_n_fraction"
            )

    def batch(self, step: int, size: int, *, low: int = 0, high: int | None = None) -> Windows:
        """Draw the windows of a training step, or some of them, uniformly and with replacement.

        Args:
            step: Number of the step, from 0.
            size: Windows of the whole step, over all processes.
            low: First row to return.
            high: End of the rows to return; None for ``size``.
        """
        high = size if high is None else high
        if not 0 <= low <= high <= size:
            raise ValueError(f"rows {low} to {high} of a batch of {size}")
        drawn = random_words(Stream.WINDOWS, seed=self.seed, step=step, first_row=low, n_rows=high - low, n_words=2)
        # The remainder of 64 bits favors no start by more than one part in 2^64 / n_windows.
        contig_B, starts_B = self._starts.place((drawn[:, 0] % np.uint64(self.n_windows)).astype(np.int64))
        flipped_B = (drawn[:, 1] >> np.uint64(63)).astype(np.bool_) & self.reverse_complement
        return self._read(contig_B, starts_B, flipped_B)

    def validation(self, max_windows: int | None = None) -> Tiles:
        """Cut the regions into adjacent windows, on the plus strand.

        The rest of an interval that is shorter than a window is left out.

        Args:
            max_windows: Largest number of windows, evenly spaced if there are more; None for all.
        """
        n_tiles = self.regions.length_bp // self.window_bp
        owner = np.repeat(np.arange(len(n_tiles)), n_tiles)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(n_tiles) - n_tiles, n_tiles)
        contig = self.regions.contig[owner]
        start_bp = self.regions.start_bp[owner] + place * self.window_bp
        kept = np.flatnonzero(self._starts.holds(contig, start_bp))
        if max_windows is not None and len(kept) > max_windows:
            taken = kept[np.arange(max_windows) * len(kept) // max_windows]
        else:
            taken = kept
        windows = self._read(contig[taken], start_bp[taken], np.zeros(len(taken), np.bool_))
        return Tiles(windows=windows, n_tiles=len(owner), n_left_out=len(owner) - len(kept))

    def _read(self, contig_B: Ints, starts_B: Ints, flipped_B: Bools) -> Windows:
        bases_BL = self.genome.windows(contig_B, starts_B, self.window_bp)
        codes_BL, repeats_BL = CODE_OF[bases_BL], (bases_BL & _LOWER_CASE_BIT).astype(np.bool_)
        codes_BL[flipped_B] = COMPLEMENT_CODE_OF[codes_BL[flipped_B][:, ::-1]]
        repeats_BL[flipped_B] = repeats_BL[flipped_B][:, ::-1]
        return Windows(
            codes_BL=codes_BL, repeats_BL=repeats_BL, contig_B=contig_B, starts_B=starts_B, flipped_B=flipped_B
        )
