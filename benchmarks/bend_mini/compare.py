"""Collects what bend-mini and what it has to beat scored on real data of chromosome 20.

    make report-chr20 RESULTS=DIR
    python -m benchmarks.bend_mini.compare DIR [DIR2 ...]

Beside bend-mini stand the k-mer regression, one-hot letters and its random twin, each under the same head, and a twin
with evened rows where one was run (``evened_twin.py``); test rows
and variants lie in blocks that bend-mini never saw. Writes ``benchmarks/results/bend_mini_comparison.json``.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.bend_mini.evened_twin import FOLDER
from bend_hf.config import DEFAULT_MODEL
from bend_hf.evaluation.predictions import read_predictions
from bend_hf.evaluation.record import ResultRecord, find_records, read_record
from bend_hf.evaluation.uncertainty.comparison import compare
from bend_hf.files import start_logging
from bend_hf.publishing.report.plots import TaskScore, overview_text
from bend_hf.training.pretraining.summary import machine

RESULT: Final = Path(__file__).resolve().parents[1] / "results" / "bend_mini_comparison.json"

TASKS: Final = ("gene_finding", "chromatin_accessibility", "variant_effects_disease")
TWIN: Final = "Random twin"
EVENED: Final = "Random twin, evened"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A record, and the file of its predictions."""

    record: ResultRecord
    predictions: Path


def runs_of(folder: Path, task: str) -> dict[str, Run]:
    """The runs of a task by what the card calls them, bend-mini last; of two alike the later one."""
    found: dict[str, Run] = {}
    for path in sorted(find_records([folder])):
        record = read_record(path)
        name = name_of(record)
        if record.task == task and name:
            found[name] = Run(record=record, predictions=path.with_suffix(".parquet"))
    missing = {"one-hot", TWIN, DEFAULT_MODEL} - set(found)
    if missing and found:
        raise SystemExit(
            f"{folder} holds no run of {', '.join(sorted(missing))} on {task}; make report-chr20 makes them"
        )
    order = ("k-mers", "one-hot", TWIN, EVENED, DEFAULT_MODEL)
    return {name: found[name] for name in order if name in found}


def name_of(record: ResultRecord) -> str:
    """What the card calls a run; empty for one that it does not show."""
    model = record.model.get("model")
    if Path(str(record.model.get("checkpoint"))).name == FOLDER:
        return EVENED
    if model == DEFAULT_MODEL:
        return TWIN if record.model.get("random_init") else DEFAULT_MODEL
    return {"kmer": "k-mers", "onehot": "one-hot"}.get(str(model), "")


def difference(runs: dict[str, Run], twin: str) -> dict[str, Any] | None:
    """By how much the model is better than a twin on the same items; None where that was not run."""
    if twin not in runs:
        return None
    predictions = {name: read_predictions(runs[name].predictions) for name in (DEFAULT_MODEL, twin)}
    (one,) = compare(predictions, runs[DEFAULT_MODEL].record.main_metric, seed=0)
    sign = 1.0 if one.first == DEFAULT_MODEL else -1.0
    low, high = sorted((sign * one.low, sign * one.high))
    return {"difference": sign * one.difference, "low": low, "high": high, "p": one.p}


def table_entry(runs: dict[str, Run], scores: list[TaskScore]) -> dict[str, Any]:
    """What the card says of a task."""
    model = runs[DEFAULT_MODEL].record
    return {
        "metric": model.main_metric,
        "items": model.coverage["scored"],
        "probe": model.probe,
        "epochs": model.config.get("epochs"),
        "batch_size": model.config.get("batch_size"),
        "learning_rate": model.config.get("learning_rate"),
        "scores": [{"name": s.model, "value": s.value, "low": s.low, "high": s.high} for s in scores],
        "against_random_twin": difference(runs, TWIN),
        "against_evened_twin": difference(runs, EVENED),
    }


def main() -> None:
    """Reads the records, prints what they say and writes it down."""
    start_logging()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="folders of records, as make report-chr20 leaves one")
    tables, shown = [], []
    for folder in parser.parse_args().results:
        tasks: dict[str, Any] = {}
        for task in TASKS:
            runs = runs_of(folder, task)
            if runs:
                scores = [TaskScore.of(run.record, name) for name, run in runs.items()]
                shown += scores
                tasks[task] = table_entry(runs, scores)
        tables.append(tasks)
    print(overview_text(shown))
    body = {"tables": tables, "machine": machine(), "python": platform.python_version()}
    RESULT.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
