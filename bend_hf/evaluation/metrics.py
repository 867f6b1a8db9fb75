"""Load metrics, score predictions with them, and write each metric as a Space of the Hub.

A metric is a folder of two files: ``<name>/<name>.py``, a module for ``evaluate.load``, and its card ``README.md``.
The module may declare four constants: ``MAIN``, the name of the result that stands for the metric; ``PERFECT``, the
best value of it; ``HIGHER_IS_BETTER``; and ``RANGE``, the lowest and the highest value that it can have. Metrics come
from the folder ``metrics/``, from plug-ins, or from a path.

>>> score("mcc", predictions=[0, 1, 1, 0], references=[0, 1, 1, -100]).value
1.0
"""

from __future__ import annotations

import ast
import inspect
import math
import os
import re
import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bend_hf.errors import ConfigError, RecordError, RegistryError, did_you_mean
from bend_hf.evaluation.evaluate_import import load_evaluate
from bend_hf.evaluation.predictions import has_label
from bend_hf.evaluation.record import jsonable
from bend_hf.files import asset_folder, disk_error, explain_write_errors, file_sha256, json_sha256
from bend_hf.registry import plugin_modules
from bend_hf.tasks._labels import MultiLabel, RealValues
from bend_hf.types import IGNORE_LABEL, Ints, Json
from bend_hf.user_code import forget, identity_of

if TYPE_CHECKING:
    import evaluate

    from bend_hf.tasks._spec import TaskSpec

_Numbers: TypeAlias = NDArray[np.generic]
_NOT_COUNTED: Final = frozenset({"README.md", "app.py", "requirements.txt"})


@dataclass(frozen=True, kw_only=True)
class Score:
    """The result of one metric.

    Args:
        metric: Name of the metric, for example ``mcc``.
        value: The value that stands for the metric; nan if nothing could be scored.
        detail: The other results, for example the value of each label, as JSON. None stands for nan.
    """

    metric: str
    value: float
    detail: dict[str, Json]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Where rows of labels begin and end, for metrics that compare intervals.

    Args:
        lengths: Labels of each row, shape (rows,).
        sequence: The nucleotides of all rows as bytes, shape (labels,); None if they are not known.
    """

    lengths: Ints
    sequence: NDArray[np.uint8] | None = None


def metric_names(*, plugins: bool = True) -> list[str]:
    """List the names of all metrics, sorted.

    Args:
        plugins: Whether to include the metrics of plug-ins.
    """
    return sorted(_folders(plugins=plugins))


def metric_folder(metric: str) -> Path:
    """Find the folder of a metric.

    Args:
        metric: Name of a metric, or path of a metric folder.

    Raises:
        RegistryError: The name is unknown, or the path is not a metric folder.
    """
    known = _folders()
    if metric in known:
        return known[metric]
    folder = Path(metric).expanduser()
    if folder.name == metric and not folder.is_dir():
        raise RegistryError(f"unknown metric {metric!r}; {did_you_mean(metric, sorted(known))}")
    folder = folder.resolve()
    if not _script(folder).is_file():
        raise RegistryError(
            f"{metric} is not a metric folder; expected the module {folder.name}/{folder.name}.py in it. "
            f"Give such a folder, or one of {', '.join(sorted(known))}"
        )
    if folder.name in known and folder != known[folder.name].resolve():
        raise RegistryError(f"{metric} has the name of the metric {folder.name!r} of bend_hf; give the folder another")
    return folder


def metric_name(metric: str) -> str:
    """Give the name of a metric, as records call it.

    Args:
        metric: Name of a metric, or path of a metric folder.

    Raises:
        RegistryError: As for ``metric_folder``.
    """
    return metric_folder(metric).name


def metric_identity(metric: str) -> str:
    """Give the name of a metric, with the hash of its code and files if the metric is not one of ``metrics/``.

    The code is that of the module and of what it imports; the files are those of its folder, except for its card and
    the page that shows it.

    Args:
        metric: Name of a metric, or path of a metric folder.

    Raises:
        RegistryError: As for ``metric_folder``.
    """
    folder = metric_folder(metric)
    own = folder.name not in metric_names(plugins=False)
    if not own:
        return folder.name
    code = identity_of(type(load_metric(metric)))
    return f"{folder.name}@{json_sha256([code, _files_sha256(folder)])}"


def _files_sha256(folder: Path) -> str:
    """Hash the files of a metric that affect its values."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path: path.relative_to(folder) for path in paths}
    counted: list[Json] = [
        [name.as_posix(), file_sha256(path)]
        for path, name in names.items()
        if name.as_posix() not in _NOT_COUNTED and not any(_is_left_out(part) for part in name.parts)
    ]
    return json_sha256(counted)


