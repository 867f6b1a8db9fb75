"""Controls on two processes: each is made once, every process has it, and none is made again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bend_hf.evaluation.predictions import read_predictions
from bend_hf.evaluation.record import ResultRecord, find_records, read_record
from tests.tiny import write_data

ROOT = Path(__file__).resolve().parents[2]
TASK = "cpg_methylation"
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
NAMES = {"cpg", "gc", "kmer", "onehot", "prevalence"}


def bend(data: Path, out: Path, *words: str, launcher: tuple[str, ...] = ()) -> str:
    """Runs a command, under a launcher or alone; gives what it says."""
    flags = ["--task", TASK, "--data", str(data), "--out", str(out), "--epochs", "1", "--batch-size", "4"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", *words, *flags, "--controls"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=6000,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controls")
    data = write_data(folder / "data", (TASK,), n=22)
    for name, launcher in (("one", ()), ("two", TWO)):
        bend(data, folder / name, "bend_hf.train", "--model", "basset-supervised", launcher=launcher)
    return folder


def by_model(out: Path) -> dict[str, tuple[Path, ResultRecord]]:
    found = [(path, read_record(path)) for path in find_records([out])]
    models = {str(record.model["model"]): (path, record) for path, record in found}
    assert len(models) == len(found), "a control was made twice"
    return models


def test_each_control_is_made_once_and_stands_beside_the_model(folder: Path) -> None:
    found = by_model(folder / "two")
    assert set(found) == NAMES | {"basset-supervised"}
    assert set(found["basset-supervised"][1].controls) == NAMES
    assert found["basset-supervised"][1].cost["processes"] == 2


def test_two_processes_make_the_controls_that_one_makes(folder: Path) -> None:
    one, two = by_model(folder / "one"), by_model(folder / "two")
    for name in NAMES - {"onehot"}:
        ours, theirs = (read_predictions(found[name][0].with_suffix(".parquet")) for found in (one, two))
        np.testing.assert_array_equal(theirs.item, ours.item)
        np.testing.assert_array_equal(theirs.score, ours.score)
        assert two[name][1].metrics == one[name][1].metrics


def test_a_second_model_makes_none_of_them_again(folder: Path) -> None:
    before = set(by_model(folder / "two"))
    said = bend(folder / "data", folder / "two", "bend_hf", "run", "--model", "onehot", launcher=TWO)
    assert set(by_model(folder / "two")) == before
    assert "was there" in said
