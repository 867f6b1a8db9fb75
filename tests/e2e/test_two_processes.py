"""Two processes give what one gives with the same batches, and no item twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bend_hf.evaluation.predictions import read_predictions
from bend_hf.training.kept_head import read_head
from tests.tiny import write_data

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("gene_finding", "cpg_methylation")


def train(launcher: list[str], data: Path, out: Path) -> None:
    """Trains under a launcher: 11 training items in batches of 5, so that shares are unequal, and one is empty."""
    flags = ["--task", *TASKS, "--data", str(data), "--out", str(out), "--epochs", "2", "--batch-size", "5"]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "bend_hf.train", *flags, "--learning-rate", "0.01"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=6000,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    data = write_data(folder / "data", TASKS, n=22)
    train([], data, folder / "one")
    train(["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"], data, folder / "two")
    return folder


def record(out: Path, task: str) -> tuple[dict[str, Any], Path]:
    (path,) = out.glob(f"{task}__*.json")
    return json.loads(path.read_text()), path


@pytest.mark.parametrize("task", TASKS)
def test_two_processes_learn_what_one_learns(task: str, folder: Path) -> None:
    one, two = record(folder / "one", task)[0], record(folder / "two", task)[0]
    assert (one["cost"]["processes"], two["cost"]["processes"]) == (1, 2)
    (ours,), (theirs,) = one["training"]["runs"], two["training"]["runs"]
    assert ours["best_epoch"] == theirs["best_epoch"]
    for mine, other in zip(ours["history"], theirs["history"], strict=True):
        assert other["loss"] == pytest.approx(mine["loss"], rel=1e-4)
        assert other["validation"] == pytest.approx(mine["validation"], abs=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_no_item_is_scored_twice_or_left_out(task: str, folder: Path) -> None:
    (one, path_one), (two, path_two) = record(folder / "one", task), record(folder / "two", task)
    assert two["coverage"] == one["coverage"]
    ours, theirs = (read_predictions(path.with_suffix(".parquet")) for path in (path_one, path_two))
    np.testing.assert_array_equal(theirs.item, ours.item)
    np.testing.assert_array_equal(theirs.target, ours.target)
    if ours.score is not None and theirs.score is not None:
        np.testing.assert_allclose(theirs.score, ours.score, atol=1e-4)


def test_one_key_whatever_the_number_of_processes(folder: Path) -> None:
    one, two = record(folder / "one", TASKS[0])[0], record(folder / "two", TASKS[0])[0]
    assert one["config"]["run_key"] == two["config"]["run_key"]


@pytest.mark.parametrize("task", TASKS)
def test_the_main_process_keeps_one_head_that_one_process_would_keep(task: str, folder: Path) -> None:
    paths = [record(folder / name, task)[1].with_suffix(".safetensors") for name in ("one", "two")]
    assert len(list((folder / "two").glob("*.safetensors"))) == len(TASKS)
    ours, theirs = (read_head(path) for path in paths)
    assert theirs.config == ours.config or theirs.config.validation == pytest.approx(ours.config.validation, abs=1e-3)
    for name, value in ours.tensors.items():
        np.testing.assert_allclose(theirs.tensors[name].numpy(), value.numpy(), atol=1e-3)