@cache
def metric_range(metric: str) -> tuple[float, float] | None:
    """Give the ``RANGE`` that a metric declares, without running its module; None if it declares none.

    Args:
        metric: Name of a metric, as records call it.
    """
    folder = _folders().get(metric)
    tree = ast.parse(_script(folder).read_text(encoding="utf-8")) if folder is not None else ast.Module([], [])
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "RANGE" for t in node.targets):
            low, high = ast.literal_eval(node.value)
            return float(low), float(high)
    return None


def load_metric(metric: str) -> evaluate.Metric:
    """Load a metric, without a network.

    Many processes may load at once: ``evaluate`` copies the module into its cache under a lock, by its content. A copy
    that was interrupted is made again. The modules of ``metrics/`` are read once in a process.

    Args:
        metric: Name of a metric, or path of a metric folder.

    Raises:
        RegistryError: As for ``metric_folder``.
    """
    folder = metric_folder(metric)
    own = folder.name not in metric_names(plugins=False)
    experiment = f"{folder.name}-{os.getpid()}-{uuid.uuid4().hex}"  # names no file that another process uses
    if folder in _kinds:
        kind, content = _kinds[folder]
        return kind(experiment_id=experiment, hash=content)
    earlier = _own_metrics.get(folder) if own else None
    if earlier is not None and not earlier.is_current(folder):
        forget(earlier.kind)
    _drop_unfinished_copies(folder)
    loaded = load_evaluate().load(str(folder), module_type="metric", experiment_id=experiment)
    if own:
        _own_metrics[folder] = _OwnMetric(
            kind=type(loaded), files=_files_sha256(folder), code=identity_of(type(loaded))
        )
    else:
        _kinds[folder] = type(loaded), loaded._hash
    return loaded


def _drop_unfinished_copies(folder: Path) -> None:
    """Remove copies that a full disk or a kill cut short; `evaluate` takes whatever has their name."""
    load_evaluate()  # any other import of it would also import its evaluators
    from evaluate.config import HF_MODULES_CACHE

    copies = Path(HF_MODULES_CACHE) / "evaluate_modules" / "metrics" / folder.name
    if _unfinished_copies(folder, copies):
        from evaluate.loading import FileLock  # under which it copies

        with FileLock(f"{copies}.lock"):
            for path in _unfinished_copies(folder, copies):
                path.unlink()


def _unfinished_copies(folder: Path, copies: Path) -> list[Path]:
    """Files of the cache that hold the beginning of a file of the metric, and no more."""
    found = []
    for copy in copies.glob("*/"):
        for path in copy.rglob("*"):
            source = folder / path.relative_to(copy)
            if not (path.is_file() and source.is_file() and path.stat().st_size < source.stat().st_size):
                continue
            if source.read_bytes().startswith(path.read_bytes()):
                found.append(path)
    return found


@dataclass(frozen=True, kw_only=True)
class _OwnMetric:
    """The class of a user's metric, with the checksums of its files and its code when it was loaded."""

    kind: type
    files: str
    code: str

    def is_current(self, folder: Path) -> bool:
        """Whether its module need not be run again; `evaluate` runs it once in a process."""
        return self.files == _files_sha256(folder) and self.code == identity_of(self.kind)


