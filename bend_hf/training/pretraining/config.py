"""The configuration of a training from nothing: one frozen dataclass; flags map one to one to its fields.

>>> PretrainConfig(model="convnet", genome=Path("genome.fa"), out=Path("out")).steps
10000
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from bend_hf.config import Schedule, add_flags, flag, given_values
from bend_hf.errors import ConfigError
from bend_hf.training.pretraining.families import FAMILIES, Family, Objective

Precision = Literal["no", "bf16"]

_USUAL_WARMUP_STEPS: Final = 500


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """What is trained, on what, and how. What is None is taken from the model's family.

    Raises:
        ConfigError: A number is out of its range, or the model is unknown.
    """

    model: str | None = flag(None, "family of the model, such as convnet, awdlstm, hyena or bert")
    genome: Path | None = flag(None, "FASTA, plain or bgzip, that the windows are read from", by_content=True)
    out: Path | None = flag(None, "folder of the trained model; a run that was killed goes on there", "nothing")
    set: tuple[str, ...] = flag((), "sizes of the model, as hidden_size=256 n_layers=8")
    objective: Objective | None = flag(None, "what is learned: masked or next (causal) letters; default: the family's")
    bed: Path | None = flag(None, "train and validate inside the rows of this bed only", by_content=True)
    exclude: tuple[str, ...] = flag((), "beds or places (chr20:1000-2000) that no window may touch", by_content=True)
    held_out: tuple[str, ...] = flag(
        (), "beds or places to validate on, which no training window touches", by_content=True
    )
    held_out_fraction: float = flag(0.02, "share of the genome held out in whole blocks where --held-out names none")
    block_bp: int = flag(1_000_000, "nucleotides of such a block")
    margin_bp: int = flag(0, "nucleotides around what is held out or excluded that are not trained on either")
    window_bp: int = flag(512, "nucleotides of a window")
    batch_windows: int = flag(64, "windows of a step, over all processes and accumulated parts")
    accumulation_steps: int = flag(1, "parts that a process computes its share of a step in")
    steps: int = flag(10_000, "steps of the optimizer")
    stop_after: int | None = flag(None, "stop there, as a kill would; the same command without it goes on", "nothing")
    learning_rate: float | None = flag(None, "of AdamW, at its highest; default: the family's")
    schedule: Schedule = flag("cosine", "of the learning rate after the warm-up")
    warmup_steps: int | None = flag(None, "steps of rising learning rate; default: a tenth, at most 500")
    min_learning_rate_share: float = flag(0.1, "share of the learning rate that it falls to")
    weight_decay: float = flag(0.01, "of AdamW, on matrices alone: not on norms, biases and embeddings")
    betas: tuple[float, ...] = flag((0.9, 0.98), "the two of AdamW")
    clip: float = flag(1.0, "norm that gradients are cut to; 0 leaves them")
    mask_rate: float = flag(0.15, "share of the letters that a masked model is asked for")
    repeat_weight: float = flag(1.0, "weight of soft-masked (lower-case) letters in the loss; 1 treats all alike")
    reverse_complement: bool = flag(False, "read half of the windows from the other strand")
    max_n_fraction: float = flag(0.05, "windows with a larger share of N are left out, and counted")
    seed: int = flag(0, "of the first weights, the windows and the masks")
    mixed_precision: Precision = flag("no", "bf16 computes in bfloat16 and keeps float32 weights")
    validate_every: int = flag(1000, "steps between two validations; the last step always has one")
    validation_windows: int = flag(512, "windows that a validation reads at most")
    save_every: int = flag(500, "steps between two checkpoints, which a killed run resumes from", "speed")
    keep: int = flag(0, "checkpoints kept as models of their own (step-500, ...), the newest ones", "nothing")
    no_tables: bool = flag(False, "do not count the context tables that the perplexity is compared with", "nothing")
    threads: int | None = flag(None, "threads of the arithmetic on a CPU; default: all cores", "speed")

    def __post_init__(self) -> None:
        for name in ("model", "genome", "out"):
            if getattr(self, name) is None:
                raise ConfigError(f"--{name} is missing; give one, as in --model convnet --genome genome.fa --out DIR")
        family = self.family
        if self.objective not in (None, family.objective):
            raise ConfigError(f"--objective {self.objective} is not what {family.key} learns; it is {family.objective}")
        if self.mixed_precision == "bf16" and not family.in_bfloat16:
            raise ConfigError(f"--mixed-precision bf16: {family.key} computes in float32 alone; leave the flag out")
        family.resolve(self.set, window_bp=self.window_bp)
        self._check_numbers()

    @property
    def family(self) -> Family:
        """What the model is."""
        assert self.model is not None
        return FAMILIES.get(self.model)

    def resolved(self) -> PretrainConfig:
        """The same with every number filled in."""
        usual = min(_USUAL_WARMUP_STEPS, self.steps // 10)
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
            raise ConfigError("--mask-rate is 0, which asks the model for nothing; give a share such as 0.15")
        if self.warmup_steps is not None and self.warmup_steps > self.steps:
            raise ConfigError(f"--warmup-steps is {self.warmup_steps}, more than --steps {self.steps}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"--betas is {list(self.betas)}; expected two numbers from 0 to below 1, as 0.9 0.98")


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


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def add_pretrain_flags(parser: argparse.ArgumentParser) -> None:
    """The flags: one for each field, and the file that may hold them."""
    parser.add_argument("--config", type=Path, help="a TOML file with any of these, named as the flags; flags win")
    add_flags(parser, PretrainConfig)


def config_from_flags(parsed: argparse.Namespace) -> PretrainConfig:
    """The configuration that parsed flags make, and the file that ``--config`` names.

    Raises:
        ConfigError: The fields are out of range, or the file holds something else.
    """
    return PretrainConfig(**given_values(PretrainConfig, parsed))


def parse_pretrain(argv: Sequence[str] | None) -> PretrainConfig:
    """Reads the flags of ``bend_hf.training.pretraining.run``.

    Raises:
        ConfigError: They are out of range.
    """
    parser = argparse.ArgumentParser(
        prog="bend_hf.pretrain",
        description="Train a DNA language model from nothing.",
        allow_abbrev=False,
    )
    add_pretrain_flags(parser)
    return config_from_flags(parser.parse_args(argv))


def as_flags(config: PretrainConfig) -> list[str]:
    """The words that give this configuration again, those at their default left out.

    >>> as_flags(PretrainConfig(model="bert", genome=Path("g.fa"), out=Path("o"), seed=3, reverse_complement=True))
    ['--model', 'bert', '--genome', 'g.fa', '--out', 'o', '--reverse-complement', '--seed', '3']
    """
    words: list[str] = []
    for item in fields(config):
        value: Any = getattr(config, item.name)
        if value == item.default:
            continue
        words.append(f"--{_dashed(item.name)}")
        if not isinstance(value, bool):
            words += [str(one) for one in value] if isinstance(value, tuple) else [str(value)]
    return words
