"""The file of a trained head: its weights, and in the header everything that is needed to use them again.

One safetensors file holds the weights of the head and, if the embedder was trained too, those of the embedder or of its
adapters. Its header says which labels the head predicts, how it is built, which embedder it reads and the checksums of
that embedder's files. Nothing is pickled.

>>> label_of({"kind": "BinClasses", "names": ["no", "yes"], "bin_bp": 128})
BinClasses(names=('no', 'yes'), bin_bp=128)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from bend_hf.config import ModelFlags, Tune, flags_of
from bend_hf.errors import RecordError
from bend_hf.evaluation.record import jsonable
from bend_hf.files import atomic_path, explain_write_errors, file_sha256, parse_json
from bend_hf.tasks._labels import BinClasses, LabelKind, MultiLabel, NucleotideClasses, RealValues, SequenceClass
from bend_hf.tasks._spec import Head
from bend_hf.types import Json, StoredDtype

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bend_hf.training.losses import LossName

Kept = Literal["best", "last"]
SUFFIX: Final = ".safetensors"
_HEADER: Final = "bend_hf_head"
_FORMAT: Final = 1
_LABELS: Final = {kind.__name__: kind for kind in get_args(LabelKind)}


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What the header of a kept head says.

    Attributes:
        task: Task key.
        label: Kind and names of the labels.
        window_bp: Length of every sequence of the task; None if lengths differ.
        stranded: Whether rows of the minus strand are read as their reverse complement.
        loss: Name of the loss, which says what logits mean.
        head: Key and settings of the head.
        head_file: The user's file that declares the head; None for a head of this package.
        head_source: Hash of that file's code; None for a head of this package.
        width: Width of the embeddings.
        n_outputs: Logits per label window.
        tune: What was trained: the head, all weights, or adapters.
        rounded_to: Type to which embeddings were rounded by the cache; None if they were not.
        model: The model's flags by name; see ``config.ModelFlags``.
        is_object: Whether the model was an object in memory, which the flags only name.
        identity: Checksums of the embedder's files and what else determines its embeddings.
        kept: Whether these are the weights of the best epoch or of the last one.
        epoch: The epoch, counted from 1; 0 if nothing was trained.
        validation: The task's metric on the validation split after that epoch; None if it is not defined or not known.
        fold: The fold whose head this is; None if the task has no folds.
        seed: Seed of the training.
        lora: Rank, scale and layers of adapters; empty without them.
        grammar: With which genes are decoded; None if they are not, or in files of earlier releases.
    """

    task: str
    label: LabelKind
    window_bp: int | None
    stranded: bool
    loss: LossName
    head: Head
    head_file: str | None = None
    head_source: str | None = None
    width: int
    n_outputs: int
    tune: Tune
    rounded_to: StoredDtype | None
    model: Mapping[str, Json]
    is_object: bool = False
    identity: Mapping[str, str]
    kept: Kept
    epoch: int
    validation: float | None
    fold: int | None
    seed: int
    lora: Mapping[str, Json] = field(default_factory=dict)
    grammar: Mapping[str, Json] | None = None

    @property
    def row_bp(self) -> int:
        """Nucleotides that one prediction stands for."""
        match self.label:
            case NucleotideClasses():
                return 1
            case BinClasses():
                return self.label.bin_bp
            case _:
                pool_bp = self.head.settings.get("pool_bp")
                return self.window_bp or (pool_bp if isinstance(pool_bp, int) else 1)

    def as_json(self) -> dict[str, Json]:
        """Return the content of the header."""
        body = {item.name: jsonable(getattr(self, item.name)) for item in fields(self) if item.name != "head"}
        return {"format": _FORMAT, **body, "head": {"key": self.head.key, "settings": jsonable(self.head.settings)}}

    @classmethod
    def from_json(cls, body: Json) -> HeadConfig:
        """Read the content of a header.

        Raises:
            ValueError: It is of another format, or a field is missing, unknown or malformed.
        """
        if not isinstance(body, dict) or body.get("format") != _FORMAT:
            found = body.get("format") if isinstance(body, dict) else None
            raise ValueError(f"its format is {found!r}; this release reads {_FORMAT}")
        values = {"grammar": None, **{name: value for name, value in body.items() if name != "format"}}
        names = {item.name for item in fields(cls)}
        if wrong := sorted(names ^ values.keys()):
            raise ValueError(f"its header lacks {wrong[0]!r}" if wrong[0] in names else f"{wrong[0]!r} is unknown")
        for name in ("width", "n_outputs", "epoch", "seed"):
            if not isinstance(values[name], int) or isinstance(values[name], bool):
                raise ValueError(f"its {name} is {values[name]!r}; expected a whole number")
        head, model, identity = values["head"], values["model"], values["identity"]
        if not (isinstance(head, dict) and isinstance(model, dict) and isinstance(identity, dict)):
            raise ValueError("its head, model or identity is no object")
        settings = head["settings"]
        if not isinstance(settings, dict):
            raise ValueError("the settings of its head are no object")
        values["label"] = label_of(values["label"])  # type: ignore[assignment]  # becomes a declaration
        values["head"] = Head(str(head["key"]), **settings)  # type: ignore[assignment,arg-type]  # the same
        return cls(**values)  # type: ignore[arg-type]  # checked above as far as it is read


