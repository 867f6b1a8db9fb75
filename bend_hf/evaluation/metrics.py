"""Loads the metrics that travel with the package, and scores predictions with them.

>>> score("mcc", predictions=[0, 1, 1, 0], references=[0, 1, 1, -100]).value
1.0
"""

from __future__ import annotations

import math
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from numpy.typing import ArrayLike

from bend_hf.errors import RegistryError, did_you_mean
from bend_hf.files import asset_folder
from bend_hf.types import IGNORE_LABEL

if TYPE_CHECKING:
    import evaluate

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of one set of predictions.

    Args:
        metric: Name of the metric, for example ``mcc``.
        value: The number that stands for it; nan where nothing could be scored.
        detail: All else that the metric gives, such as the value of each label, as JSON; None stands for nan.
    """

    metric: str
    value: float
    detail: dict[str, JSON]


def metric_names() -> list[str]:
    """Names of all metrics, sorted: each is a folder that holds a script of its own name."""
    return sorted(script.stem for script in asset_folder("metrics").glob("*/*.py") if script.stem == script.parent.name)


def _metric_folder(name: str) -> Path:
    known = metric_names()
    if name not in known:
        raise RegistryError(f"unknown metric {name!r}; {did_you_mean(name, known)}")
    return asset_folder("metrics") / name


def load_metric(name: str) -> evaluate.Metric:
    """A new metric, empty, from the copy that travels with the package; no network is used.

    Many processes may load at once: ``evaluate`` copies the script into its module cache under a lock and by
    the hash of its content, and our metrics write nothing else there.

    Raises:
        RegistryError: There is no metric of that name; the message names the nearest.
    """
    folder = _metric_folder(name)
    import evaluate

    experiment = f"{name}-{os.getpid()}-{uuid.uuid4().hex}"  # names no file that another process uses
    return evaluate.load(str(folder), module_type="metric", experiment_id=experiment)


def score(
    metric_name: str,
    predictions: ArrayLike,
    references: ArrayLike,
    *,
    names: Sequence[str] | None = None,
) -> Score:
    """Score predictions with one metric; references of -100 are left out.

    Args:
        metric_name: One of ``metric_names()``.
        predictions: Class numbers or scores, the shape that the metric takes: any shape for ``mcc``, (items,)
            or (items, labels) for the others.
        references: Labels of the same shape.
        names: Names of the classes or labels, in order.

    Raises:
        RegistryError: There is no metric of that name.
        ValueError: Predictions or references are not what the metric takes; the message says where.
    """
    result = load_metric(metric_name).compute(
        predictions=predictions, references=references, ignore_index=IGNORE_LABEL, names=names
    )
    value = float(result.pop(next(iter(result))))  # the first entry stands for the metric
    return Score(metric=metric_name, value=value, detail={key: _without_nan(item) for key, item in result.items()})


def _without_nan(item: JSON) -> JSON:
    """The same with None for nan, which JSON lacks."""
    if isinstance(item, float) and math.isnan(item):
        return None
    if isinstance(item, list):
        return [_without_nan(part) for part in item]
    return item


def write_metric_folders(out: Path) -> list[Path]:
    """Copy each metric to ``out/<name>/``, so that ``evaluate.load("<out>/<name>")`` finds it there.

    A folder that is not there yet appears whole. In one that is, files that differ are replaced one by one, and
    files of other names stay. A second call changes nothing.

    Returns:
        The folders, in the order of their names.
    """
    out.mkdir(parents=True, exist_ok=True)
    return [_write_folder(_metric_folder(name), out / name) for name in metric_names()]


def _write_folder(source: Path, target: Path) -> Path:
    staged = target.with_name(f".{target.name}.{uuid.uuid4().hex}")  # on the same file system, for the renames
    try:
        shutil.copytree(source, staged, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        if not _rename_if_free(staged, target):
            for file in sorted(path.relative_to(staged) for path in staged.rglob("*") if path.is_file()):
                there = target / file
                if not (there.is_file() and there.read_bytes() == (staged / file).read_bytes()):
                    there.parent.mkdir(parents=True, exist_ok=True)
                    (staged / file).replace(there)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target


def _rename_if_free(staged: Path, target: Path) -> bool:
    """Whether the folder could take its place, because nothing or an empty folder was there."""
    try:
        staged.rename(target)
    except OSError:
        if target.is_dir():
            return False
        raise
    return True
