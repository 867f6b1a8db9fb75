"""The genome as a training sees it: which windows it draws, which it validates on, and what to call these data.

inputs = open_inputs(config)
inputs.train.batch(step, config.batch_windows)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from bend_hf.data.genome import Genome
from bend_hf.errors import ConfigError
from bend_hf.training.pretraining.config import PretrainConfig
from bend_hf.training.pretraining.regions import Regions
from bend_hf.training.pretraining.splits import TrainingSplit, split
from bend_hf.training.pretraining.windows import WindowSampler
from bend_hf.types import Bytes, Json

_LISTED: Final = 50


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The data of a training.

    Attributes:
        genome: Opened once.
        parts: What is trained on and what is held out.
        train: Draws the windows of each step.
        held_out_BL: The windows that every validation reads, as codes 0 to 4, shape (windows, nucleotides).
        identity: Checksums of genome and regions: what makes two trainings' data the same.
        facts: How much of what there is; for the summary.
    """

    genome: Genome
    parts: TrainingSplit
    train: WindowSampler
    held_out_BL: Bytes
    identity: dict[str, Json]
    facts: dict[str, Json]


def open_inputs(config: PretrainConfig) -> Inputs:
    """Reads and checks everything that a training reads from disk.

    Raises:
        BendError: The genome or a region is bad, or there is no window to train or to validate on.
    """
    assert config.genome is not None
    genome = Genome(config.genome)
    parts = split(
        genome,
        bed=config.bed,
        exclude=config.exclude,
        held_out=config.held_out,
        held_out_fraction=config.held_out_fraction,
        block_bp=config.block_bp,
        margin_bp=config.margin_bp,
        seed=config.seed,
    )
    train = WindowSampler(
        genome,
        parts.train,
        window_bp=config.window_bp,
        max_n_fraction=config.max_n_fraction,
        reverse_complement=config.reverse_complement,
        seed=config.seed,
    )
    held_out = WindowSampler(
        genome,
        parts.held_out,
        window_bp=config.window_bp,
        max_n_fraction=config.max_n_fraction,
        seed=config.seed,
    ).validation(config.validation_windows)
    if not len(held_out.windows):
        raise ConfigError(
            f"the held-out regions ({parts.held_out.total_bp:,} bp in {len(parts.held_out)}) hold no whole window of "
            f"{config.window_bp} bp with few enough N; hold out more, or take shorter windows"
        )
    return Inputs(
        genome=genome,
        parts=parts,
        train=train,
        held_out_BL=held_out.windows.codes_BL,
        identity={
            "genome_sha256": genome.sha256,
            "train_sha256": _sha256(parts.train),
            "held_out_sha256": _sha256(parts.held_out),
        },
        facts={
            "train_bp": parts.train.total_bp,
            "train_windows": train.n_windows,
            "train_windows_left_out_for_n": train.n_rich,
            "held_out_bp": parts.held_out.total_bp,
            "held_out_windows": held_out.n_tiles,
            "held_out_windows_left_out_for_n": held_out.n_rich,
            "validation_windows": len(held_out.windows),
            "held_out_places": list(parts.held_out.places()[:_LISTED]),
        },
    )


def _sha256(regions: Regions) -> str:
    return hashlib.sha256("\n".join(regions.places()).encode()).hexdigest()
