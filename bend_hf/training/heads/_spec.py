"""What a head declares: its key, the module it builds, and the settings that fit a task."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import UnionType
from typing import TYPE_CHECKING, Final, TypeAlias, Union, get_args, get_origin

from bend_hf.errors import ConfigError, did_you_mean
from bend_hf.files import file_sha256, json_sha256
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import BinClasses, MultiLabel, RealValues
from bend_hf.tasks._spec import Head, HeadSetting
from bend_hf.types import Json
from bend_hf.user_code import files_read, identity_of

if TYPE_CHECKING:
    from torch import Tensor, nn

BatchedForward: TypeAlias = "Callable[[nn.Module, Mapping[str, Tensor], Tensor, Tensor], Tensor]"
ONE_HOT_WIDTH: Final = 5  # A C G N T
_GIVEN: Final = ("width", "n_outputs")
_TRIED_WIDTH: Final = 16
_TRIED_OUTPUTS: Final = 2


def pool_bp_of(task: TaskSpec) -> int | None:
    """Return the nucleotides of a label window; None if every nucleotide has a label."""
    match task.label:
        case BinClasses(bin_bp=bin_bp):
            return bin_bp
        case MultiLabel() | RealValues():
            return task.window_bp
        case _:
            pool_bp = None if task.head is None else task.head.settings.get("pool_bp")
            return pool_bp if isinstance(pool_bp, int) else None


def pools_label_windows(task: TaskSpec) -> Mapping[str, HeadSetting]:
    """Return the settings of a head that averages over the label windows of a task, of any length."""
    return {"pool_bp": pool_bp_of(task)}


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """A head that can be trained on embeddings.

    Attributes:
        key: Registry key, and the name that ``--head`` takes.
        text: The head in a few words, for model cards.
        build: Makes the module, called as ``build(width=..., n_outputs=..., **settings)``. Its other keyword
            arguments are the settings of the head, and their defaults are the head's. The module is called as
            ``head(x_BTD, token_of_BL)`` and gives logits, float, shape (batch, windows, outputs); a window is one
            nucleotide if nothing is pooled.
        fits: Returns the settings that the labels of a task need; raises ``ConfigError`` if the head cannot learn
            them.
        reads_means: Whether the mean of the embeddings over a label window is all that the head reads of them, as for
            a linear map; the cache then stores the means only.
        needs_one_hot: Whether the head reads one-hot sequence only, as a model that is trained from scratch does.
        kind: Name in result records and run keys; the key if None.
        batched: Computes the logits of K heads of one shape together, called as
            ``batched(head, weights, x_KBTD, token_of_KBL)``: one of the heads for its settings, the weights of all by
            name with the axis K in front, and for each head a batch as the module takes it. Gives logits, shape
            (K, batch, windows, outputs). None: the heads are called one after the other.
        sizes: Values of the settings that a protocol may search on the validation split; see ``training.recipe``.
    """

    key: str
    text: str
    build: Callable[..., nn.Module]
    fits: Callable[[TaskSpec], Mapping[str, HeadSetting]] = pools_label_windows
    reads_means: bool = False
    needs_one_hot: bool = False
    kind: str | None = None
    batched: BatchedForward | None = None
    sizes: Mapping[str, tuple[HeadSetting, ...]] = field(default_factory=dict)

    @cached_property
    def defaults(self) -> Mapping[str, HeadSetting]:
        """The settings that have a default value, from the signature of ``build``."""
        return {name: one.default for name, one in self._parameters.items() if one.default is not one.empty}

    @cached_property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        try:
            signature = inspect.signature(self.build, eval_str=True)
        except NameError:  # an annotation whose name is imported for type checkers only
            signature = inspect.signature(self.build)
        return {name: one for name, one in signature.parameters.items() if name not in _GIVEN}

    def complete(self, head: Head) -> Head:
        """Return the head with every setting filled in.

        Raises:
            ConfigError: A setting is unknown, is missing, or has another type than the head expects.
        """
        for name in head.settings:
            if name not in self._parameters:
                raise ConfigError(
                    f"the head {self.key!r} has no setting {name!r}; {did_you_mean(name, list(self._parameters))}"
                )
        settings = {**self.defaults, **head.settings}
        for name, parameter in self._parameters.items():
            if name not in settings:
                raise ConfigError(f"the head {self.key!r} needs a value for {name!r}; add it to the head's settings")
            types = _types_of(parameter.annotation)
            if types and type(settings[name]) not in types:
                expected = " or ".join(one.__name__ for one in types)
                raise ConfigError(f"the head {self.key!r} has {name} = {settings[name]!r}; expected {expected}")
        return Head(self.key, **settings)

    def for_task(self, task: TaskSpec) -> Head:
        """Return the head with the settings for the labels of a task.

        Raises:
            ConfigError: The head cannot learn these labels.
        """
        return self.complete(Head(self.key, **self.fits(task)))

    def entry(self, head: Head) -> dict[str, Json]:
        """Return the head as result records and run keys hold it.

        A head from outside this package is identified by its code, too; see ``user_code.identity_of``. The files that
        it reads when it is built are found by building a small one.
        """
        entry: dict[str, Json] = {"kind": self.kind or self.key, **head.settings}
        identity = identity_of(self)
        if identity:
            entry["source_sha256"] = json_sha256([identity, *self._files_read(head)])
        return entry

    def _files_read(self, head: Head) -> list[str]:
        """Return the checksums of the files that are read when the head is built."""
        import torch

        width = ONE_HOT_WIDTH if self.needs_one_hot else _TRIED_WIDTH
        with files_read() as read, contextlib.suppress(Exception), torch.random.fork_rng(devices=[]):
            self.build(width=width, n_outputs=_TRIED_OUTPUTS, **head.settings)
        return sorted(file_sha256(path) for path in read if path.suffix != ".py")


def _types_of(annotation: object) -> tuple[type, ...]:
    """Return the types that an annotation allows; a float may also be an int. Empty if it allows anything."""
    hints = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    types = tuple(one for one in hints if isinstance(one, type) and one is not inspect.Parameter.empty)
    return (*types, int) if float in types and int not in types else types