_own_metrics: dict[Path, _OwnMetric] = {}
# The class of each metric of ``metrics/`` that is loaded, and what evaluate calls the hash of its module. evaluate.load
# searches the module for imports each time, which takes longer than most metrics.
_kinds: dict[Path, tuple[type[evaluate.Metric], str]] = {}


def check_metrics(task: TaskSpec) -> None:
    """Check that the metrics of a task can score its predictions, before anything expensive starts.

    Raises:
        ConfigError: The module of a metric fails on import, a metric does not take the labels of the task, or the main
            metric is better when it is lower.
        RegistryError: As for ``metric_folder``.
    """
    for metric in task.metrics:
        folder = metric_folder(metric)
        try:
            loaded = load_metric(metric)
        except Exception as error:  # a user's module may raise anything
            if disk_error(error) is not None:
                raise
            raise ConfigError(f"{_script(folder)} fails on import with {error!r}; correct the module") from error
        if metric == task.metric and _declared(loaded, "HIGHER_IS_BETTER") is False:
            raise ConfigError(
                f"metric {folder.name} is better when it is lower, but epochs and models are ranked by the highest "
                "value; choose another main metric and report this one in addition"
            )
        predictions, references = _example_of(task)
        names = None if predictions.ndim == 1 and predictions.dtype.kind == "f" else task.label_names
        try:
            score(metric, predictions, references, names=names)
        except Exception as error:
            if disk_error(error) is not None:
                raise
            why = _why_not(loaded, predictions, task) or error
            raise ConfigError(f"metric {folder.name} cannot score {task.key}: {why}") from error


def _why_not(metric: evaluate.Metric, predictions: _Numbers, task: TaskSpec) -> str:
    """Say that a metric takes scores and a task gives classes, or the other way; empty if that is not why it fails."""
    takes_classes = _PlainMetric(metric, "", {}).takes_classes_only
    if takes_classes == (predictions.dtype.kind != "f"):
        return ""
    takes, gives = ("classes", "scores") if takes_classes else ("scores", "classes")
    other = "pearsonr" if isinstance(task.label, RealValues) else "auroc" if takes_classes else "mcc"
    return f"it takes {takes}, but the predictions are {gives}; choose another, such as {other}"


def _example_of(task: TaskSpec) -> tuple[_Numbers, _Numbers]:
    """Predictions and labels of four items, in the form that a head or a variant score of the task gives them."""
    labels = np.array([0, 1, 0, 1], np.int16)
    if isinstance(task.label, RealValues):
        values = np.tile(np.array([-1.5, 0.25, 2.0, 30.0], np.float32)[:, None], len(task.label_names))
        return values, values
    if isinstance(task.label, MultiLabel):
        labels = np.tile(labels[:, None], len(task.label_names))
    elif task.variant is None and task.n_outputs > 1:
        return labels, labels
    return np.where(labels, np.float32(0.75), np.float32(0.25)), labels


def score(
    metric: str,
    predictions: ArrayLike,
    references: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    rows: Rows | None = None,
) -> Score:
    """Score predictions with one metric. Class numbers of -100 are not scored, and neither are real values of nan.

    A metric gets the arguments ``ignore_index``, ``names``, ``lengths`` and ``sequence`` only if it takes them. For a
    metric without ``ignore_index``, items without a reference are dropped first. If such a metric takes one number per
    item and there are several labels, each label is scored by itself and the value is the mean over the labels.

    Args:
        metric: Name of a metric, or path of a metric folder.
        predictions: Class numbers or scores, in the shape that the metric takes: any shape for ``mcc``, (items,)
            or (items, labels) for the other metrics of ``metrics/``.
        references: Labels of the same shape.
        names: Names of the classes or labels, in order.
        rows: Where rows begin and end; by default all labels belong to one row.

    Raises:
        RegistryError: As for ``metric_folder``.
        ConfigError: The metric takes classes but the predictions are scores, or it cannot leave out ignored labels.
        ValueError: The metric does not take these predictions or references; the message is the metric's own.
    """
    loaded, name = load_metric(metric), metric_name(metric)
    takes = _arguments(loaded)
    given = {"names": names} | ({} if rows is None else {"lengths": rows.lengths, "sequence": rows.sequence})
    options: dict[str, object] = {name: value for name, value in given.items() if name in takes}
    if "ignore_index" not in takes:
        return _PlainMetric(loaded, name, options).score(np.asarray(predictions), np.asarray(references))
    options["ignore_index"] = None if np.asarray(references).dtype.kind == "f" else IGNORE_LABEL
    return _score_of(loaded, name, loaded.compute(predictions=predictions, references=references, **options))


