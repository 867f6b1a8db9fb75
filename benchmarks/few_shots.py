"""Measure what a curve over few rows costs against separate trainings, and what a report on both strands costs.

    python -m benchmarks.few_shots
    python -m benchmarks.few_shots --chr20 ../shared/data/chr20 --genome GRCh37.fa

Prints a table and writes ``benchmarks/results/few_shots.json``. The first part trains heads on the bundled sample with
bend-mini: all heads of a curve together, and each head by itself with ``fit`` and ``predict`` on the same cached
embeddings; both must give the same predictions. The second part embeds and predicts the test split, and then the other
strand of it with its report. Both ways of a part are measured by turns in one process; the best of the rounds counts,
by the time of the processor and by the clock. With ``--chr20``, the curves of bend-mini with its controls and of a BERT
with 12 layers and random weights on the data of one chromosome are recorded too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from datasets import Dataset
from torch import nn

from benchmarks.chromosome_layers import bert_folder
from bend_hf.config import RunConfig
from bend_hf.data.shots import ShotRows, seeds_of_shots
from bend_hf.embedders.cache import CacheSettings, open_embeddings
from bend_hf.embedders.token_embeddings import Targets
from bend_hf.evaluation.predictions import Predictions
from bend_hf.files import write_text
from bend_hf.runs.few_shots import FewShotTraining, PickedRows, train_few
from bend_hf.runs.run import ModelRun, model_run, open_embedder, prepare, run
from bend_hf.runs.strand_report import StrandReport, dataset_of_other_strand, predict_both, report_of_folds
from bend_hf.runs.train_head import few_shot_training, open_fold
from bend_hf.training.batches import Split
from bend_hf.training.checkpoints import load_trained
from bend_hf.training.head_trainer import HeadData, fit
from bend_hf.training.heads import build_head, pooled_bp
from bend_hf.training.losses import build_loss
from bend_hf.training.predict import predict
from bend_hf.training.recipe import trials_of

RESULTS: Final = Path(__file__).resolve().parent / "results" / "few_shots.json"
SHOTS: Final = ("1", "10", "100")
ROUNDS: Final = 2
ROWS: Final = 120  # of each split of the sample
CURVE: Final[dict[str, Any]] = {  # the settings of `make report-chr20`
    "task": "chromatin_accessibility",
    "shots": "1,10,100,1000,all",
    "head": "linear",
    "epochs": 20,
    "batch_size": 64,
    "learning_rate": 0.01,
}


def timed(function: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Call a function; return what it returned, and its seconds by the processor and by the clock."""
    clock, processor = time.perf_counter(), time.process_time()
    found = function()
    return found, {"processor": time.process_time() - processor, "clock": time.perf_counter() - clock}


def least(times: list[dict[str, float]]) -> dict[str, float]:
    """Return the least time of several rounds, of each kind."""
    return {kind: min(one[kind] for one in times) for kind in times[0]}


def model_on_sample(folder: Path, task: str) -> ModelRun:
    """Return a run of bend-mini on the sample, without its head trained."""
    config = RunConfig(
        task=task, data="sample", limit=ROWS, epochs=10, seeds=(0,), out=folder / "out", cache=folder / "cache"
    )
    (prepared,) = prepare(config)
    return model_run(prepared, open_embedder(config))


def apart(training: FewShotTraining) -> dict[str, dict[int, Predictions]]:
    """Train and test each head by itself, as separate runs do."""
    found: dict[str, dict[int, Predictions]] = {}
    (trial,) = training.trials
    for shots in SHOTS:
        for seed in seeds_of_shots(shots):
            few = {}
            for name in ("train", "validation"):
                whole = training.splits[name]
                rows = ShotRows.of(whole.dataset, training.label, seed).rows(shots)
                dataset = whole.dataset.select(rows)
                few[name] = Split(
                    dataset=dataset,
                    embeddings=PickedRows(whole.embeddings, rows),
                    targets=Targets(dataset, training.label),
                )
            head = training.build(trial.head, seed)

            def validate(module: nn.Module, split: Split = few["validation"]) -> float | None:
                return training.score(predict(module, split, training.accelerator, batch_size=training.batch_size))

            data = HeadData(train=few["train"], loss=training.loss, validate=validate)
            fitted = fit(head, data, training.config_of(trial, seed, len(few["train"])), training.accelerator)
            load_trained(head, fitted.state)
            found.setdefault(shots, {})[seed] = predict(
                head, training.splits["test"], training.accelerator, batch_size=training.batch_size
            )
    return found


