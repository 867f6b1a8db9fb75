"""The configuration of a run: one frozen dataclass, and the command-line flags that map one to one to it.

For ``bend_hf.runs.run``, the ``bend-hf`` commands and the result record, which holds the whole of it.

>>> RunConfig(task=("gene_finding",)).model
'bend-mini'

A run's configuration from a TOML file: the same names as the flags, checked before anything starts.

    # run.toml, for: accelerate launch -m bend_hf.train --config run.toml
    task = ["gene_finding"]
    model = "dnabert6"
    learning-rate = 0.001

>>> check_value("epochs", 3, Kind(base=int))
3
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_type_hints

from bend_hf.errors import ConfigError, did_you_mean
from bend_hf.types import Protocol

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a field holds.

    Attributes:
        base: Type of a value.
        choices: Words that a text is limited to; empty for no limit.
        several: Whether it holds a list of values.
    """

    base: type
    choices: tuple[str, ...] = ()
    several: bool = False


def read_toml(path: Path, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The values of a file, by field.

    Args:
        path: The file; its keys are written with ``-`` as the flags are, or with ``_``.
        kinds: The kind of each field there is.

    Raises:
        ConfigError: The file cannot be read, a key is no field, or a value is not of its kind.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {path} cannot be read as TOML ({error}); mend the file or the path") from error
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in kinds:
            known = [known.replace("_", "-") for known in kinds]
            raise ConfigError(f"{path}: unknown key {key!r}; {did_you_mean(key.replace('_', '-'), known)}")
        if name in values:
            raise ConfigError(f"{path}: {key!r} is given twice, with - and with _; keep one")
        try:
            values[name] = check_value(key, value, kinds[name])
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    return values


def check_value(key: str, value: Any, kind: Kind) -> Any:
    """The value as its field takes it.

    Raises:
        ConfigError: It is of another kind.
    """
    if kind.several:
        each = value if isinstance(value, list) else [value]
        return tuple(_check_one(key, item, kind) for item in each)
    return _check_one(key, value, kind)


def _check_one(key: str, value: Any, kind: Kind) -> Any:
    if kind.base is Path and isinstance(value, str):
        return Path(value)
    if kind.base is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind.base) or (isinstance(value, bool) and kind.base is not bool):
        raise ConfigError(f"{key} = {value!r} is {type(value).__name__}; expected {kind.base.__name__}")
    if kind.choices and value not in kind.choices:
        raise ConfigError(f"unknown {key} {value!r}; {did_you_mean(str(value), list(kind.choices))}")
    return value


OutOfBounds = Literal["error", "pad", "drop"]
RefMismatch = Literal["error", "drop"]
Precision = Literal["no", "fp16", "bf16"]
HeadName = Literal["cnn", "linear", "resnet", "basset"]
Schedule = Literal["constant", "cosine", "linear"]
Tune = Literal["head", "full", "lora"]
CacheDtype = Literal["float16", "float32", "bfloat16"]
ModelDtype = Literal["float32", "bfloat16", "float16"]


def flag(default: Any, text: str, *, nargs: str | None = None) -> Any:
    return field(default=default, metadata={"help": text, "nargs": nargs})


_PROTOCOLS: Final = "bend-2024 reproduces BEND, bend-hf-1 does what a careful referee asks"


