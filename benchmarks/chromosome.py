"""Keep what ``make report-chr20`` found for the tables of one chromosome in README.md and docs/controls.md.

    make report-chr20 MODELS=bend-mini
    python -m benchmarks.chromosome chr20_results

Reads the records and predictions in the folder and writes ``benchmarks/results/chromosome.json``: each score with its
interval and its mark by a paired test, and the structure of the genes. Nothing is computed on the models again;
intervals are those of this release, from the predictions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from bend_hf.evaluation.evidence import read_all_verified
from bend_hf.evaluation.predictions import Predictions, read_predictions
from bend_hf.evaluation.record import ResultRecord, find_records, member
from bend_hf.evaluation.uncertainty.intervals import interval_of
from bend_hf.publishing.gene_tables import HEADER, gene_row
from bend_hf.publishing.leaderboard import control_provenances
from bend_hf.publishing.overview import Overview
from bend_hf.publishing.results import group_records
from bend_hf.runs.controls import CONTROLS
from bend_hf.tables import text_table

RESULT: Final = Path(__file__).resolve().parent / "results" / "chromosome.json"


def name_of(record: ResultRecord) -> str:
    """Return what the tables call the model or control of a record."""
    model = str(record.model["model"])
    if record.is_control:
        return CONTROLS.get(model).title
    if record.model.get("random_init"):
        return "random weights"
    if record.config.get("decode") == "grammar":
        return f"{model}, whole genes"
    return "one-hot" if model == "onehot" else model


def is_control(record: ResultRecord) -> bool:
    """Return whether a record is of something that a model should beat."""
    return record.is_control or bool(record.model.get("random_init")) or record.model["model"] == "onehot"


def read(folder: Path) -> tuple[list[tuple[ResultRecord, str, bool]], dict[tuple[str, str], Predictions]]:
    """Return the records of a folder with their names, and their predictions by task and name.

    Raises:
        SystemExit: Two records of a task have one name.
    """
    paths = find_records([folder])
    results, predictions = [], {}
    for path, record in zip(paths, read_all_verified(paths), strict=True):
        name = name_of(record)
        if (record.task, name) in predictions:
            raise SystemExit(f"{folder} holds several records of {name} on {record.task}; leave one")
        own = read_predictions(path.parent / str(member(record.predictions, "file")))
        results.append((with_interval(record, own), name, is_control(record)))
        predictions[record.task, name] = own
    return results, predictions


def with_interval(record: ResultRecord, predictions: Predictions) -> ResultRecord:
    """Return the record with the interval of its main metric computed again."""
    main = record.metrics[record.main_metric]
    if not isinstance(main, dict):
        return record
    interval = interval_of(predictions.answered, record.main_metric).as_json()
    return replace(record, metrics={**record.metrics, record.main_metric: {**main, "interval": interval}})


def gene_rows(results: Sequence[tuple[ResultRecord, str, bool]]) -> list[list[str]]:
    """Return the rows of the table of gene structure."""
    rows = (gene_row(name, record.metrics) for record, name, _ in results)
    return [list(row) for row in rows if row is not None]


def main() -> None:
    """Read the folder, print the scores and write the result."""
    parser = argparse.ArgumentParser(description="Keep what make report-chr20 found.")
    parser.add_argument("folder", type=Path, help="its folder of records")
    results, predictions = read(parser.parse_args().folder)
    results.sort(key=lambda one: (one[0].task, one[2], one[1].casefold()))
    overview = Overview.of(results, predictions)
    made = {
        "overview": json.loads(overview.json()),
        "items": {record.task: record.coverage["scored"] for record, _, _ in results},
        "genes": {"header": list(HEADER), "rows": gene_rows(results)},
        "provenances": control_provenances(group_records([record for record, _, _ in results])),
    }
    RESULT.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    print(overview.text())
    print(text_table(list(HEADER), gene_rows(results)))


if __name__ == "__main__":
    main()
