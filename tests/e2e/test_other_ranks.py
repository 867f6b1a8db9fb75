"""A training that resumes with another number of processes learns what an undisturbed one learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bend_hf.evaluation.predictions import read_predictions
from tests.tiny import write_data

ROOT = Path(__file__).resolve().parents[2]
GENES = ("--task", "gene_finding", "--model", "onehot", "--epochs", "2", "--batch-size", "4", "--checkpoint-every", "1")


@pytest.mark.slow  # four processes that learn
def test_the_number_of_processes_may_change_between_two_lives(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", ["gene_finding"], n=20)
    more = {
        "whole": {},
        "changed": {"kills": [["step", 1], ["step", 2]], "lives_ranks": [2, 1, 2]},
    }
    trainings = [
        {
            "argv": [*GENES, "--data", str(data), "--out", str(tmp_path / name)],
            "environment": {"ACCELERATE_USE_CPU": "true"},
            **of,
        }
        for name, of in more.items()
    ]
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
    (whole_path,), (changed_path,) = (list((tmp_path / name).glob("*.json")) for name in more)
    whole, changed = json.loads(whole_path.read_text()), json.loads(changed_path.read_text())
    (one,), (other,) = whole["training"]["runs"], changed["training"]["runs"]
    assert (one["resumed_at_step"], other["resumed_at_step"]) == (None, 3)
    assert whole["coverage"] == changed["coverage"]
    for mine, its in zip(one["history"], other["history"], strict=True):
        assert its["loss"] == pytest.approx(mine["loss"], rel=1e-5)
        assert its["validation"] == pytest.approx(mine["validation"], abs=1e-3)
    items = [read_predictions(path.with_suffix(".parquet")).item.tolist() for path in (whole_path, changed_path)]
    assert items[0] == items[1]
    assert not (tmp_path / "changed" / ".checkpoints").exists()
