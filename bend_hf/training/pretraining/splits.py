r"""Split a genome into regions to train a language model on, and held-out regions to validate it on.

>>> from pathlib import Path; from tempfile import mkdtemp
>>> fasta = Path(mkdtemp()) / "tiny.fa"
>>> _ = fasta.write_text(">chr1\n" + "ACGT" * 10 + "\n")
>>> parts = split(Genome(fasta), HoldOut(regions=["chr1:8-16"]), exclude=["chr1:30-32"], margin_bp=1)
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
from bend_hf.training.pretraining.nucleotides import Stream, random_words, unknown_runs
from bend_hf.training.pretraining.regions import Regions
from bend_hf.types import Ints

BLOCK_BP: Final = 1_000_000
HELD_OUT_FRACTION: Final = 0.05
_LARGEST_FRACTION: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class TrainingSplit:
    """Two sets of regions that share no nucleotide.

    Attributes:
        train: Regions of training windows.
        held_out: Regions of validation windows.
    """

    train: Regions
    held_out: Regions


@dataclass(frozen=True, kw_only=True)
class HoldOut:
    """The regions to hold out.

    Attributes:
        regions: BED files, and regions such as ``chr20:50000000-52000000`` or ``chr20`` (0-based, half-open); empty
            for a random choice of blocks.
        fraction: Fraction of the known nucleotides (A, C, G, T) to hold out in random blocks.
        block_bp: Size of the blocks, counted from the start of each contig. A block that is less than half usable,
            known nucleotides is not chosen.
        seed: Seed of the choice.
    """

    regions: Sequence[str | Path] = ()
    fraction: float = HELD_OUT_FRACTION
    block_bp: int = BLOCK_BP
    seed: int = 0


def split(
    genome: Genome,
    hold_out: HoldOut = HoldOut(),
    *,
    bed: str | Path | None = None,
    exclude: Sequence[str | Path] = (),
    margin_bp: int = 0,
) -> TrainingSplit:
    """Split a genome, or the rows of a BED file on it, into training and held-out regions.

    Args:
        genome: The genome.
        hold_out: The regions to hold out.
        bed: BED file to restrict both to; None for the whole genome.
        exclude: BED files, and regions such as ``chr20``, to neither train nor validate on, for example those that a
            benchmark scores.
        margin_bp: Nucleotides on each side of held-out and excluded regions that are not trained on either.

    Raises:
        ConfigError: The fraction is out of range or cannot be reached with these blocks, or nothing is left to train
            on or to hold out.
        InputError: A BED file or region cannot be read, or does not lie on the genome.
    """
    if margin_bp < 0:
        raise ConfigError(f"margin_bp is {margin_bp}; it must be 0 or more nucleotides")
    excluded = Regions.of_any(exclude, genome)
    usable = Regions.of_genome(genome) if bed is None else Regions.of_bed(bed, genome)
    held = (
        Regions.of_any(hold_out.regions, genome)
        if hold_out.regions
        else _choose_blocks(genome, usable.minus(excluded), hold_out)
    )
    parts = TrainingSplit(
        train=usable.minus(excluded, margin_bp).minus(held, margin_bp), held_out=held.within(usable).minus(excluded)
    )
    for name, regions in (("to hold out", parts.held_out), ("to train on", parts.train)):
        if not len(regions):
            raise ConfigError(
                f"nothing is left {name}: of {usable.total_bp:,} bp {excluded.within(usable).total_bp:,} are excluded "
                f"and {held.within(usable).total_bp:,} held out, with a margin of {margin_bp} bp around each; exclude "
                "or hold out less, or name regions inside those that are used"
            )
    return parts


def _choose_blocks(genome: Genome, usable: Regions, hold_out: HoldOut) -> Regions:
    """Take blocks in a random order until they hold the fraction of the known nucleotides."""
    fraction, block_bp, seed = hold_out.fraction, hold_out.block_bp, hold_out.seed
    if not 0 < fraction <= _LARGEST_FRACTION:
        raise ConfigError(
            f"held_out_fraction is {fraction}; expected a fraction above 0 and at most {_LARGEST_FRACTION}, as a model "
            "is validated on the held-out regions"
        )
    if seed < 0:
        raise ConfigError(f"seed is {seed}; expected 0 or more")
    if block_bp < 1:
        raise ConfigError(f"block_bp is {block_bp}; expected 1 or more nucleotides")
    known = usable.minus(unknown_runs(genome, usable))
    wanted_bp = fraction * known.total_bp
    blocks = _grid(genome, block_bp)
    n_known = _known_in(known, blocks)
    candidates = np.flatnonzero((2 * n_known >= blocks.length_bp) & (n_known > 0))
    order = candidates[np.argsort(random_words(Stream.BLOCKS, seed=seed, n_rows=len(candidates))[:, 0], kind="stable")]
    n_blocks = int(np.searchsorted(np.cumsum(n_known[order]), wanted_bp)) + 1
    chosen = order[:n_blocks]
    held_bp = int(n_known[chosen].sum())
    if not wanted_bp <= held_bp <= 2 * wanted_bp or not held_bp:
        raise ConfigError(
            f"held_out_fraction {fraction} of {known.total_bp:,} known nucleotides is {wanted_bp:,.0f}, but whole "
            f"blocks of {block_bp:,} bp give {held_bp:,}; choose a smaller block_bp, or name the regions to hold out"
        )
    return Regions.of_intervals(genome, blocks.contig[chosen], blocks.start_bp[chosen], blocks.end_bp[chosen])


@dataclass(frozen=True, kw_only=True)
class _Blocks:
    """All blocks of a genome, every array of shape (blocks,)."""

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
    """Count the nucleotides of some regions in each block, shape (blocks,)."""
    return known.count_before(blocks.contig, blocks.end_bp) - known.count_before(blocks.contig, blocks.start_bp)