def measure_curve(folder: Path) -> dict[str, Any]:
    """Time the heads of a curve together and apart."""
    one = model_on_sample(folder, "chromatin_accessibility")
    training = few_shot_training(
        one, open_fold(one, None, "benchmark"), trials_of(one.head, {}, one.config.learning_rate)
    )
    together, separate, differences = [], [], []
    for place in range(ROUNDS):
        few, seconds = timed(lambda place=place: train_few(replace(training, checkpoints=folder / f"c{place}"), SHOTS))
        together.append(seconds)
        alone, seconds = timed(lambda: apart(training))
        separate.append(seconds)
        differences += [
            float(np.abs(few.predictions[shots][seed].values - own.values).max())
            for shots, seeds in alone.items()
            for seed, own in seeds.items()
        ]
    times = {"together": least(together), "apart": least(separate)}
    return {
        "task": one.data.task.key,
        "shots": list(SHOTS),
        "heads": sum(len(seeds_of_shots(shots)) for shots in SHOTS),
        "epochs": one.config.epochs,
        "largest_difference": max(differences),
        **times,
        "ratio": {kind: times["together"][kind] / times["apart"][kind] for kind in times["apart"]},
    }


def measure_strands(folder: Path) -> dict[str, Any]:
    """Time a pass over the test split, and the report on the other strand, each with embeddings of its own."""
    one = model_on_sample(folder, "chromatin_accessibility")
    task, test = one.data.task, one.data.subsets["test"]
    loss = build_loss("bce", positive_weight=None)
    head = build_head(one.head, one.embedder.width, len(task.label_names))

    def test_pass(dataset: Dataset, cache: Path) -> Predictions:
        source = open_embeddings(
            [dataset],
            one.embedder,
            CacheSettings(folder=cache, pool_bp=pooled_bp(one.head)),
            accelerator=one.accelerator,
            label="test",
        )
        split = Split(dataset=dataset, embeddings=source, targets=Targets(dataset, task.label))
        return predict(head, split, one.accelerator, batch_size=256, values_of=loss.predict)

    passes, reports = [], []
    test_pass(test.select(range(32)), folder / "warm")
    for place in range(ROUNDS):
        forward, seconds = timed(lambda place=place: test_pass(test, folder / f"f{place}"))
        passes.append(seconds)

        def report(place: int = place, forward: Predictions = forward) -> StrandReport:
            other = dataset_of_other_strand(task, test)
            both = predict_both(task, lambda _: forward, lambda _: test_pass(other, folder / f"r{place}"))
            return report_of_folds([(None, both)], task)

        reports.append(timed(report)[1])
    times = {"test_pass": least(passes), "report": least(reports)}
    return {
        "task": task.key,
        "rows": len(test),
        **times,
        "ratio": {kind: times["report"][kind] / times["test_pass"][kind] for kind in times["report"]},
    }


def curve(data: Path, genome: Path, folder: Path) -> dict[str, Any]:
    """Draw the curves of bend-mini with its controls, and of a random BERT, on the data of one chromosome."""
    files = {"bed": data / f"{CURVE['task']}.bed", "genome": genome}
    config = RunConfig(**CURVE, **files, seeds=(0,), out=folder / "curve", cache=folder / "cache", strand_report=True)
    ((mini,), seconds) = timed(lambda: run(config))
    checkpoint = str(bert_folder(folder / "random_bert"))
    random = replace(config, model="dnabert6", checkpoint=checkpoint, random_init=True, controls=False)
    ((bert,), random_seconds) = timed(lambda: run(random))
    controls = {key: entry["shots"] for key, entry in mini.record.controls.items() if "shots" in entry}
    return {
        **CURVE,
        "metric": mini.record.main_metric,
        "seconds": seconds,
        "shots_entry": mini.record.shots,
        "controls": controls,
        "strands": mini.record.strands,
        "random_12_layers": {"seconds": random_seconds, "shots_entry": bert.record.shots},
    }


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--chr20", type=Path, help="folder of the data of one chromosome")
    parser.add_argument("--genome", type=Path, help="its FASTA file, not compressed")
    parser.add_argument("--only-curve", action="store_true", help="keep what was measured before")
    given = parser.parse_args()
    result: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not given.only_curve:
            result |= {"curve": measure_curve(folder / "curve"), "strands": measure_strands(folder / "strands")}
        if given.chr20 is not None:
            result["chr20"] = curve(given.chr20, given.genome, folder)
    result["machine"] = {"processor": platform.machine(), "cores": os.cpu_count(), "shared": True}
    write_text(RESULTS, json.dumps(result, indent=2) + "\n")
    for part in ("curve", "strands"):
        print(part, {kind: round(value, 3) for kind, value in result.get(part, {}).get("ratio", {}).items()})


if __name__ == "__main__":
    main()