def _folders(*, plugins: bool = True) -> dict[str, Path]:
    """The folder of each metric by name."""
    found = {folder.name: folder for folder in asset_folder("metrics").iterdir() if _script(folder).is_file()}
    for folder in _plugin_folders() if plugins else ():
        if folder.name in found:
            raise RegistryError(f"{folder} of a plug-in has the name of another metric; give the folder another name")
        found[folder.name] = folder
    return found


@cache
def _plugin_folders() -> tuple[Path, ...]:
    """The metric folders that the modules of plug-ins list in ``METRICS``."""
    return tuple(Path(folder) for module in plugin_modules() for folder in getattr(module, "METRICS", ()))


def _script(folder: Path) -> Path:
    return folder / f"{folder.name}.py"


def _arguments(metric: evaluate.Metric) -> frozenset[str]:
    """The names of the arguments that a metric takes: of its ``compute`` if it has its own, else of ``_compute``."""
    kind = type(metric)
    own = kind.compute is not load_evaluate().EvaluationModule.compute
    return frozenset(inspect.signature(kind.compute if own else kind._compute).parameters)


def _score_of(metric: evaluate.Metric, name: str, result: Mapping[str, Any]) -> Score:
    """The score in the result of ``compute``."""
    main = str(_declared(metric, "MAIN") or (name if name in result else next(iter(result), None)))
    if main not in result:
        raise ConfigError(f"metric {name} gives {sorted(result)}, not {main!r}; set MAIN in {name}.py to one of them")
    detail = {key: jsonable(item) for key, item in result.items() if key != main}
    return Score(metric=name, value=float(result[main]), detail=detail)


def _declared(metric: evaluate.Metric, constant: str) -> object:
    """A constant of the module of a metric; None if it has none of that name."""
    return getattr(sys.modules[type(metric).__module__], constant, None)


class _PlainMetric:
    """A metric that knows no ``ignore_index``, such as one from the template of ``evaluate``.

    Args:
        metric: The loaded metric.
        name: Its name.
        options: Further arguments for its ``compute``.
    """

    def __init__(self, metric: evaluate.Metric, name: str, options: Mapping[str, object]) -> None:
        import datasets

        features = metric.features if isinstance(metric.features, list) else [metric.features]
        self.metric, self.name, self.options = metric, name, options
        self.takes_rows = any(not isinstance(one["predictions"], datasets.Value) for one in features)
        kinds = [one["predictions"].dtype for one in features if isinstance(one["predictions"], datasets.Value)]
        self.takes_classes_only = bool(kinds) and all(re.match("u?int|bool", kind) for kind in kinds)

    def score(self, predicted: _Numbers, true: _Numbers) -> Score:
        """Score the items whose reference is not ignored.

        Args:
            predicted: Shape (items,) or (items, labels).
            true: The same shape.
        """
        scored = has_label(true)
        if predicted.shape != true.shape:
            raise ConfigError(f"predictions have shape {predicted.shape}, references {true.shape}; expected the same")
        if predicted.dtype.kind == "f" and self.takes_classes_only:
            raise ConfigError(f"metric {self.name} takes class numbers, but the predictions are scores; use another")
        if predicted.dtype.kind == "f" and np.isnan(predicted[scored]).any():
            raise RecordError(f"the predictions for metric {self.name} hold nan; find out why")
        if true.ndim > 1 and not self.takes_rows:
            return self._mean_over_labels(predicted, true)
        whole = scored if true.ndim == 1 else scored.all(axis=-1)
        if true.ndim > 1 and (scored.any(axis=-1) & ~whole).any():
            raise ConfigError(f"metric {self.name} takes no ignore_index, but some labels of an item are ignored")
        if not whole.any():
            return Score(metric=self.name, value=math.nan, detail={})
        result = self.metric.compute(predictions=predicted[whole], references=true[whole], **self.options)
        return _score_of(self.metric, self.name, result)

    def _mean_over_labels(self, predicted: _Numbers, true: _Numbers) -> Score:
        values = [self.score(predicted[:, label], true[:, label]).value for label in range(true.shape[1])]
        defined = [value for value in values if math.isfinite(value)]
        return Score(
            metric=self.name,
            value=math.fsum(defined) / len(defined) if defined else math.nan,
            detail={"per_label": jsonable(values), "n_labels_left_out": len(values) - len(defined)},
        )


