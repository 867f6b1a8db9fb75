"""The configuration of a pretraining: a frozen dataclass whose fields are the command-line flags.

>>> PretrainConfig(model="convnet", genome=Path("genome.fa"), out=Path("out")).steps
10000
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal

from bend_hf.config import Condition, Schedule, add_flags, check_conditions, check_finite, flag, given_values
from bend_hf.errors import ConfigError
from bend_hf.training.pretraining.families import FAMILIES, Family, Objective

Precision = Literal["no", "bf16"]

_LONGEST_WARMUP: Final = 500


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One pretraining. Fields that are None use the default of the model's family.

    Raises:
        ConfigError: A number is out of range, or the model is unknown.
    """

    model: str | None = flag(None, "family of the model, such as convnet, awdlstm, hyena or bert", group="model")
    genome: Path | None = flag(None, "FASTA file, plain or bgzip, to read windows from", by_content=True, group="data")
    out: Path | None = flag(None, "folder of the trained model; an interrupted run resumes there", "nothing")
    set: tuple[str, ...] = flag((), "sizes of the model, for example hidden_size=256 n_layers=8", group="model")
    objective: Objective | None = flag(
        None, "predict masked nucleotides or the next one (causal); default: the family's", group="model"
    )
    bed: Path | None = flag(
        None, "BED file whose rows to train and validate on; default: the whole genome", by_content=True, group="data"
    )
    exclude: tuple[str, ...] = flag(
        (), "BED files or regions (chr20:1000-2000) that no window overlaps", by_content=True, group="data"
    )
    held_out: tuple[str, ...] = flag(
        (), "BED files or regions to validate on, which no training window overlaps", by_content=True, group="data"
    )
    held_out_fraction: float = flag(
        0.02, "fraction of the genome to hold out in random blocks, without --held-out", group="data"
    )
    block_bp: int = flag(1_000_000, "size of these blocks in bp", group="data")
    margin_bp: int = flag(0, "bp around held-out and excluded regions that are not trained on either", group="data")
    window_bp: int = flag(512, "length of a window in bp", group="data")
    batch_windows: int = flag(64, "windows per step, over all processes and accumulated parts")
    accumulation_steps: int = flag(1, "parts that each process computes its windows of a step in")
    steps: int = flag(10_000, "optimizer steps")
    stop_after: int | None = flag(None, "stop at this step; the same command without the flag resumes", "nothing")
    learning_rate: float | None = flag(None, "highest learning rate of AdamW; default: the family's")
    schedule: Schedule = flag("cosine", "course of the learning rate after the warm-up")
    warmup_steps: int | None = flag(
        None, "steps over which the learning rate rises; default: a tenth of --steps, at most 500"
    )
    min_learning_rate_share: float = flag(0.1, "fraction of the learning rate that the schedule falls to")
    weight_decay: float = flag(0.01, "weight decay of AdamW on matrices; not on norms, biases and embeddings")
    betas: tuple[float, ...] = flag((0.9, 0.98), "betas of AdamW")
    clip: float = flag(1.0, "largest norm of the gradients; 0 for no limit")
    mask_rate: float = flag(0.15, "fraction of nucleotides that a masked model predicts")
    repeat_weight: float = flag(1.0, "weight of soft-masked (lower-case) nucleotides in the loss")
    reverse_complement: bool = flag(False, "read half of the windows from the other strand", group="data")
    max_n_fraction: float = flag(0.05, "leave out, and count, windows with a larger fraction of N", group="data")
    seed: int = flag(0, "seed of the first weights, the windows and the masks")
    mixed_precision: Precision = flag("no", "bf16 computes in bfloat16 and keeps float32 weights")
    validate_every: int = flag(1000, "steps between two validations; the last step always has one")
    validation_windows: int = flag(512, "largest number of windows per validation")
    save_every: int = flag(500, "steps between two checkpoints, from which an interrupted run resumes", "speed")
    keep: int = flag(0, "number of newest checkpoints to keep as models (step-500, ...)", "nothing")
    no_tables: bool = flag(False, "do not count the n-gram tables that the perplexity is compared with", "nothing")
    threads: int | None = flag(None, "threads for computation on the CPU; default: all cores", "speed")
    device: str | None = flag(
        None, "device to train on, such as cpu or cuda:1; default: chosen by the launcher", "speed", in_command=False
    )
    compile: bool = flag(
        False, "compile the model with torch.compile, which takes a minute or more; the last bits may differ"
    )

    def __post_init__(self) -> None:
        check_finite(self)
        for name in ("model", "genome", "out"):
            if getattr(self, name) is None:
                raise ConfigError(f"--{name} is missing; give it, as in --model convnet --genome genome.fa --out DIR")
        family = self.family
        if self.objective not in (None, family.objective):
            raise ConfigError(
                f"--objective is {self.objective}, but {family.key} is a {family.objective} model; leave the flag out"
            )
        if self.mixed_precision == "bf16" and not family.in_bfloat16:
            raise ConfigError(
                f"--mixed-precision is bf16, but {family.key} computes in float32 only; leave the flag out"
            )
        family.resolve(self.set, window_bp=self.window_bp)
        self._check_numbers()
        check_conditions(self, {item.name: item.default for item in fields(self)}, _CONDITIONS)

    @property
    def family(self) -> Family:
        """The family of the model."""
        return FAMILIES.get(self.model or "")

    def resolved(self) -> PretrainConfig:
        """Return the configuration with every number filled in."""
        usual = min(_LONGEST_WARMUP, self.steps // 10)
        return dataclasses.replace(
            self,
            objective=self.family.objective,
            learning_rate=self.family.learning_rate if self.learning_rate is None else self.learning_rate,
            warmup_steps=usual if self.warmup_steps is None else self.warmup_steps,
        )

    def _check_numbers(self) -> None:
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{_dashed(name)} is {value}; it must be {least} or more")
        for name, (low, high) in _BETWEEN.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"--{_dashed(name)} is {value}; it must lie between {low} and {high}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ConfigError(f"--learning-rate is {self.learning_rate}; it must be above 0")
        if self.mask_rate == 0:
            raise ConfigError("--mask-rate is 0, so that there is nothing to predict; give a fraction such as 0.15")
        if self.warmup_steps is not None and self.warmup_steps > self.steps:
            raise ConfigError(f"--warmup-steps is {self.warmup_steps}, more than --steps {self.steps}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(
                f"--betas is {list(self.betas)}; expected two numbers of at least 0 and below 1, such as 0.9 0.98"
            )


_AT_LEAST: Final[dict[str, float]] = {
    "window_bp": 2,
    "block_bp": 1,
    "margin_bp": 0,
    "batch_windows": 1,
    "accumulation_steps": 1,
    "steps": 1,
    "stop_after": 1,
    "warmup_steps": 0,
    "weight_decay": 0,
    "clip": 0,
    "repeat_weight": 0,
    "validate_every": 1,
    "validation_windows": 1,
    "save_every": 1,
    "keep": 0,
    "threads": 1,
}
_BETWEEN: Final[dict[str, tuple[float, float]]] = {
    "min_learning_rate_share": (0, 1),
    "mask_rate": (0, 1),
    "max_n_fraction": (0, 1),
    "seed": (0, 2**32 - 1),
}


_CONDITIONS: Final = (
    Condition(
        flags=("mask_rate",),
        met=lambda config: config.family.objective == "masked",
        reason="a causal model predicts every nucleotide",
    ),
    Condition(
        flags=("held_out_fraction", "block_bp"),
        met=lambda config: not config.held_out,
        reason="--held-out names the regions to validate on",
    ),
    Condition(
        flags=("min_learning_rate_share",),
        met=lambda config: config.schedule != "constant",
        reason="--schedule is constant",
    ),
)


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def add_pretrain_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag per field, and ``--config`` for a file with them."""
    parser.add_argument(
        "--config", type=Path, help="TOML file with any of these flags as keys; flags on the command line win"
    )
    add_flags(parser, PretrainConfig)


def config_from_flags(parsed: argparse.Namespace) -> PretrainConfig:
    """Build the configuration from parsed flags and the file of ``--config``.

    Raises:
        ConfigError: A value is out of range, or the file holds another key.
    """
    return PretrainConfig(**given_values(PretrainConfig, parsed))


def parse_pretrain(argv: Sequence[str] | None) -> PretrainConfig:
    """Parse the flags of ``python -m bend_hf.pretrain``.

    Raises:
        ConfigError: A value is out of range.
    """
    parser = argparse.ArgumentParser(
        prog="bend_hf.pretrain",
        description="Pretrain a DNA language model.",
        allow_abbrev=False,
    )
    add_pretrain_flags(parser)
    return config_from_flags(parser.parse_args(argv))


def as_flags(config: PretrainConfig) -> list[str]:
    """Return the flags that give this configuration, without those at their default.

    >>> as_flags(PretrainConfig(model="bert", genome=Path("g.fa"), out=Path("o"), seed=3, reverse_complement=True))
    ['--model', 'bert', '--genome', 'g.fa', '--out', 'o', '--reverse-complement', '--seed', '3']
    """
    arguments: list[str] = []
    for item in fields(config):
        value = getattr(config, item.name)
        if value == item.default:
            continue
        arguments.append(f"--{_dashed(item.name)}")
        if not isinstance(value, bool):
            arguments += [str(one) for one in value] if isinstance(value, tuple) else [str(value)]
    return arguments
