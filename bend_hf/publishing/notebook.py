"""Evaluate a model in one call, as in a notebook, and look at the results.

    results = bend_hf.evaluate("dnabert2", ["gene_finding", "cpg_methylation"], data="data")
    results                                   # a table, in a notebook an HTML table
    results.to_dataframe(), results.plot(), results.predictions("gene_finding")
    results.compare(bend_hf.evaluate("onehot", "gene_finding", data="data"))

>>> class Purines:
...     def embed(self, sequences):
...         return [[[letter in "AG"] for letter in sequence] for sequence in sequences]
>>> isinstance(as_embedder(Purines()), str), as_embedder("onehot")
(False, 'onehot')
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from bend_hf.config import RunConfig, flags_of
from bend_hf.errors import ConfigError, did_you_mean
from bend_hf.evaluation.predictions import Predictions, read_predictions
from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.runs.controls import CONTROLS
from bend_hf.runs.outcome import Outcome, outcome_table
from bend_hf.runs.run import run
from bend_hf.tables import INVISIBLE, metric_title
from bend_hf.types import Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders.user_model import EmbedFunction, UserModel
    from bend_hf.evaluation.uncertainty.comparison import Comparison

    Model: TypeAlias = str | Path | Embedder | UserModel | EmbedFunction

# What `evaluate` has a parameter of its own for.
_TAKEN: Final = frozenset({"model", "task", "limit", "controls", "seed", "seeds", "device", "cache", "out", "force"})


def evaluate(  # noqa: PLR0913 every parameter is one that users of a notebook set, all but two by name
    model: Model,
    tasks: str | Path | Sequence[str | Path],
    *,
    limit: int | None = None,
    controls: bool = False,
    seeds: int | Sequence[int] | None = None,
    device: str | None = None,
    cache: str | Path | None = None,
    out: str | Path = "results",
    force: bool = False,
    **settings: Any,  # noqa: ANN401 checked against the fields of RunConfig
) -> Results:
    """Evaluate a model on tasks of BEND or of your own, and write one result record for each task and seed.

    A run that has a record in ``out`` already is not repeated.

    Args:
        model: A key of ``bend_hf.MODELS``, a Hub name, a folder, a ``.py`` file, an embedder, an object with ``embed``,
            or a function like it; see ``bend_hf.embedders.user_model``.
        tasks: Tasks, or groups of them. ``bend_hf.TASKS`` lists them; a path names a file that declares one.
        limit: Use only this many items of each split, to try things out. Such a score cannot be published.
        controls: Whether to score the controls too.
        seeds: One seed or several; None for 0, 1 and 2 if the scores can be published, else 0.
        device: Such as ``cpu`` or ``cuda:1``; None chooses it.
        cache: Folder of the embeddings; None for the default below ``$BEND_HF_CACHE``.
        out: Folder of the records and predictions.
        force: Whether to run again what has a record already.
        settings: Any other field of ``bend_hf.RunConfig``, such as ``data``, ``head``, ``epochs`` or ``layer``.

    Raises:
        ConfigError: A setting is unknown or does not fit.
        BendError: An input is bad. Nothing was trained in that case.
    """
    known = sorted(set(flags_of(RunConfig)) - _TAKEN)
    for name in settings:
        if name not in known:
            raise ConfigError(f"evaluate has no setting {name!r}; {did_you_mean(name, known)}")
    given = as_embedder(model)
    chosen = () if seeds is None else (seeds,) if isinstance(seeds, int) else tuple(seeds)
    if seeds is not None and not chosen:
        raise ConfigError("seeds is empty; give at least one seed")
    config = RunConfig(
        **settings,
        model=given if isinstance(given, str) else given.name,
        task=tuple(map(str, (tasks,) if isinstance(tasks, str | Path) else tasks)),
        limit=limit,
        controls=controls,
        seeds=chosen,
        device=device,
        cache=None if cache is None else Path(cache),
        out=Path(out),
        force=force,
    )
    return Results(outcomes=tuple(run(config, None if isinstance(given, str) else given)))


def as_embedder(model: Model) -> str | Embedder:
    """Return a name as it is, and an object or a function as an embedder.

    Raises:
        ConfigError: The object has no ``embed`` and cannot be called.
    """
    if isinstance(model, str | Path):
        return str(model)
    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders.user_model import UserEmbedder

    if isinstance(model, Embedder):
        return model
    if isinstance(model, type):
        raise ConfigError(f"the model is the class {model.__name__}; give an object of it: {model.__name__}()")
    if not callable(getattr(model, "embed", model)):
        raise ConfigError(
            f"a {type(model).__name__} is not a model; give a name, a path, an object with embed(sequences), or a "
            "function"
        )
    return UserEmbedder(model)


@dataclass(frozen=True, kw_only=True, repr=False)
class Results:
    """The results of one model: one record for each task and seed.

    Attributes:
        outcomes: The finished runs.
    """

    outcomes: tuple[Outcome, ...]

    @property
    def records(self) -> list[ResultRecord]:
        """The result records."""
        return [outcome.record for outcome in self.outcomes]

    @property
    def scores(self) -> dict[str, float | None]:
        """The main metric by task: the mean over the seeds; None if it is undefined for one."""
        found: dict[str, float | None] = {}
        for task in dict.fromkeys(record.task for record in self.records):
            values = [record.value for record in self.records if record.task == task]
            known = [value for value in values if value is not None]
            found[task] = sum(known) / len(known) if len(known) == len(values) else None
        return found

    def __repr__(self) -> str:
        return outcome_table(self.outcomes)

    def _repr_html_(self) -> str:
        columns = ("task", "model", "metric", "value", "low", "high", "items", "seed", "data")
        rows = self._rows()
        head = "".join(f"<th>{name}</th>" for name in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{_cell(row.get(name))}</td>" for name in columns) + "</tr>" for row in rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def to_dataframe(self) -> DataFrame:
        """Return one row for each record and control: task, model, metric, value, interval, and how it was run."""
        from pandas import DataFrame

        return DataFrame(self._rows())

    def predictions(self, task: str | None = None, *, seed: int | None = None) -> Predictions:
        """Read the predictions of a task.

        Args:
            task: Task key; None if there is one task.
            seed: Seed of the run; None for the first.

        Raises:
            ConfigError: There is no such run, or several tasks and none is named.
        """
        outcome = self._outcome(task, seed)
        return read_predictions(outcome.path.with_suffix(".parquet"))

    def compare(self, other: Results) -> list[Comparison]:
        """Compare with the results of another model on the same items, by a paired test for each task of both.

        With several seeds, the variation between the trainings of a model counts.

        Raises:
            ConfigError: The two have no task in common.
            BendError: The items differ.
        """
        from bend_hf.evaluation.uncertainty.comparison import compare

        tasks = [task for task in self.scores if task in other.scores]
        if not tasks:
            raise ConfigError(f"no task in common: {', '.join(self.scores)}, and {', '.join(other.scores)}")
        found = []
        for task in tasks:
            ours, theirs = self._outcome(task, None), other._outcome(task, None)
            names = [str(outcome.record.model.get("model")) for outcome in (ours, theirs)]
            if names[0] == names[1]:
                names = [f"{names[0]} (1)", f"{names[1]} (2)"]
            models = dict(zip(names, (self._trainings(task), other._trainings(task)), strict=True))
            found += compare(models, ours.record.main_metric)
        return found

    def plot(self, title: str | None = None) -> Figure:
        """Draw the scores of all tasks, with their intervals and controls.

        Raises:
            ConfigError: Matplotlib is not installed.
        """
        from bend_hf.publishing.overview import Overview, TaskScore

        scores = []
        for record in self.records:
            scores.append(TaskScore.of(record, _name(record)))
            scores += [
                TaskScore(
                    task=record.task,
                    metric=record.main_metric,
                    model=str(row["model"]),
                    value=row["value"] if isinstance(row["value"], float) else None,
                    low=None,
                    high=None,
                    is_control=True,
                )
                for row in _control_rows(record)
            ]
        return Overview(scores=tuple(scores)).figure(title or "Scores on BEND's tasks")

    def push_to_hub(self, namespace: str, *, repo: str = "bend_results", public: bool = False) -> str:
        """Push the records and their predictions to a dataset repository.

        Args:
            namespace: User or organization on the Hub.
            repo: Name of the repository.
            public: Whether to make it public.

        Returns:
            Address of the commit.

        Raises:
            RecordError: A score may not be published; the message says why.
            HubError: The Hub refused, or cannot be reached.
        """
        from bend_hf.publishing.hub import push
        from bend_hf.publishing.uploads import plan_results

        plan = plan_results([outcome.path for outcome in self.outcomes], f"{namespace}/{repo}")
        (pushed,) = push([plan], public=public)
        return pushed.url

    def _rows(self) -> list[dict[str, Json]]:
        """Return the rows of all records, then those of the controls; one that no seed changes stands there once."""
        rows, shown = [_row(record) for record in self.records], set()
        for record in self.records:
            for row in _control_rows(record):
                key = tuple(row[name] for name in ("task", "model", "value"))
                if key not in shown:
                    shown.add(key)
                    rows.append(row)
        return rows

    def _trainings(self, task: str) -> list[Predictions]:
        """Read the predictions of all trainings on a task."""
        paths = [outcome.path for outcome in self.outcomes if outcome.record.task == task]
        return [read_predictions(path.with_suffix(".parquet")) for path in paths]

    def _outcome(self, task: str | None, seed: int | None) -> Outcome:
        if task is None and len(self.scores) > 1:
            raise ConfigError(f"the results are of {len(self.scores)} tasks; name one of {', '.join(self.scores)}")
        for outcome in self.outcomes:
            if task in (None, outcome.record.task) and seed in (None, outcome.record.config.get("seed")):
                return outcome
        place = f"task {task!r}" + ("" if seed is None else f" and seed {seed}")
        raise ConfigError(f"there is no run of {place}; there are runs of {', '.join(self.scores)}")


def _name(record: ResultRecord) -> str:
    return str(record.model.get("model"))


def _row(record: ResultRecord) -> dict[str, Json]:
    """Return the score of a record as one row of a table."""
    low, high = (member(record.metrics, record.main_metric, "interval", end) for end in ("low", "high"))
    return {
        "task": record.task,
        "model": _name(record),
        "metric": metric_title(record.main_metric),
        "value": record.value,
        "low": low,
        "high": high,
        "items": record.coverage.get("scored"),
        "seed": record.config.get("seed"),
        "head": record.probe,
        "protocol": record.protocol,
        "data": record.data.get("origin"),
        "control": record.is_control,
        "seconds": member(record.cost, "seconds"),
    }


def _control_rows(record: ResultRecord) -> list[dict[str, Json]]:
    """Return the scores of a record's controls as rows of a table."""
    rows = []
    for key in record.controls:
        metrics = member(record.controls, key, "metrics")
        low, high = (member(metrics, record.main_metric, "interval", end) for end in ("low", "high"))
        rows.append(
            {
                **_row(record),
                "model": CONTROLS.get(key).title if key in CONTROLS else key,
                "value": member(metrics, record.main_metric, "value"),
                "low": low,
                "high": high,
                "head": None,
                "control": True,
                "seconds": None,
            }
        )
    return rows


def _cell(value: Json) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else html.escape(INVISIBLE.sub("\ufffd", str(value)))