def metric_files(metric: str) -> dict[str, bytes]:
    """Give the files of a metric's Space on the Hub by path: its own, the demo page and the requirements.

    ``app.py`` is the same for all metrics. ``requirements.txt`` names what the module imports.

    Args:
        metric: Name of a metric, or path of a metric folder.

    Raises:
        RegistryError: As for ``metric_folder``.
    """
    folder = metric_folder(metric)
    own = {}
    for path in filter(Path.is_file, folder.rglob("*")):
        name = path.relative_to(folder)
        if not any(_is_left_out(part) for part in name.parts):
            own[name.as_posix()] = path.read_bytes()
    made = {
        "app.py": (asset_folder("metrics") / "app.py").read_bytes(),
        "requirements.txt": _requirements(_script(folder)).encode(),
    }
    return dict(sorted({**made, **own}.items()))


def _is_left_out(part: str) -> bool:
    """Whether a part of a path says that a file is no part of a metric."""
    return part == "__pycache__" or part.startswith(".")


def _requirements(script: Path) -> str:
    """The packages that a module imports, one per line, with the lower bounds of bend_hf."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.add(str(node.module).partition(".")[0])
    packages = _packages_of_modules()
    names = {packages.get(module, [module])[0] for module in imported - sys.stdlib_module_names}
    bounds = _lower_bounds()
    return "".join(f"{name}{bounds.get(name, '')}\n" for name in sorted(names, key=str.lower))


@cache
def _packages_of_modules() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()  # reads the file list of every installed package: seconds


def _lower_bounds() -> dict[str, str]:
    """The lower bound of each package that bend_hf requires, such as ``>=2.0``."""
    try:
        required = metadata.requires("bend_hf") or ()
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return {}
    found = (re.match(r"([\w.-]+).*?(>=[\w.]+)", line) for line in required)
    return {match[1]: match[2] for match in found if match}


def write_metric_folders(out: Path) -> list[Path]:
    """Write each metric of ``metrics/`` as ``out/<name>/``, so that ``evaluate.load("<out>/<name>")`` finds it.

    A new folder appears whole. In an existing folder, files that differ are replaced one by one, and files of other
    names stay. A second call changes nothing.

    Returns:
        The folders, sorted by name.

    Raises:
        RecordError: A folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name in metric_names(plugins=False):
        with explain_write_errors(out / name):
            written.append(_write_folder(metric_files(name), out / name))
    return written


def _write_folder(files: Mapping[str, bytes], target: Path) -> Path:
    # on the same file system, so that it can be renamed
    staged = target.with_name(f".{target.name}.part{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        for name, content in files.items():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).write_bytes(content)
        if not _rename_if_free(staged, target):
            for name, content in files.items():
                present = target / name
                if not (present.is_file() and present.read_bytes() == content):
                    present.parent.mkdir(parents=True, exist_ok=True)
                    (staged / name).replace(present)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target


def _rename_if_free(staged: Path, target: Path) -> bool:
    """Whether the staged folder could take its place: nothing or an empty folder was there."""
    try:
        staged.rename(target)
    except OSError:
        if target.is_dir():
            return False
        raise
    return True
