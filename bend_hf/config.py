"""The configuration of a run: one frozen dataclass, and the command-line flags that map one to one to it.

For ``bend_hf.train``, the ``bend-hf`` commands and the result record, which holds the whole of it.

>>> RunConfig(task=("gene_finding",)).model
'onehot'
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from bend_hf.errors import ConfigError
from bend_hf.shapes import PROTOCOLS, Protocol

OutOfBounds = Literal["error", "pad", "drop"]
RefMismatch = Literal["error", "drop"]
Precision = Literal["no", "fp16", "bf16"]


def _flag(default: Any, text: str, *, nargs: str | None = None) -> Any:
    return field(default=default, metadata={"help": text, "nargs": nargs})


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which task, and where its data are. These flags mean the same in every command.

    Raises:
        ConfigError: The fields contradict each other.
    """

    task: tuple[str, ...] = _flag((), "task or group of tasks; 'bend-hf tasks' lists them", nargs="*")
    data: str | None = _flag(
        None,
        "sample, hub, or a data folder; default: $BEND_DATA_DIR or ./data if the task is there, else sample",
    )
    bed: Path | None = _flag(None, "a bed used instead of the folder's; without --task, a task of your own")
    labels: Path | None = _flag(None, "an hdf5 of labels used instead of the one beside the bed")
    genome: Path | None = _flag(None, "a FASTA used instead of the folder's genome")
    out_of_bounds: OutOfBounds = _flag("error", "what to do with an interval past its contig's end")
    ref_mismatch: RefMismatch = _flag("error", "what to do with a variant whose REF is not the genome's base")
    protocol: Protocol = _flag("bend-2024", "bend-2024 reproduces BEND, bend-hf-1 does what a careful referee asks")

    def __post_init__(self) -> None:
        if not self.task and self.bed is None:
            raise ConfigError("name a task with --task ('bend-hf tasks' lists them) or give a --bed of your own")
        if len(self.task) > 1 and (self.bed or self.labels):
            raise ConfigError(f"--bed and --labels belong to one task, but --task names {len(self.task)}")


@dataclass(frozen=True, kw_only=True)
class RunConfig(DataConfig):
    """A run of one model on one task or several. What is None is taken from the task's declaration.

    Raises:
        ConfigError: A number is out of its range.
    """

    model: str = _flag("onehot", "model key, a Hub name, a folder, or a .py file; 'bend-hf models' lists the keys")
    checkpoint: str | None = _flag(None, "weights of the model: a folder or a Hub name, instead of the published ones")
    out: Path = _flag(Path("results"), "folder of the result records")
    seed: int = _flag(0, "seed of weights and shuffling")
    epochs: int | None = _flag(None, "passes over the training split")
    batch_size: int | None = _flag(None, "sequences a step, over all processes")
    learning_rate: float | None = _flag(None, "of AdamW")
    weight_decay: float | None = _flag(None, "of AdamW")
    fold: tuple[int, ...] = _flag((), "folds to run, counted from 1; default: all", nargs="*")
    mixed_precision: Precision = _flag("no", "precision of the head's training")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_size", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be above 0")
        if self.weight_decay is not None and self.weight_decay < 0:
            raise ConfigError(f"--weight-decay is {self.weight_decay}; it must not be negative")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"--seed is {self.seed}; it must lie between 0 and 4294967295")
        if any(fold < 1 for fold in self.fold):
            raise ConfigError(f"--fold is {list(self.fold)}; folds are counted from 1")


def add_flags(parser: argparse.ArgumentParser, config: type[DataConfig]) -> None:
    """Gives a parser one flag for each field of a configuration class."""
    hints = get_type_hints(config)
    for item in fields(config):
        kind, nargs = hints[item.name], item.metadata["nargs"]
        parts = [part for part in (get_args(kind) or (kind,)) if part is not type(None)]
        choices = list(PROTOCOLS) if kind == Protocol else None
        if choices is None and getattr(kind, "__origin__", None) is Literal:
            choices = list(get_args(kind))
        base: Any = str if choices else parts[0]
        default = "" if item.default in (None, (), MISSING) else f" (default: {item.default})"
        parser.add_argument(
            f"--{item.name.replace('_', '-')}",
            dest=item.name,
            type=base,
            nargs=nargs,
            choices=choices,
            default=argparse.SUPPRESS,
            metavar=None if choices else item.name.upper(),
            help=item.metadata["help"].replace("%", "%%") + default,
        )


def config_from_flags(config: type[RunConfig], parsed: argparse.Namespace) -> RunConfig:
    """The configuration that parsed flags make.

    Raises:
        ConfigError: The fields contradict each other or are out of range.
    """
    names = {item.name for item in fields(config)}
    given = {name: value for name, value in vars(parsed).items() if name in names}
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    return config(**values)


def parse_run(argv: Sequence[str] | None, *, prog: str, description: str) -> RunConfig:
    """Reads the flags of a run.

    Raises:
        ConfigError: The flags contradict each other or are out of range.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    add_flags(parser, RunConfig)
    return config_from_flags(RunConfig, parser.parse_args(argv))
