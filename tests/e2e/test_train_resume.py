"""A run that is killed with SIGKILL, again and again, ends in the bits of the run that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tiny import write_data

ROOT = Path(__file__).resolve().parents[2]
GENES = ("--task", "gene_finding", "--model", "onehot", "--epochs", "3", "--batch-size", "2", "--schedule", "cosine")
BASSET = ("--task", "cpg_methylation", "--model", "basset-supervised", "--epochs", "2", "--batch-size", "3")
FOLDS = (
    *("--task", "enhancer_annotation", "--fold", "1", "2", "--model", "onehot"),
    *("--head", "linear", "--epochs", "1", "--batch-size", "4"),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training, where its lives end, and the steps that lie behind each fold in the last one."""

    flags: tuple[str, ...]
    kills: tuple[tuple[str, int], ...]
    resumed_at: tuple[str, ...]


CASES = {
    "genes": Case(
        flags=GENES,
        kills=(("step", 3), ("step", 7), ("rename", 2), ("epoch", 1), ("record", 1)),
        resumed_at=("15",),
    ),
    "dropout_and_batch_norm": Case(flags=BASSET, kills=(("step", 3), ("rename", 1), ("step", 4)), resumed_at=("6",)),
    "folds": Case(flags=FOLDS, kills=(("step", 3), ("step", 5)), resumed_at=("4", "2")),
}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a training left."""

    weights: tuple[str, ...]
    resumed_at: tuple[str, ...]
    metrics: object
    predictions: str
    history: list[tuple[float, float]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of every case, ``<case>-whole`` and ``<case>-killed``."""
    folder = tmp_path_factory.mktemp("lives")
    data = write_data(folder / "data", ["gene_finding", "cpg_methylation", "enhancer_annotation"], n=20)
    trainings = []
    for name, case in CASES.items():
        for what, kills in (("whole", ()), ("killed", case.kills)):
            out = folder / f"{name}-{what}"
            argv = [*case.flags, "--data", str(data), "--out", str(out), "--checkpoint-every", "2"]
            trainings.append({"kills": kills, "argv": argv})
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.lives", json.dumps(trainings)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def read(out: Path) -> Ended:
    (path,) = out.glob("*.json")
    record = json.loads(path.read_text())
    lines = [line.split() for line in (out / "weights.txt").read_text().splitlines()]
    return Ended(
        weights=tuple(weights for weights, _ in lines),
        resumed_at=tuple(step for _, step in lines),
        metrics=[record["metrics"], record["folds"]],
        predictions=record["predictions"]["sha256"],
        history=[(e["loss"], e["validation"]) for r in record["training"]["runs"] for e in r["history"]],
    )


@pytest.mark.parametrize("name", CASES)
def test_killed_and_resumed_is_equal_to_the_bit(name: str, folder: Path) -> None:
    whole, killed = read(folder / f"{name}-whole"), read(folder / f"{name}-killed")
    assert set(whole.resumed_at) == {"None"}
    assert killed.resumed_at == CASES[name].resumed_at
    assert killed.weights == whole.weights
    assert killed.metrics == whole.metrics
    assert killed.predictions == whole.predictions
    assert killed.history == whole.history


@pytest.mark.parametrize("name", CASES)
def test_no_checkpoint_is_left_once_the_record_is_written(name: str, folder: Path) -> None:
    assert not (folder / f"{name}-killed" / ".checkpoints").exists()
