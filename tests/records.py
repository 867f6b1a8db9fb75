"""Result records for tests, valid by the published schema, and the check against that schema.

>>> record().value
0.8
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jsonschema
import numpy as np

from bend_hf.evaluation.record import ResultRecord, write_record
from bend_hf.evaluation.record_schema import SCHEMA_FILE
from bend_hf.files import asset_folder, file_name
from bend_hf.tasks import TASKS
from bend_hf.types import Json

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CREATED_WITH: dict[str, Json] = {"bend_hf": "0.1.0", "python": "3.11.7", "git_commit": COMMIT, "platform": "Linux"}


def record(
    task: str = "chromatin_accessibility",
    model: str = "dnabert2",
    value: float | None = 0.8,
    *,
    interval: tuple[float, float] | Literal["around"] | None = "around",
    seed: int = 0,
    protocol: str = "bend-2024",
    origin: str = "hub",
    controls: dict[str, float] | None = None,
    family: str = "DNABERT-2",
    n_parameters: int = 117_068_544,
    items: int = 1000,
    **changes: Any,
) -> ResultRecord:
    """A record that may be published: scored on a dataset of the Hub, at the task's own settings.

    Args:
        interval: Ends of the interval; ``around`` for 0.02 on each side of the value.
        changes: Fields that differ, as ``dataclasses.replace`` takes them.
    """
    spec = TASKS.get(task)
    training = spec.training
    if interval == "around":
        interval = None if value is None or not math.isfinite(value) else _around(value)
    made = ResultRecord(
        task=task,
        protocol=protocol,
        model={
            "model": model,
            "family": family,
            "checkpoint": "zhihan1996/DNABERT-2-117M",
            "revision": "7bce263b15377fc15361f52cfab88f8b586abda0",
            "width": 768,
            "n_parameters": n_parameters,
            "context_tokens": 512,
            "tokenization": "BPE",
            "direction": "masked",
            "training_data": "135 genomes",
            "license": "Apache-2.0",
            "paper": "https://arxiv.org/abs/2306.15006",
            "protocol": protocol,
            "layer": -1,
            "dtype": "float32",
            "random_init": False,
            "reverse_complement_average": False,
        },
        data={
            "origin": origin,
            "assembly": spec.assembly,
            "files": {"bed": {"sha256": "a" * 64}, "genome": {"sha256": "b" * 64}},
            "items": {"train": 3000, "validation": 500, "test": items},
            "changes": {
                "out_of_bounds": "error",
                "rows_padded": 0,
                "rows_dropped_out_of_bounds": 0,
                "rows_dropped_ref_mismatch": 0,
            },
            **({"repo": f"bend/{spec.group}", "revision": COMMIT} if origin == "hub" else {}),
        },
        config={
            "task": [task],
            "data": "hub",
            "protocol": protocol,
            "model": model,
            "out": "results",
            "seed": seed,
            "epochs": training.epochs if training else None,
            "batch_size": training.batch_size if training else None,
            "learning_rate": training.learning_rate if training and protocol == "bend-2024" else None,
            "weight_decay": training.weight_decay if training else None,
            "fold": [],
            "mixed_precision": "no",
        },
        metrics={
            spec.metric: {
                "value": value,
                "interval": None
                if interval is None
                else {"low": interval[0], "high": interval[1], "level": 0.95, "method": "bootstrap over items"},
                "detail": {"per_label": [0.9, 0.7, None], "n_positive": [10, 20, 0], "names": ["a|b", "c", "<d>"]},
            },
            "auprc": {"value": 0.4, "detail": {"chance": 0.1}},
        },
        main_metric=spec.metric,
        coverage={"scored": items, "items": items, "windows": items, "item_sha256": "c" * 64},
        training=None
        if training is None
        else {
            "head": {"kind": "CnnSpec", "hidden": 64},
            "loss": {"kind": "TrainingSpec", "loss": training.loss},
            "runs": [{"fold": None, "best_epoch": 17, "history": [], **_searched_run(protocol)}],
            **({} if protocol == "bend-2024" else {"search": SEARCH}),
        },
        folds=[],
        cost={"seconds": 120.5, "peak_memory_bytes": 831_737_856, "device": "cpu", "processes": 1},
        predictions={},
        controls={
            name: {"metrics": {spec.metric: {"value": score}}} for name, score in sorted((controls or {}).items())
        },
        created_at="2026-01-31T12:00:00Z",
        created_with=CREATED_WITH,
    )
    return replace(made, **changes)


SEARCH: dict[str, Json] = {
    "values": {"hidden": [8, 64], "learning_rate": [0.0003, 0.001, 0.003]},
    "by": "auroc on the validation split",
    "trials": 6,
}


def _searched_run(protocol: str) -> dict[str, Json]:
    """What a record keeps of a training under the protocol that searches."""
    if protocol == "bend-2024":
        return {}
    chosen: dict[str, Json] = {"hidden": 64, "learning_rate": 0.001}
    return {"rows": 3000, "batch_size": 256, "learning_rate": 0.001, "epochs": 100, "steps": 1200, "chosen": chosen}


def _around(value: float) -> tuple[float, float]:
    lowest = 0.0 if value >= 0 else -1.0
    return max(round(value - 0.02, 9), lowest), min(round(value + 0.02, 9), 1.0)


def write(folder: Path, *records: ResultRecord) -> Path:
    """Writes records into a folder, numbered."""
    folder.mkdir(parents=True, exist_ok=True)
    first = len(list(folder.glob("*.json")))
    for number, made in enumerate(records, start=first):
        write_record(made, folder / f"{made.task}__{number}__seed{made.config['seed']}__20260131T120000.json")
    return folder


def write_with_predictions(folder: Path, made: ResultRecord, *, seed: int = 0, items: int = 60) -> Path:
    """Writes a record of a task with one score per item, and predictions that give its values.

    Returns:
        The prediction file; the record lies next to it.
    """
    from bend_hf.evaluation.metrics import score
    from bend_hf.evaluation.predictions import Predictions, write_predictions

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    target = (np.arange(items) % 2).astype(np.int16)
    predictions = Predictions(
        item=np.arange(items),
        windows=np.arange(items + 1),
        target=target,
        score=(target + rng.normal(size=items)).astype(np.float32),
        predicted=None,
        label_names=("no", "yes"),
    )
    name = f"{made.task}__{file_name(str(made.model['model']))}__seed{made.config['seed']}__20260131T120000"
    digest = write_predictions(predictions, folder / f"{name}.parquet")
    assert predictions.score is not None
    metrics: dict[str, Json] = {
        metric: {"value": score(metric, predictions.score, target).value} for metric in ("auroc", "auprc")
    }
    coverage: dict[str, Json] = {"scored": items, "items": items, "windows": items}
    coverage |= {"item_sha256": predictions.item_sha256, "identity": "content"}
    entry: dict[str, Json] = {"file": f"{name}.parquet", "sha256": digest, "items": items}
    write_record(
        replace(made, metrics=metrics, coverage=coverage, predictions=entry, controls={}), folder / f"{name}.json"
    )
    return folder / f"{name}.parquet"


def several() -> list[ResultRecord]:
    """Four models on three tasks under two protocols, with a tie, a missing interval and controls."""
    models: tuple[tuple[str, str, int], ...] = (
        ("onehot", "one-hot", 0),
        ("dnabert2", "DNABERT-2", 117_068_544),
        ("hyenadna-tiny-1k", "HyenaDNA", 436_800),
    )
    models = (*models, ("nt_transformer_ms", "Nucleotide Transformer", 2_547_800_585))
    found = []
    for t, task in enumerate(("chromatin_accessibility", "gene_finding", "variant_effects_disease")):
        for p, protocol in enumerate(("bend-2024", "bend-hf-1")):
            for m, (model, family, size) in enumerate(models):
                value = 0.55 + 0.08 * m - 0.05 * t + 0.01 * p - (0.07 if m == 3 and t == 1 else 0.0)
                found.append(
                    record(
                        task,
                        model,
                        value,
                        interval=None if m == 0 and t == 2 else (value - 0.02, value + 0.025),
                        protocol=protocol,
                        family=family,
                        n_parameters=size,
                        controls={"GC content": 0.52, "k-mer logistic regression": 0.6 - 0.05 * t},
                        cost={"seconds": 40.0 * (m + 1) ** 3, "device": "cpu", "processes": 1},
                    )
                )
    return found


@cache
def schema() -> dict[str, Any]:
    """The schema as it is published."""
    text = (asset_folder("model_cards") / SCHEMA_FILE).read_text(encoding="utf-8")
    body: dict[str, Any] = json.loads(text)
    return body


def schema_errors(body: object) -> list[str]:
    """Where a record breaks the published schema."""
    jsonschema.Draft202012Validator.check_schema(schema())
    return [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(schema()).iter_errors(body)
    ]
