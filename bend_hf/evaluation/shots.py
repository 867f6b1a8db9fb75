"""Predictions of heads that were trained on few rows, by number of shots and seed, and their file.

>>> full = Predictions(item=np.array([0, 1]), windows=np.arange(3), target=np.array([0, 1], np.int16),
...                    score=np.array([.1, .9], np.float32), predicted=None, label_names=("no", "yes"))
>>> few = replace(full, score=np.array([.5, .4], np.float32))
>>> table = ShotHeads(full=full, few={"10": {3: few}}).table()
>>> table.columns["shots_10_seed_3"].to_pylist() == [[few.score[0]], [few.score[1]]]
True
>>> ShotHeads.of(table).few["10"][3].score.tolist() == few.score.tolist()
True
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.record import member
from bend_hf.types import Json

SHOTS: Final = "shots"  # name of the prediction file, and field of the record
NOT_TRIED: Final = "more than was tried"
_COLUMN: Final = re.compile(r"shots_(\d+)_seed_(\d+)")


@dataclass(frozen=True, kw_only=True)
class FewHeads:
    """What one fold gave, or the whole task if it has no folds.

    Attributes:
        predictions: By number of shots, the predictions of the test split of each seed.
        facts: By number of shots, what a record keeps of the subsets and the trainings.
    """

    predictions: Mapping[str, Mapping[int, Predictions]]
    facts: Mapping[str, Mapping[str, Json]]


@dataclass(frozen=True, kw_only=True)
class ShotHeads:
    """The predictions of all heads of a curve.

    Attributes:
        full: Of the head that was trained on the whole split.
        few: By number of shots, the predictions of each seed, for the same items as ``full``.
    """

    full: Predictions
    few: Mapping[str, Mapping[int, Predictions]]

    def table(self) -> Predictions:
        """Return the predictions of the whole split with those of each head as a further column."""
        columns: dict[str, pa.Array] = {
            f"shots_{shots}_seed_{seed}": _lists(one)
            for shots, seeds in self.few.items()
            for seed, one in seeds.items()
        }
        return replace(self.full, columns={**self.full.columns, **columns})

    @classmethod
    def of(cls, table: Predictions) -> ShotHeads:
        """Read what ``table`` made."""
        plain = {name: one for name, one in table.columns.items() if not _COLUMN.fullmatch(name)}
        full = replace(table, columns=plain)
        few: dict[str, dict[int, Predictions]] = {}
        for name, column in table.columns.items():
            if found := _COLUMN.fullmatch(name):
                few.setdefault(found[1], {})[int(found[2])] = _with_values(full, column)
        return cls(full=full, few={shots: dict(sorted(few[shots].items())) for shots in sorted(few, key=int)})


def _lists(predictions: Predictions) -> pa.Array:
    values = predictions.values
    per_window = values.shape[1] if values.ndim == 2 else 1
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.LargeListArray.from_arrays(pa.array(predictions.windows * per_window), flat)


def _with_values(full: Predictions, column: pa.Array) -> Predictions:
    values: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False).reshape(full.values.shape)
    if full.score is None:
        return replace(full, predicted=values.astype(np.int16, copy=False))
    return replace(full, score=values.astype(np.float32, copy=False))


def passes_text(passes: Json) -> str:
    """Say in words from how many shots on a model passes the best control.

    >>> passes_text({"at": "10", "earliest": "1", "latest": None})
    'passes the best control from 10 shots on (95 % interval: 1 to more than was tried)'
    >>> passes_text({"at": None, "earliest": None, "latest": None})
    'does not pass the best control with the shots that were tried'
    """
    at, earliest, latest = (member(passes, name) for name in ("at", "earliest", "latest"))
    text = (
        f"passes the best control from {at} shots on"
        if at is not None
        else "does not pass the best control with the shots that were tried"
    )
    if at is None and earliest is None:
        return text
    return f"{text} (95 % interval: {earliest or NOT_TRIED} to {latest or NOT_TRIED})"
