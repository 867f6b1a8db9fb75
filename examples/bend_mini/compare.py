"""Compare bend-mini with its controls on real data of chromosome 20.

    make report-chr20 RESULTS=DIR
    python -m examples.bend_mini.compare DIR [DIR2 ...]

The controls are k-mer regression, one-hot, random weights and, if it was run, random weights with whitening (see
``whitened_control.py``), each under the same head. Test rows and variants lie in blocks that bend-mini never saw.
Writes ``benchmarks/results/bend_mini_comparison.json``.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bend_hf.config import DEFAULT_MODEL
from bend_hf.evaluation.predictions import read_predictions
from bend_hf.evaluation.record import ResultRecord, find_records, read_record
from bend_hf.evaluation.uncertainty.comparison import compare
from bend_hf.files import start_logging, write_text
from bend_hf.publishing.overview import Overview, TaskScore
from bend_hf.training.pretraining.summary import machine
from examples.bend_mini.whitened_control import FOLDER

RESULT: Final = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "bend_mini_comparison.json"

TASKS: Final = ("gene_finding", "chromatin_accessibility", "variant_effects_disease")
RANDOM: Final = "random weights"
WHITENED: Final = "random weights, whitened"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A record and the file of its predictions."""

    record: ResultRecord
    predictions: Path


def runs_of(folder: Path, task: str) -> dict[str, Run]:
    """The runs of a task by their names in the card, bend-mini last; of two with one name the later counts."""
    found: dict[str, Run] = {}
    for path in sorted(find_records([folder])):
        record = read_record(path)
        name = name_of(record)
        if record.task == task and name:
            found[name] = Run(record=record, predictions=path.with_suffix(".parquet"))
    missing = {"one-hot", RANDOM, DEFAULT_MODEL} - set(found)
    if missing and found:
        raise SystemExit(
            f"{folder} holds no run of {', '.join(sorted(missing))} on {task}; run make report-chr20 first"
        )
    order = ("k-mers", "one-hot", RANDOM, WHITENED, DEFAULT_MODEL)
    return {name: found[name] for name in order if name in found}


def name_of(record: ResultRecord) -> str:
    """The name of a run in the card; empty if the card does not show it."""
    model = record.model.get("model")
    if Path(str(record.model.get("checkpoint"))).name == FOLDER:
        return WHITENED
    if model == DEFAULT_MODEL:
        return RANDOM if record.model.get("random_init") else DEFAULT_MODEL
    return {"kmer": "k-mers", "onehot": "one-hot"}.get(str(model), "")


def difference(runs: dict[str, Run], control: str) -> dict[str, float] | None:
    """Score of bend-mini minus that of a control on the same items; None if the control was not run."""
    if control not in runs:
        return None
    predictions = {name: read_predictions(runs[name].predictions) for name in (DEFAULT_MODEL, control)}
    (one,) = compare(predictions, runs[DEFAULT_MODEL].record.main_metric)
    sign = 1.0 if one.first == DEFAULT_MODEL else -1.0
    low, high = sorted((sign * one.low, sign * one.high))
    return {"difference": sign * one.difference, "low": low, "high": high, "p": one.p}


def table_entry(runs: dict[str, Run], scores: list[TaskScore]) -> dict[str, Any]:
    """The fields of the card for one task."""
    model = runs[DEFAULT_MODEL].record
    return {
        "metric": model.main_metric,
        "items": model.coverage["scored"],
        "probe": model.probe,
        "epochs": model.config.get("epochs"),
        "batch_size": model.config.get("batch_size"),
        "learning_rate": model.config.get("learning_rate"),
        "scores": [{"name": s.model, "value": s.value, "low": s.low, "high": s.high} for s in scores],
        "against_random_twin": difference(runs, RANDOM),
        "against_evened_twin": difference(runs, WHITENED),
    }


def main() -> None:
    """Compare the runs, print the scores and write the results."""
    start_logging()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="result folders of make report-chr20")
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
    print(Overview(scores=tuple(shown)).text())
    body = {"tables": tables, "machine": machine(), "python": platform.python_version()}
    write_text(RESULT, json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
