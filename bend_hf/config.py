"""The configuration of a run: a frozen dataclass whose fields are the command-line flags.

Each field is declared once, through ``flag``: its default, its help text, and what it affects. The command line, TOML
files (``--config``), the run key, the grouping of records, the commands on model cards and the check before
publishing are all derived from these declarations.

    # run.toml, for: accelerate launch -m bend_hf.train --config run.toml
    task = ["gene_finding"]
    model = "dnabert6"
    learning-rate = 0.001

>>> RunConfig(task=("gene_finding",)).model
'bend-mini'
>>> flags_of(RunConfig)["checkpoint_every"].affects
'speed'
"""

from __future__ import annotations

import argparse
import logging
import math
import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from bend_hf.errors import ConfigError, InputError, did_you_mean
from bend_hf.files import read_text
from bend_hf.types import DtypeChoice, Offload, OutOfBounds, ProtocolName, RefMismatch, StoredDtype, ValueLoss

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

log = logging.getLogger(__name__)

T = TypeVar("T", int, float)
_WHOLE: Final = re.compile(r"-?\d+")
Affects: TypeAlias = Literal["scores", "speed", "nothing"]
Concerns: TypeAlias = Literal["data", "model", "recipe", "run"]
Group: TypeAlias = Literal["data", "model", "scores", "head", "training", "output", "cluster"]
Needs: TypeAlias = Literal[
    "weights",
    "checkpoint",
    "revision",
    "context",
    "offload",
    "training",
    "cache",
    "variants",
    "intervals",
    "genes",
    "scores",
]


@dataclass(frozen=True, kw_only=True)
class FlagInfo:
    """What the package knows about a flag; see ``flag`` for the meaning of each field."""

    help: str
    affects: Affects
    concerns: Concerns
    by_content: bool
    in_command: bool
    needs: Needs | None
    group: Group


def flag(  # noqa: PLR0913  the keywords of a declaration
    default: object,
    help: str,
    affects: Affects = "scores",
    *,
    concerns: Concerns = "run",
    by_content: bool = False,
    in_command: bool = True,
    needs: Needs | None = None,
    group: Group | None = None,
) -> Any:  # noqa: ANN401 as dataclasses.field, whose type is that of the field
    """Declare a field of a configuration, which is a flag of the command line and a key of the TOML file.

    Args:
        default: Value of the field if it is not given.
        help: Help text of the flag.
        affects: ``scores`` if another value may give other numbers; such a field is part of the run key, and of what
            separates two groups of records. ``speed`` or ``nothing`` otherwise.
        concerns: ``data`` or ``model`` for fields that choose these; ``recipe`` for how a head is trained, which a
            task of BEND declares and a published score must not change; ``run`` for the rest.
        by_content: Whether the run key and the record hold what the field stands for (the checksum of a file, the
            identity of a model) in place of its value.
        in_command: Whether the command on a model card that repeats a run names it; False for paths on this machine.
        needs: What the model or the task must have for the flag to have an effect; see ``check_flags_apply``.
        group: Title in the help under which the flag is listed; by default it follows from what the flag concerns.
    """
    by_concern: dict[Concerns, Group] = {"data": "data", "model": "model", "recipe": "training"}
    info = FlagInfo(
        help=help,
        affects=affects,
        concerns=concerns,
        by_content=by_content,
        in_command=in_command,
        needs=needs,
        group=group or by_concern.get(concerns, "output" if affects == "nothing" else "training"),
    )
    return field(default=default, metadata={"flag": info})


def flags_of(config: type[DataclassInstance]) -> dict[str, FlagInfo]:
    """Return what is known about each flag of a configuration, by field name."""
    return {item.name: item.metadata["flag"] for item in fields(config)}


def settings_in_key(config: type[DataclassInstance]) -> frozenset[str]:
    """Return the fields whose value, and not only what it stands for, decides the numbers of a run."""
    return frozenset(
        name for name, info in flags_of(config).items() if info.affects == "scores" and not info.by_content
    )


