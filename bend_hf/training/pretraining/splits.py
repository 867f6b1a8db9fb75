"""What of a genome a language model is trained on, and which whole blocks are held out to tell how well it learned.

>>> from pathlib import Path; from tempfile import mkdtemp
>>> fasta = Path(mkdtemp()) / "tiny.fa"
>>> _ = fasta.write_text(">chr1\\n" + "ACGT" * 10 + "\\n")
>>> parts = split(Genome(fasta), held_out=["chr1:8-16"], exclude=["chr1:30-32"], margin_bp=1)
>>> parts.train.places(), parts.held_out.places()
(['chr1:0-7', 'chr1:17-29', 'chr1:33-40'], ['chr1:8-16'])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bend_hf.data.genome import Genome
from bend_hf.errors import ConfigError
from bend_hf.training.pretraining.nucleotides import Stream, unknown_letters, words
from bend_hf.training.pretraining.regions import Regions
from bend_hf.types import Ints

BLOCK_BP: Final = 1_000_000
HELD_OUT_FRACTION: Final = 0.05
_LARGEST_FRACTION: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class TrainingSplit:
    """Two sets of regions that share no nucleotide.

    Attributes:
        train: Where training windows come from.
        held_out: Where validation windows come from.
    """

    train: Regions
    held_out: Regions


def split(
    genome: Genome,
    *,
    bed: str | Path | None = None,
    exclude: Sequence[str | Path] = (),
    held_out: Sequence[str | Path] = (),
    held_out_fraction: float = HELD_OUT_FRACTION,
    block_bp: int = BLOCK_BP,
    margin_bp: int = 0,
    seed: int = 0,
) -> TrainingSplit:
    """Part a genome, or the rows of a bed on it, into training and held-out regions.

    Args:
        genome: The genome.
        bed: A bed file whose rows alone are used; None for the whole genome.
        exclude: Bed files, and places such as ``chr20:50000000-52000000`` or ``chr20`` (0-based, half-open), that
            are neither trained nor validated on, for example what a benchmark scores on.
        held_out: The held-out places, named in the same way; none for a seeded choice of blocks.
        held_out_fraction: Share of the known letters (A, C, G, T) to hold out where nothing is named.
        block_bp: Blocks are whole squares of this grid, counted from the start of each contig. One of which less
            than half is known letters that could be used is never chosen.
        margin_bp: How many nucleotides on each side of what is held out or excluded are not trained on either.
        seed: Of the choice.

    Raises:
        ConfigError: The share is out of range or cannot be had with such blocks, or nothing is left to train on or
            to hold out.
        InputError: A bed or place that cannot be read or does not lie on the genome.
    """
    if margin_bp < 0:
        raise ConfigError(f"margin_bp is {margin_bp}; it must be 0 or more nucleotides")
    excluded = Regions.of_any(exclude, genome)
    usable = Regions.of_genome(genome) if bed is None else Regions.of_bed(bed, genome)
    held = (
        Regions.of_any(held_out, genome)
        if held_out
        else _choose_blocks(genome, usable.minus(excluded), held_out_fraction, block_bp, seed)
    )
    parts = TrainingSplit(
        train=usable.minus(excluded, margin_bp).minus(held, margin_bp), held_out=held.within(usable).minus(excluded)
    )
    for name, regions in (("to hold out", parts.held_out), ("to train on", parts.train)):
        if not len(regions):
            raise ConfigError(
                f"nothing is left {name}: of {usable.total_bp:,} bp {excluded.within(usable).total_bp:,} are excluded "
                f"and {held.within(usable).total_bp:,} held out, with a margin of {margin_bp} bp around each; exclude "
                "or hold out less, or name places inside the regions that are used"
            )
    return parts


def _choose_blocks(genome: Genome, usable: Regions, fraction: float, block_bp: int, seed: int) -> Regions:
    """Blocks of a grid in a seeded order, as many as hold the wanted share of the known letters."""
    if not 0 < fraction <= _LARGEST_FRACTION:
        raise ConfigError(
            f"held_out_fraction is {fraction}; expected a share above 0 and at most {_LARGEST_FRACTION}: without "
            "held-out letters nothing tells how well a model has learned"
        )
    if seed < 0:
        raise ConfigError(f"seed is {seed}; expected 0 or more")
    if block_bp < 1:
        raise ConfigError(f"block_bp is {block_bp}; expected 1 or more nucleotides")
    known = usable.minus(unknown_letters(genome, usable))
    wanted_bp = fraction * known.total_bp
    blocks = _grid(genome, block_bp)
    n_known = _known_in(known, blocks)
    candidates = np.flatnonzero((2 * n_known >= blocks.length_bp) & (n_known > 0))
    order = candidates[np.argsort(words(Stream.BLOCKS, seed=seed, n_rows=len(candidates))[:, 0], kind="stable")]
    n_blocks = int(np.searchsorted(np.cumsum(n_known[order]), wanted_bp)) + 1
    chosen = order[:n_blocks]
    held_bp = int(n_known[chosen].sum())
    if not wanted_bp <= held_bp <= 2 * wanted_bp or not held_bp:
        raise ConfigError(
            f"held_out_fraction {fraction} of {known.total_bp:,} known letters is {wanted_bp:,.0f}, but whole blocks "
            f"of {block_bp:,} bp give {held_bp:,}; choose a smaller block_bp, or name what is to be held out"
        )
    return Regions.of_intervals(genome, blocks.contig[chosen], blocks.start_bp[chosen], blocks.end_bp[chosen])


@dataclass(frozen=True, kw_only=True)
class _Blocks:
    """The squares of the grid, every array of shape (blocks,)."""

    contig: Ints
    start_bp: Ints
    end_bp: Ints

    @property
    def length_bp(self) -> Ints:
        return self.end_bp - self.start_bp


def _grid(genome: Genome, block_bp: int) -> _Blocks:
    lengths_bp = np.array(list(genome.contigs.values()), np.int64)
    n_blocks = -(-lengths_bp // block_bp)
    contig = np.repeat(np.arange(len(lengths_bp)), n_blocks)
    start_bp = (np.arange(len(contig)) - np.repeat(np.cumsum(n_blocks) - n_blocks, n_blocks)) * block_bp
    return _Blocks(contig=contig, start_bp=start_bp, end_bp=np.minimum(start_bp + block_bp, lengths_bp[contig]))


def _known_in(known: Regions, blocks: _Blocks) -> Ints:
    """How many nucleotides of some regions lie in each block, shape (blocks,)."""
    return known.count_before(blocks.contig, blocks.end_bp) - known.count_before(blocks.contig, blocks.start_bp)