def label_of(body: Json) -> LabelKind:
    """Return the kind of labels that ``jsonable`` described.

    Raises:
        ValueError: It is no kind of labels.
    """
    values = dict(body) if isinstance(body, dict) else {}
    kind = _LABELS.get(str(values.pop("kind", None)))
    names = values.pop("names", None)
    if kind is None or not isinstance(names, list):
        raise ValueError(f"{body!r} is no kind of labels")
    try:
        made: LabelKind = kind(names=tuple(map(str, names)), **values)
    except TypeError as error:
        raise ValueError(f"{body!r} is no kind of labels") from error
    return made


@dataclass(frozen=True, kw_only=True)
class KeptHead:
    """The weights of one trained head with their configuration.

    Attributes:
        config: The header.
        tensors: Weights by name, on the CPU: those of the head, or of the embedder and the head.
    """

    config: HeadConfig
    tensors: Mapping[str, Tensor]

    def write(self, path: Path) -> dict[str, Json]:
        """Write the file, and return what a record says of it.

        Raises:
            RecordError: It cannot be written.
        """
        from safetensors.torch import save_file

        own = {name: value.contiguous() for name, value in self.tensors.items()}
        header = {"format": "pt", _HEADER: json.dumps(self.config.as_json(), allow_nan=False)}
        with explain_write_errors(path), atomic_path(path) as part:
            save_file(own, part, metadata=header)
            _sort_header(part)
        return {
            "file": path.name,
            "sha256": file_sha256(path),
            "bytes": path.stat().st_size,
            "kept": self.config.kept,
            "epoch": self.config.epoch,
            "fold": self.config.fold,
        }


def _sort_header(path: Path) -> None:
    """Sort the keys of the header of a safetensors file, whose order is random: equal weights then give equal bytes.

    The header is its length in 8 bytes, little-endian, and JSON that is padded with blanks (safetensors' README).
    """
    with path.open("r+b") as file:
        n_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(n_bytes))
        made = json.dumps(header, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
        if len(made) <= n_bytes:
            file.seek(8)
            file.write(made.ljust(n_bytes))


def read_head(path: Path) -> KeptHead:
    """Read the file of a kept head.

    Raises:
        RecordError: The file is missing, damaged, or holds something else.
    """
    with _opened(path) as (file, config):
        return KeptHead(config=config, tensors={name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def read_config(path: Path) -> HeadConfig:
    """Read the header of a kept head only.

    Raises:
        RecordError: The file is missing, damaged, or holds something else.
    """
    with _opened(path) as (_, config):
        return config


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, HeadConfig]]:
    """Open the file of a kept head, and read its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            if header is None:
                raise ValueError("it holds weights of something else")
            yield file, HeadConfig.from_json(parse_json(header))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise RecordError(
            f"{path} is not a trained head ({reason}). Expected the .safetensors file that 'bend-hf train' writes next "
            "to a record."
        ) from error


def stored_flags(config: ModelFlags) -> dict[str, Json]:
    """Return the flags that choose a model and decide its embeddings, as a header holds them."""
    infos = flags_of(ModelFlags)
    return {name: jsonable(getattr(config, name)) for name, info in infos.items() if info.affects == "scores"}


def model_flags(config: HeadConfig) -> ModelFlags:
    """Return the flags of the embedder that a head reads.

    Raises:
        RecordError: A flag is unknown to this release, or out of range.
    """
    try:
        return ModelFlags(**config.model)  # type: ignore[arg-type]  # checked by the class and by the model
    except TypeError as error:
        raise RecordError(
            f"the head of {config.task} names a model in a way that this release does not know ({error}); upgrade "
            "bend_hf"
        ) from error


def is_per_label(label: LabelKind) -> bool:
    """Whether each label has a score of its own, instead of one class per window."""
    return isinstance(label, MultiLabel | RealValues)


def one_row_each(label: LabelKind) -> bool:
    """Whether a sequence of the task has one set of labels, and not labels along the sequence."""
    return isinstance(label, MultiLabel | RealValues | SequenceClass)


def trained_bytes(model: nn.Module) -> int:
    """Return the size of what training changes in a model: trainable weights and buffers, in bytes."""
    weights = sum(one.numel() * one.element_size() for one in model.parameters() if one.requires_grad)
    return weights + sum(one.numel() * one.element_size() for one in model.buffers())