def scored_settings(config: DataclassInstance) -> dict[str, object]:
    """Return the values of a configuration that decide the numbers of a run, by field name."""
    return {name: getattr(config, name) for name in flags_of(type(config)) if name in settings_in_key(type(config))}


def given_without_effect(config: DataclassInstance, lacking: Collection[str]) -> dict[str, object]:
    """Return the flags that are not at their default but need something that is lacking, with their defaults."""
    infos = flags_of(type(config))
    return {
        item.name: item.default
        for item in fields(config)
        if infos[item.name].needs in lacking and getattr(config, item.name) != item.default
    }


def check_flags_apply(config: DataclassInstance, lacking: Mapping[str, Mapping[Needs, str]]) -> None:
    """Check that each flag that was given has an effect on something, and log what it has none on.

    Args:
        config: The configuration.
        lacking: For each model or task, what it lacks and why, such as ``{"onehot": {"weights": "has no weights"}}``.

    Raises:
        ConfigError: A flag has an effect on none of them. Flags of the cache, which change no score, are only logged.
    """
    infos = flags_of(type(config))
    for name in dict.fromkeys(flag for lacks in lacking.values() for flag in given_without_effect(config, lacks)):
        need, value = infos[name].needs, getattr(config, name)
        reasons = [f"{who} {lacks[need]}" for who, lacks in lacking.items() if need is not None and need in lacks]
        given = f"--{name.replace('_', '-')} is " + ("given" if value is True else f"{value}")
        if len(reasons) == len(lacking) and need != "cache":
            raise ConfigError(f"{given}, but {reasons[0]}; leave the flag out")
        for reason in reasons:
            log.warning("%s, but %s; it has no effect there", given, reason)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """When flags have an effect, as other flags of the same command decide.

    Attributes:
        flags: The flags, by field name.
        met: Whether they have an effect, given the values of all flags.
        reason: Why they have none otherwise, such as ``--method is not bootstrap``.
    """

    flags: tuple[str, ...]
    met: Callable[[Any], bool]  # a configuration or the namespace of a command; each knows the names of its flags
    reason: str


