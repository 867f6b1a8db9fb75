"""The data of a pretraining: the windows to train on, the windows to validate on, and their identity.

inputs = open_inputs(config)
inputs.train.batch(step, config.batch_windows)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bend_hf.data.genome import Genome
from bend_hf.errors import ConfigError
from bend_hf.training.pretraining.config import PretrainConfig
from bend_hf.training.pretraining.regions import Regions
from bend_hf.training.pretraining.splits import HoldOut, TrainingSplit, split
from bend_hf.training.pretraining.windows import WindowSampler
from bend_hf.types import Bytes, Json

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from bend_hf.training.pretraining.run_folder import RunFolder

_LISTED: Final = 50


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The data of a pretraining.

    Attributes:
        genome: The genome.
        split: The regions to train on and to hold out.
        train: Draws the windows of each step.
        held_out_BL: The windows of every validation, as codes 0 to 4, shape (windows, nucleotides).
        identity: Checksums of genome and regions.
        facts: Counts for the summary.
    """

    genome: Genome
    split: TrainingSplit
    train: WindowSampler
    held_out_BL: Bytes
    identity: dict[str, Json]
    facts: dict[str, Json]


@dataclass(frozen=True, kw_only=True)
class PretrainRun:
    """One life of a pretraining.

    Attributes:
        config: Resolved.
        inputs: The data.
        network: The network to train.
        accelerator: Device, precision and processes.
        folder: The folder of the run.
        began: Start of this life, by ``time.perf_counter``.
    """

    config: PretrainConfig
    inputs: Inputs
    network: PreTrainedModel
    accelerator: Accelerator
    folder: RunFolder
    began: float


def open_inputs(config: PretrainConfig) -> Inputs:
    """Read and check everything that a pretraining reads from disk.

    Raises:
        BendError: The genome or a region is invalid, or there is no window to train or to validate on.
    """
    if config.genome is None:
        raise ConfigError("--genome is missing; give a FASTA file")
    genome = Genome(config.genome)
    regions = split(
        genome,
        HoldOut(
            regions=config.held_out,
            fraction=config.held_out_fraction,
            block_bp=config.block_bp,
            seed=config.seed,
        ),
        bed=config.bed,
        exclude=config.exclude,
        margin_bp=config.margin_bp,
    )
    train = WindowSampler(
        genome,
        regions.train,
        window_bp=config.window_bp,
        max_n_fraction=config.max_n_fraction,
        reverse_complement=config.reverse_complement,
        seed=config.seed,
    )
    held_out = WindowSampler(
        genome,
        regions.held_out,
        window_bp=config.window_bp,
        max_n_fraction=config.max_n_fraction,
        seed=config.seed,
    ).validation(config.validation_windows)
    if not len(held_out.windows):
        raise ConfigError(
            f"the held-out regions ({regions.held_out.total_bp:,} bp in {len(regions.held_out)}) hold no "
            f"window of {config.window_bp} bp with few enough N; hold out more, or use shorter windows"
        )
    return Inputs(
        genome=genome,
        split=regions,
        train=train,
        held_out_BL=held_out.windows.codes_BL,
        identity={
            "genome_sha256": genome.sha256,
            "train_sha256": _sha256(regions.train),
            "held_out_sha256": _sha256(regions.held_out),
        },
        facts={
            "train_bp": regions.train.total_bp,
            "train_windows": train.n_windows,
            "train_windows_left_out_for_n": train.n_left_out,
            "held_out_bp": regions.held_out.total_bp,
            "held_out_windows": held_out.n_tiles,
            "held_out_windows_left_out_for_n": held_out.n_left_out,
            "validation_windows": len(held_out.windows),
            "held_out_places": list(regions.held_out.places()[:_LISTED]),
        },
    )


def _sha256(regions: Regions) -> str:
    return hashlib.sha256("\n".join(regions.places()).encode()).hexdigest()
