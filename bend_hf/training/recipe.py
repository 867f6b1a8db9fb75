"""How a protocol trains a head: batches and epochs for few rows, and what is searched on the validation split.

``bend-2024`` trains as BEND's configuration files say. ``bend-hf-1`` takes enough steps however few rows there are, and
trains every head of a fixed grid of sizes and learning rates; the one with the highest main metric on the validation
split predicts the test split. The grid is the same for every model and control.

>>> training = TrainingSpec(loss="bce", batch_size=64, learning_rate=0.003)
>>> RECIPES["bend-hf-1"].budget(training, 45)
Budget(batch_size=15, epochs=100)
>>> RECIPES["bend-hf-1"].budget(training, 5)
Budget(batch_size=4, epochs=150)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Final

from bend_hf.data.dataset import fold_subsets
from bend_hf.tasks._spec import Head, HeadSetting, TrainingSpec
from bend_hf.training.heads import HEADS
from bend_hf.types import Json, ProtocolName


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How often a head sees the training split.

    Attributes:
        batch_size: Sequences per batch.
        epochs: Passes over the training split.
    """

    batch_size: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One head of a search.

    Attributes:
        head: The head with all its settings.
        learning_rate: Learning rate of AdamW.
        chosen: The searched values by name, as a record holds them.
    """

    head: Head
    learning_rate: float
    chosen: Mapping[str, HeadSetting]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a protocol does with the declaration of a task.

    Attributes:
        least_steps: Steps of the optimizer that a head takes at least.
        smallest_batch: Batches are not made smaller than this for it; there are more epochs instead.
        learning_rates: Learning rates that are searched; empty for that of the task.
        searches_size: Whether the sizes that a head declares are searched too.
    """

    least_steps: int = 0
    smallest_batch: int = 1
    learning_rates: tuple[float, ...] = ()
    searches_size: bool = False

    def budget(
        self,
        training: TrainingSpec,
        n_rows: int,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        accumulation: int = 1,
    ) -> Budget:
        """Return batch size and epochs that give enough steps: smaller batches first, then more epochs.

        Args:
            training: The task's declaration.
            n_rows: Rows of the training split.
            epochs: Those that the user asked for, which stay as they are; None for the task's.
            batch_size: That of the user, which stays as it is; None for the task's.
            accumulation: Batches per step.
        """
        passes, size = epochs or training.epochs, batch_size or training.batch_size
        if not self.least_steps:
            return Budget(batch_size=size, epochs=passes)
        if batch_size is None:
            size = min(size, max(self.smallest_batch, n_rows * passes // (self.least_steps * accumulation)))
        if epochs is None:
            per_epoch = steps_per_epoch(n_rows, batch_size=size, accumulation=accumulation)
            passes = max(passes, math.ceil(self.least_steps / max(per_epoch, 1)))
        return Budget(batch_size=size, epochs=passes)

    def searched(self, head: Head, learning_rate: float | None) -> dict[str, tuple[HeadSetting, ...]]:
        """Return the values that are searched, by name; empty if there is nothing to choose from.

        Args:
            head: The head of the task, or the one that was asked for.
            learning_rate: That the user asked for; None to search it.
        """
        sizes = dict(HEADS.get(head.key).sizes) if self.searches_size else {}
        rates: dict[str, tuple[HeadSetting, ...]] = (
            {"learning_rate": self.learning_rates} if learning_rate is None and self.learning_rates else {}
        )
        return {**sizes, **rates}


RECIPES: Final[Mapping[ProtocolName, Recipe]] = MappingProxyType(
    {
        "bend-2024": Recipe(),
        "bend-hf-1": Recipe(
            least_steps=300,
            smallest_batch=4,
            learning_rates=(0.0003, 0.001, 0.003),  # BEND's are 0.001 and 0.003
            searches_size=True,
        ),
    }
)


def trials_of(
    head: Head, searched: Mapping[str, Sequence[HeadSetting]], learning_rate: float | None
) -> tuple[Trial, ...]:
    """Return every combination of the searched values; a single trial if nothing is searched.

    >>> trials_of(Head("linear"), {"learning_rate": (0.001, 0.003)}, None)[1].chosen
    {'learning_rate': 0.003}

    Args:
        head: The head with all its settings.
        searched: Values by name: settings of the head, and ``learning_rate``.
        learning_rate: The learning rate if it is not searched.
    """
    trials = []
    for values in product(*searched.values()):
        chosen = dict(zip(searched, values, strict=True))
        settings = {**head.settings, **{name: value for name, value in chosen.items() if name != "learning_rate"}}
        rate = chosen.get("learning_rate", learning_rate)
        trials.append(Trial(head=Head(head.key, **settings), learning_rate=float(rate or 0.0), chosen=chosen))
    return tuple(trials)


def searched_entry(entry: Mapping[str, Json], searched: Mapping[str, Sequence[HeadSetting]]) -> dict[str, Json]:
    """Return a head as records hold it, with all values of each setting that is searched.

    >>> searched_entry({"kind": "CnnSpec", "hidden": 64}, {"hidden": (8, 64), "learning_rate": (0.1,)})
    {'kind': 'CnnSpec', 'hidden': [8, 64]}
    """
    return {name: list(searched[name]) if name in searched else value for name, value in entry.items()}


def search_entry(
    searched: Mapping[str, Sequence[HeadSetting]], *, metric: str, protocol: ProtocolName, tune: str
) -> dict[str, Json]:
    """Return what a record says of a search: what was searched, on what, and why if nothing was.

    >>> search_entry({"hidden": (8, 64)}, metric="mcc", protocol="bend-hf-1", tune="head")
    {'values': {'hidden': [8, 64]}, 'by': 'mcc on the validation split', 'trials': 2}

    Args:
        searched: Values by name.
        metric: The main metric of the task.
        protocol: Version of the rules.
        tune: What is trained: the head, all weights, or adapters.
    """
    if searched:
        values: dict[str, Json] = {name: list(choices) for name, choices in searched.items()}
        trials = math.prod(map(len, searched.values()))
        return {"values": values, "by": f"{metric} on the validation split", "trials": trials}
    if protocol == "bend-2024":
        reason = "bend-2024 takes the settings of BEND"
    else:
        reason = "the embedder is trained too" if tune != "head" else "the values were given"
    return {"values": {}, "by": None, "trials": 1, "reason": reason}


def steps_per_epoch(n_rows: int, *, batch_size: int, accumulation: int = 1) -> int:
    """Return the steps of the optimizer in one pass over the training split."""
    return math.ceil(math.ceil(n_rows / batch_size) / accumulation)


def fewest_train_rows(items: Mapping[str, int], *, folds: bool) -> int:
    """Return the rows of the smallest training split.

    >>> fewest_train_rows({"train": 45, "validation": 9, "test": 9}, folds=False)
    45
    >>> fewest_train_rows({"part1": 5, "part2": 6, "part3": 7, "part4": 8}, folds=True)
    11

    Args:
        items: Rows of each split, or of each subset that folds are made of, in order.
        folds: Whether they are such subsets.
    """
    if not folds:
        return items.get("train", 0)
    counts = list(items.values())
    return min(
        (sum(counts[k] for k in fold_subsets(len(counts), fold=fold)[2]) for fold in range(1, len(counts) + 1)),
        default=0,
    )