DEFAULT_MODEL: Final = "bend-mini"  # travels with the package, so that every command runs without a network


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Which model, and how its embeddings are taken.

    Raises:
        ConfigError: A number is out of its range.
    """

    protocol: Protocol = flag("bend-2024", _PROTOCOLS)
    model: str = flag(DEFAULT_MODEL, "model key, a Hub name, a folder, or a .py file; 'bend-hf models' lists the keys")
    checkpoint: str | None = flag(None, "weights of the model: a folder or a Hub name, instead of the published ones")
    revision: str | None = flag(None, "commit of the model on the Hub, instead of the declared one")
    layer: int = flag(-1, "hidden layer that gives the embeddings; -1 is the last, 0 the input embeddings")
    model_dtype: ModelDtype = flag("float32", "of the model's weights and arithmetic")
    random_init: bool = flag(False, "same architecture and tokenizer, but random weights from the seed")
    reverse_complement_average: bool = flag(False, "average each nucleotide's embedding over both strands")
    overlap_tokens: int = flag(0, "tokens that the pieces of a long sequence share; 0 cuts without overlap")
    seed: int = flag(0, "seed of random weights and of shuffling")

    def __post_init__(self) -> None:
        if self.overlap_tokens < 0:
            raise ConfigError(f"--overlap-tokens is {self.overlap_tokens}; it must not be negative")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"--seed is {self.seed}; it must lie between 0 and 4294967295")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which task, and where its data are. These flags mean the same in every command.

    Raises:
        ConfigError: The fields contradict each other.
    """

    task: tuple[str, ...] = flag((), "task or group of tasks; 'bend-hf tasks' lists them", nargs="*")
    data: str | None = flag(
        None,
        "sample, hub, or a data folder; default: $BEND_DATA_DIR or ./data if the task is there, else sample",
    )
    bed: Path | None = flag(None, "a bed used instead of the folder's; without --task, a task of your own")
    labels: Path | None = flag(None, "an hdf5 of labels used instead of the one beside the bed")
    genome: Path | None = flag(None, "a FASTA used instead of the folder's genome")
    out_of_bounds: OutOfBounds = flag("error", "what to do with an interval past its contig's end")
    ref_mismatch: RefMismatch = flag("error", "what to do with a variant whose REF is not the genome's base")
    protocol: Protocol = flag("bend-2024", _PROTOCOLS)

    def __post_init__(self) -> None:
        if not self.task and self.bed is None:
            raise ConfigError("name a task with --task ('bend-hf tasks' lists them) or give a --bed of your own")
        if len(self.task) > 1 and (self.bed or self.labels):
            raise ConfigError(f"--bed and --labels belong to one task, but --task names {len(self.task)}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ModelFlags, DataConfig):
    """A model on a task. These flags mean the same in every command.

    Raises:
        ConfigError: The fields contradict each other, or a number is out of its range.
    """

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        ModelFlags.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class RunConfig(ModelConfig):
    """A run of one model on one task or several. What is None is taken from the task's declaration.

    Raises:
        ConfigError: A number is out of its range.
    """

    out: Path = flag(Path("results"), "folder of the result records")
    seeds: tuple[int, ...] = flag((), "several seeds instead of one: a record each, and a summary", nargs="*")
    head: HeadName | None = flag(None, "head on the embeddings; default: the task's")
    tune: Tune = flag("head", "what is trained: the head on frozen embeddings, all weights, or low-rank adapters")
    epochs: int | None = flag(None, "passes over the training split")
    batch_size: int | None = flag(None, "sequences a step, over all processes")
    learning_rate: float | None = flag(None, "of AdamW")
    weight_decay: float | None = flag(None, "of AdamW")
    fold: tuple[int, ...] = flag((), "folds to run, counted from 1; default: all", nargs="*")
    mixed_precision: Precision = flag("no", "precision of the training")
    schedule: Schedule = flag("constant", "of the learning rate, down to 0 unless constant")
    warmup_steps: int = flag(0, "steps over which the learning rate rises from 0")
    gradient_accumulation: int = flag(1, "batches a step of the optimizer")
    patience: int | None = flag(None, "stop after so many epochs without a better validation metric")
    checkpoint_every: int = flag(200, "steps between two checkpoints, which a killed run resumes from")
    cache: Path | None = flag(None, "folder of the embeddings; default: embeddings below $BEND_HF_CACHE")
    cache_dtype: CacheDtype = flag("float16", "how embeddings are stored")
    no_cache: bool = flag(False, "make embeddings when they are needed, every time; for what is bigger than the disk")
    controls: bool = flag(False, "run the controls of each task too, and show them beside the model")
    tracker: tuple[str, ...] = flag((), "tensorboard, trackio or wandb, where it is installed", nargs="*")
    processes: int | None = flag(None, "processes that the run must have; with fewer or more it does not start")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "epochs",
            "batch_size",
            "learning_rate",
            "gradient_accumulation",
            "patience",
            "checkpoint_every",
            "processes",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be above 0")
        if self.warmup_steps < 0:
            raise ConfigError(f"--warmup-steps is {self.warmup_steps}; it must not be negative")
        if self.weight_decay is not None and self.weight_decay < 0:
            raise ConfigError(f"--weight-decay is {self.weight_decay}; it must not be negative")
        for seed in self.seeds:
            if not 0 <= seed < 2**32:
                raise ConfigError(f"--seeds holds {seed}; a seed must lie between 0 and 4294967295")
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"--seeds {list(self.seeds)} names a seed twice; each gives one record")
        if any(fold < 1 for fold in self.fold):
            raise ConfigError(f"--fold is {list(self.fold)}; folds are counted from 1")