def check_conditions(
    values: object,
    defaults: Mapping[str, object],
    conditions: Sequence[Condition],
    shown: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Check that each flag that was given has an effect together with the others.

    Args:
        values: Holds the value of each flag as an attribute.
        defaults: The value of each flag if it is not given.
        conditions: When flags have an effect.
        shown: How flags are written whose spelling does not follow from the field's name.

    Raises:
        ConfigError: A flag has no effect.
    """
    for condition in conditions:
        for name in condition.flags:
            value = getattr(values, name, None)
            given = not (value is None or value is False or value in ([], ()) or value == defaults.get(name))
            if not given or condition.met(values):
                continue
            flag = shown.get(name, f"--{name.replace('_', '-')}")
            text = "given" if value is True else value
            text = " ".join(map(str, value)) if isinstance(value, tuple | list) else text
            raise ConfigError(f"{flag} is {text}, but {condition.reason}; leave {flag} out")


Precision = Literal["no", "fp16", "bf16"]
Schedule = Literal["constant", "cosine", "linear"]
Tune = Literal["head", "full", "lora"]
Keep = Literal["best", "last", "none"]
Decode = Literal["argmax", "grammar"]

# Names of BEND that are written otherwise here: conf/supervised_tasks, key embedder.
_NAMES_OF_BEND: Final = MappingProxyType(
    {"resnet_supervised": "resnet-supervised", "basset_supervised": "basset-supervised"}
)
DEFAULT_MODEL: Final = "bend-mini"  # is part of the package, so that every command runs without a network
ALL_SHOTS: Final = "all"
MAX_SEED: Final = 2**32 - 1  # numpy.random.seed takes no larger one
_PROTOCOL_HELP: Final = "bend-2024 reproduces the paper; bend-hf-1 fixes its known flaws"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What every configuration accepts: one value where several are meant, a text where a path is; no nan.

    Raises:
        ConfigError: A number is nan or infinite.
    """

    def __post_init__(self) -> None:
        _accept_single_values(self)
        check_finite(self)


@dataclass(frozen=True, kw_only=True)
class ComputeFlags(Flags):
    """Where and how fast a model computes; every command that opens a model has these flags.

    Raises:
        ConfigError: A number is out of range.
    """

    device: str | None = flag(
        None,
        "device of the model, such as cpu or cuda:1; default: the GPU, if there is one",
        "speed",
        in_command=False,
        group="model",
    )
    batch_tokens: int | None = flag(
        None,
        "tokens of a batch, padding included; default: the fastest of several, found by trial",
        "speed",
        in_command=False,
        needs="weights",
        group="model",
    )
    compile: bool = flag(
        False,
        "compile the model with torch.compile, which takes a minute or more; the last bits of its numbers may differ",
        concerns="model",
        needs="weights",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise ConfigError(f"--batch-tokens is {self.batch_tokens}; it must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class ModelFlags(ComputeFlags):
    """Which model, and how its embeddings are computed.

    Raises:
        ConfigError: A number is out of range.
    """

    protocol: ProtocolName = flag("bend-2024", _PROTOCOL_HELP, group="data")
    model: str = flag(
        DEFAULT_MODEL,
        "model key, Hub name, folder or .py file; 'bend-hf models' lists the keys; with 'bend-hf run' also "
        "KEY=FOLDER, a key with the weights of a folder",
        concerns="model",
        by_content=True,
    )
    checkpoint: str | None = flag(
        None,
        "folder or Hub name of weights to use instead of the published ones",
        concerns="model",
        by_content=True,
        needs="checkpoint",
    )
    revision: str | None = flag(
        None, "commit of the model on the Hub; default: the declared one", concerns="model", needs="revision"
    )
    layer: int | str = flag(
        -1,
        "hidden layer to take embeddings from: 0 is the input embeddings, -1 the last layer or the one that the model "
        "declares; Evo 2 also takes names, such as 28.mlp",
        concerns="model",
        needs="weights",
    )
    model_dtype: DtypeChoice = flag(
        "auto",
        "dtype of the model's weights and arithmetic; auto: bfloat16 on a GPU that computes in it, else float32, and "
        "float32 with --tune full or lora",
        concerns="model",
        needs="weights",
    )
    tf32: bool = flag(
        False,
        "let a GPU compute float32 products in TF32, which is faster and keeps 10 bits; needs float32",
        concerns="model",
        needs="weights",
    )
    random_init: bool = flag(
        False,
        "use random weights (from --seed) in the same architecture and tokenizer",
        concerns="model",
        needs="weights",
    )
    offload: Offload = flag(
        "none",
        "where the blocks of a network stay that the device cannot hold; each is copied when it is needed",
        "speed",
        concerns="model",
        needs="offload",
    )
    reverse_complement_average: bool = flag(
        False, "average each nucleotide's embedding over both strands", concerns="model"
    )
    overlap_tokens: int = flag(
        0,
        "tokens shared by neighboring chunks of a sequence that exceeds the context",
        concerns="model",
        needs="context",
    )
    seed: int = flag(0, "seed of random weights and shuffling")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "model", _NAMES_OF_BEND.get(self.model, self.model))
        if self.overlap_tokens < 0:
            raise ConfigError(f"--overlap-tokens is {self.overlap_tokens}; it must not be negative")
        _check_seed("--seed is", self.seed)


@dataclass(frozen=True, kw_only=True)
class DataConfig(Flags):
    """Which task, and where its data are. These flags mean the same in every command.

    Raises:
        ConfigError: The fields contradict each other.
    """

    task: tuple[str, ...] = flag(
        (),
        "tasks, groups of tasks, or all; 'bend-hf tasks' lists them",
        concerns="data",
        by_content=True,
        in_command=False,
    )
    data: str | None = flag(
        None,
        "sample, hub (the datasets of $BEND_HF_NAMESPACE, default bend), hub:NAMESPACE, or a data folder; default: "
        "$BEND_DATA_DIR or ./data if it holds the task, else sample",
        concerns="data",
        by_content=True,
        in_command=False,
    )
    bed: Path | None = flag(
        None,
        "BED file to use instead of the folder's; without --task, your own task",
        concerns="data",
        by_content=True,
        in_command=False,
    )
    labels: Path | None = flag(
        None,
        "HDF5 file of labels to use instead of the one next to the BED file",
        concerns="data",
        by_content=True,
        in_command=False,
    )
    genome: Path | None = flag(
        None, "FASTA file to use instead of the folder's", concerns="data", by_content=True, in_command=False
    )
    out_of_bounds: OutOfBounds = flag(
        "error", "what to do with an interval that ends after its contig", concerns="data", needs="intervals"
    )
    ref_mismatch: RefMismatch = flag(
        "error", "what to do with a variant whose REF differs from the genome", concerns="data", needs="variants"
    )
    loss: ValueLoss | None = flag(
        None,
        "the column label of your own task holds real values (mse) or counts (poisson), to be learned with this loss",
        concerns="data",
        by_content=True,
    )
    protocol: ProtocolName = flag("bend-2024", _PROTOCOL_HELP, group="data")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.task and self.bed is None:
            raise ConfigError("no task is given; name one with --task ('bend-hf tasks' lists them) or give --bed FILE")
        if len(self.task) > 1 and (self.bed or self.labels):
            raise ConfigError(f"--bed and --labels belong to one task, but --task names {len(self.task)}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ModelFlags, DataConfig):
    """A model on a task. These flags mean the same in every command.

    Raises:
        ConfigError: The fields contradict each other, or a number is out of range.
    """


@dataclass(frozen=True, kw_only=True)
class RunConfig(ModelConfig):
    """One model on one or several tasks. Fields that are None use the task's default.

    Raises:
        ConfigError: A number is out of range.
    """

    out: Path = flag(Path("results"), "folder of the result records", "nothing", in_command=False)
    seeds: tuple[int, ...] = flag(
        (),
        "seeds: one record each, and a summary; default: 0 1 2 for a score that can be published, else --seed",
        "nothing",
        in_command=False,
        group="training",
    )  # each run has one seed, in `seed`
    limit: int | None = flag(
        None,
        "use only this many items of each split, spread evenly; for trying things out, never for publishing",
        concerns="data",
    )
    metric: tuple[str, ...] = flag(
        (),
        "metrics to report instead of the task's, by name or folder; the first is the main one",
        by_content=True,
        group="output",
    )
    head: str | None = flag(
        None,
        "head on the embeddings: a key ('bend-hf models' lists them) or a .py file; default: the task's",
        by_content=True,
        group="head",
    )
    decode: Decode = flag(
        "argmax",
        "how gene finding chooses classes: the most probable one of each nucleotide, or the best gene structure, with "
        "weights chosen on the validation split; not with --protocol bend-2024",
        needs="genes",
        group="head",
    )
    shots: tuple[str, ...] = flag(
        (),
        "also train heads on few rows, such as 1,10,100,1000,all, each with several seeds: n rows of each class, or n "
        "rows of tasks with other labels; draws the score by the number of labels, with controls on the same rows",
        "nothing",
        needs="training",
        group="head",
    )
    strand_report: bool = flag(
        False,
        "predict the test split on the other strand too, and record how far both agree and what their average scores",
        "nothing",
        group="output",
    )
    no_averages: bool = flag(
        False,
        "variants: skip distances averaged around the variant, which are not BEND's score; faster with some models",
        needs="scores",
        group="scores",
    )
    tune: Tune = flag("head", "what to train: the head on frozen embeddings, all weights, or low-rank adapters")
    epochs: int | None = flag(
        None, "passes over the training split; default: the task's", concerns="recipe", needs="training"
    )
    batch_size: int | None = flag(
        None, "sequences per step, over all processes; default: the task's", concerns="recipe", needs="training"
    )
    learning_rate: float | None = flag(
        None, "learning rate of AdamW; default: the task's", concerns="recipe", needs="training"
    )
    weight_decay: float | None = flag(
        None, "weight decay of AdamW; default: the task's", concerns="recipe", needs="training"
    )
    fold: tuple[int, ...] = flag((), "folds to run, counted from 1; default: all", group="data")
    mixed_precision: Precision = flag("no", "precision of the training", needs="training")
    schedule: Schedule = flag(
        "constant", "course of the learning rate; all but constant fall to 0", concerns="recipe", needs="training"
    )
    warmup_steps: int = flag(0, "steps over which the learning rate rises from 0", concerns="recipe", needs="training")
    gradient_accumulation: int = flag(1, "batches per optimizer step", concerns="recipe", needs="training")
    patience: int | None = flag(
        None,
        "stop after this many epochs without a better validation metric; default: never",
        concerns="recipe",
        needs="training",
    )
    checkpoint_every: int = flag(
        200, "steps between two checkpoints, from which an interrupted run resumes", "speed", needs="training"
    )
    cache: Path | None = flag(
        None,
        "folder of the embeddings; default: embeddings below $BEND_HF_CACHE",
        "speed",
        in_command=False,
        needs="cache",
        group="model",
    )
    cache_dtype: StoredDtype = flag("float16", "dtype of stored embeddings", needs="cache", group="model")
    no_cache: bool = flag(
        False,
        "recompute embeddings whenever they are needed; for embeddings larger than the disk",
        needs="cache",
        group="model",
    )
    controls: bool = flag(False, "also run the task's controls, and show them next to the model", "nothing")
    force: bool = flag(
        False, "run again what has a record in --out; controls of a model are kept", "nothing", in_command=False
    )
    keep: Keep | None = flag(
        None,
        "which weights to keep next to the record: those of the best epoch, of the last one, or none; default: best, "
        "and none with 'bend-hf run'",
        "nothing",
        in_command=False,
        needs="training",
        group="output",
    )
    tracker: tuple[str, ...] = flag(
        (), "tensorboard, trackio or wandb; must be installed", "nothing", in_command=False, needs="training"
    )
    processes: int | None = flag(None, "number of processes the run must have; it does not start otherwise", "speed")

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
            "limit",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be above 0")
        if self.warmup_steps < 0:
            raise ConfigError(f"--warmup-steps is {self.warmup_steps}; it must not be negative")
        if self.weight_decay is not None and self.weight_decay < 0:
            raise ConfigError(f"--weight-decay is {self.weight_decay}; it must not be negative")
        object.__setattr__(self, "shots", shots_of(self.shots))
        check_conditions(self, {item.name: item.default for item in fields(self)}, _RUN_CONDITIONS)
        for seed in self.seeds:
            _check_seed("--seeds holds", seed)
        for name in ("seeds", "metric"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ConfigError(f"--{name} is {list(values)}; give each value once")
        if any(fold < 1 for fold in self.fold):
            raise ConfigError(f"--fold is {list(self.fold)}; folds are counted from 1")


_RUN_CONDITIONS: Final = (
    Condition(
        flags=("seed",),
        met=lambda config: not config.seeds,
        reason="--seeds, as a flag or in the file of --config, says which seeds are run",
    ),
    Condition(
        flags=("shots",),
        met=lambda config: config.tune == "head",
        reason="--tune trains the embedder too, and few rows are learned by heads alone",
    ),
    Condition(
        flags=("shots",),
        met=lambda config: config.decode == "argmax",
        reason="--decode grammar is not used by heads on few rows",
    ),
)


def _accept_single_values(config: Flags) -> None:
    """Hold one value as a tuple of one, a list as a tuple, and a text as a path, where the fields are declared so.

    >>> RunConfig(task="gene_finding", out="results").task
    ('gene_finding',)
    """
    for name, kind in kinds_of(type(config)).items():
        value = getattr(config, name)
        if kind.several and not isinstance(value, tuple):
            value = tuple(value) if isinstance(value, list | set) else (value,)
        elif kind.base is Path and isinstance(value, str):
            value = Path(value)
        elif kind.or_number and isinstance(value, str):
            value = kind.read(value)
        else:
            continue
        object.__setattr__(config, name, value)


def shots_of(texts: Sequence[str | int]) -> tuple[str, ...]:
    """Read numbers of shots, rising, with ``all`` at the end; a text may hold several, separated by commas.

    >>> shots_of(["10,1", "all"])
    ('1', '10', 'all')

    Raises:
        ConfigError: One is not a number above 0 or ``all``, or is given twice.
    """
    found = [part.strip() for text in texts for part in str(text).split(",") if part.strip()]
    wrong = [one for one in found if one != ALL_SHOTS and not (one.isascii() and one.isdigit() and int(one) > 0)]
    if wrong:
        raise ConfigError(f"--shots holds {wrong[0]!r}; expected numbers above 0, or all, such as 1,10,100,all")
    numbers = [ALL_SHOTS if one == ALL_SHOTS else str(int(one)) for one in found]
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"--shots is {','.join(found)}; give each number once")
    return tuple(sorted(numbers, key=lambda one: (one == ALL_SHOTS, 0 if one == ALL_SHOTS else int(one))))


def _check_seed(words: str, seed: int) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"{words} {seed}; a seed must lie between 0 and {MAX_SEED}")


def check_finite(config: DataclassInstance) -> None:
    """Check that no number of a configuration is nan or infinite, which pass comparisons such as ``value < 0``.

    Raises:
        ConfigError: A number is.
    """
    for item in fields(config):
        value = getattr(config, item.name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, float) and not math.isfinite(one):
                raise ConfigError(f"--{item.name.replace('_', '-')} is {one}; expected a finite number")


def number_between(low: float, high: float = math.inf, *, kind: type[T]) -> Callable[[str], T]:
    """Return the type of a flag that holds a finite number from ``low`` to ``high``, for ``add_argument``.

    >>> number_between(1, kind=int)("3")
    3
    """

    def read(text: str) -> T:
        value = kind(text)
        if not (low <= value <= high and math.isfinite(value)):
            limits = f"{low:g} or more" if high == math.inf else f"a number from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{text} is out of range; expected {limits}")
        return value

    read.__name__ = kind.__name__  # argparse names it if the text is no number
    return read


def add_run_flags(parser: argparse.ArgumentParser, several: Sequence[str] = ()) -> None:
    """Add the flags of a run to a parser: one per field, and ``--config`` for a file that holds them."""
    parser.add_argument("--config", type=Path, help="TOML file with any of these flags; the command line wins")
    add_task_words(parser)
    add_flags(parser, RunConfig, several)


def add_task_words(parser: argparse.ArgumentParser) -> None:
    """Let a command take tasks as plain words, as in ``bend-hf train gene_finding``; ``--task`` stays."""
    parser.add_argument(
        "task", nargs="*", action="extend", default=argparse.SUPPRESS, metavar="TASK", help="the same as --task"
    )


def flag_group(parser: argparse.ArgumentParser, title: Group) -> argparse._ArgumentGroup:
    """Return the group of flags that the help of a command lists under a title."""
    groups = {one.title: one for one in parser._action_groups}
    if title not in groups:
        groups = {name: parser.add_argument_group(name) for name in get_args(Group)}
    return groups[title]


def add_flags(parser: argparse.ArgumentParser, config: type[DataclassInstance], several: Sequence[str] = ()) -> None:
    """Add one flag to a parser for each field of a configuration class.

    Args:
        parser: The parser to extend.
        config: The configuration class.
        several: Fields that take several values here, although the class holds one.
    """
    kinds, infos = kinds_of(config, several), flags_of(config)
    for item in fields(config):
        kind, name = kinds[item.name], f"--{item.name.replace('_', '-')}"
        group = flag_group(parser, infos[item.name].group)
        shown = item.default is not False and item.default not in (None, (), MISSING)
        default = f" (default: {item.default})" if shown else ""
        text = infos[item.name].help.replace("%", "%%") + default
        if kind.base is bool:
            group.add_argument(name, dest=item.name, action="store_true", default=argparse.SUPPRESS, help=text)
            continue
        group.add_argument(
            name,
            dest=item.name,
            type=kind.read if kind.or_number else kind.base,
            nargs="*" if kind.several else None,
            action="extend" if kind.several else "store",
            choices=kind.choices or None,
            default=argparse.SUPPRESS,
            metavar=None if kind.choices else item.name.upper(),
            help=text,
        )


def config_from_flags(config: type[RunConfig], parsed: argparse.Namespace) -> RunConfig:
    """Build the configuration from parsed flags and the file that ``--config`` names.

    Raises:
        ConfigError: The fields contradict each other or are out of range, or the file holds another key.
    """
    return config(**given_values(config, parsed))


def given_values(
    config: type[DataclassInstance], parsed: argparse.Namespace, several: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the values that flags and file give, by field; a flag wins over the file.

    Raises:
        ConfigError: The file holds an unknown key, or a value of the wrong type.
    """
    kinds = kinds_of(config, several)
    file: Path | None = getattr(parsed, "config", None)
    in_file = {} if file is None else read_toml(file, kinds)
    given = {name: value for name, value in vars(parsed).items() if name in kinds}
    return {**in_file, **{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a field holds.

    Attributes:
        base: Type of one value.
        choices: The texts that are allowed; empty if any is.
        several: Whether the field holds several values.
        or_number: Whether a text that is a whole number is read as one.
    """

    base: type
    choices: tuple[str, ...] = ()
    several: bool = False
    or_number: bool = False

    def read(self, text: str) -> object:
        """Read one value from the command line."""
        if self.or_number and _WHOLE.fullmatch(text):
            return int(text)
        return self.base(text)


def kinds_of(config: type[DataclassInstance], several: Sequence[str] = ()) -> dict[str, Kind]:
    """Return the kind of each field; fields named in ``several`` hold several values, whatever their type says.

    >>> kinds_of(DataConfig)["protocol"].choices
    ('bend-2024', 'bend-hf-1')
    """
    hints = get_type_hints(config)
    return {item.name: _kind_of(hints[item.name], several=item.name in several) for item in fields(config)}


def _kind_of(hint: object, *, several: bool) -> Kind:
    """Return the kind that a type hint means: ``tuple[int, ...]`` and ``int | None`` hold ``int``."""
    several = several or get_origin(hint) is tuple
    if {int, str} <= set(get_args(hint)):
        return Kind(base=str, several=several, or_number=True)
    if get_origin(hint) is not Literal:
        hint = next((part for part in get_args(hint) if part is not type(None)), hint)
    if get_origin(hint) is Literal:
        return Kind(base=str, choices=get_args(hint), several=several)
    if not isinstance(hint, type):
        raise TypeError(f"a field of the type {hint} has no flag; give it a plain type, a Literal or a tuple of one")
    return Kind(base=hint, several=several)


def read_toml(path: Path, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Read the values of a TOML file, by field.

    Args:
        path: The file. Its keys are written with ``-``, as the flags are, or with ``_``.
        kinds: The kind of each field.

    Raises:
        ConfigError: The file cannot be read, a key is unknown, or a value has the wrong type.
    """
    try:
        content = tomllib.loads(read_text(path))
    except (OSError, ValueError, InputError, RecursionError) as error:
        raise ConfigError(f"--config {path} cannot be read as TOML ({error}); fix the file or the path") from error
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


def check_value(key: str, value: object, kind: Kind) -> object:
    """Return a TOML value as its field holds it.

    Raises:
        ConfigError: It has the wrong type.
    """
    if kind.several:
        each = value if isinstance(value, list) else [value]
        return tuple(_check_one(key, item, kind) for item in each)
    return _check_one(key, value, kind)


def _check_one(key: str, value: object, kind: Kind) -> object:
    if kind.base is Path and isinstance(value, str):
        return Path(value)
    if kind.base is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind.or_number and isinstance(value, int | str) and not isinstance(value, bool):
        return kind.read(str(value))
    if not isinstance(value, kind.base) or (isinstance(value, bool) and kind.base is not bool):
        raise ConfigError(f"{key} = {value!r} is {type(value).__name__}; expected {kind.base.__name__}")
    if kind.choices and value not in kind.choices:
        raise ConfigError(f"unknown {key} {value!r}; {did_you_mean(str(value), list(kind.choices))}")
    return value