def kind_of(hint: Any) -> tuple[Any, tuple[str, ...]]:
    """What a field's values are, and the words it is limited to: ``tuple[int, ...]`` and ``int | None`` are int."""
    parts = [part for part in get_args(hint) if part is not type(None)]
    base = hint if getattr(hint, "__origin__", None) is Literal or not parts else parts[0]
    if getattr(base, "__origin__", None) is Literal:
        return str, get_args(base)
    return base, ()


def kinds_of(config: type[DataclassInstance], several: Sequence[str] = ()) -> dict[str, Kind]:
    """The kind of each field; those in ``several`` hold a list, whatever the field says."""
    hints = get_type_hints(config)
    kinds = {}
    for item in fields(config):
        base, choices = kind_of(hints[item.name])
        many = item.name in several or item.metadata["nargs"] is not None
        kinds[item.name] = Kind(base=base, choices=choices, several=many)
    return kinds


def add_flags(parser: argparse.ArgumentParser, config: type[DataclassInstance], several: Sequence[str] = ()) -> None:
    """Gives a parser one flag for each field of a configuration class."""
    kinds = kinds_of(config, several)
    for item in fields(config):
        kind, flag = kinds[item.name], f"--{item.name.replace('_', '-')}"
        default = "" if item.default in (None, (), False, MISSING) else f" (default: {item.default})"
        text = item.metadata["help"].replace("%", "%%") + default
        if kind.base is bool:
            parser.add_argument(flag, dest=item.name, action="store_true", default=argparse.SUPPRESS, help=text)
            continue
        parser.add_argument(
            flag,
            dest=item.name,
            type=kind.base,
            nargs="*" if kind.several else None,
            action="extend" if kind.several else "store",
            choices=kind.choices or None,
            default=argparse.SUPPRESS,
            metavar=None if kind.choices else item.name.upper(),
            help=text,
        )


def add_run_flags(parser: argparse.ArgumentParser, several: Sequence[str] = ()) -> None:
    """The flags of a run: one for each field, and the file that may hold them."""
    parser.add_argument("--config", type=Path, help="a TOML file with any of these, named as the flags; flags win")
    add_flags(parser, RunConfig, several)


def config_from_flags(config: type[RunConfig], parsed: argparse.Namespace) -> RunConfig:
    """The configuration that parsed flags make, and the file that ``--config`` names.

    Raises:
        ConfigError: The fields contradict each other or are out of range, or the file holds something else.
    """
    return config(**given_values(config, parsed))


def given_values(
    config: type[DataclassInstance], parsed: argparse.Namespace, several: Sequence[str] = ()
) -> dict[str, Any]:
    """What flags and file say, flags before file; nothing where they are silent.

    Raises:
        ConfigError: The file holds something that is no field, or not of its kind.
    """
    kinds = kinds_of(config, several)
    file: Path | None = getattr(parsed, "config", None)
    from_file = {} if file is None else read_toml(file, kinds)
    given = {name: value for name, value in vars(parsed).items() if name in kinds}
    return {**from_file, **{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}}


def parse_run(argv: Sequence[str] | None, *, prog: str, description: str) -> RunConfig:
    """Reads the flags of a run.

    Raises:
        ConfigError: The flags contradict each other or are out of range.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    add_run_flags(parser)
    return config_from_flags(RunConfig, parser.parse_args(argv))
