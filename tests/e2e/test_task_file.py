"""``--task my_task.py``: a task from a file outside the package, in every command that takes tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_data

MY_TASK = """
from dataclasses import replace

from bend_hf.tasks import TASKS as BEND_TASKS, Head

_HISTONE = BEND_TASKS.get("histone_modification")


def _task(key, names, window_bp):
    return replace(
        _HISTONE,
        key=key,
        group=key,
        window_bp=window_bp,
        label=replace(_HISTONE.label, names=names),
        head=Head("cnn", hidden=8, pool_bp=window_bp),
        citations=(),
    )


TASKS = (_task("motifs", ("cat", "tata"), 64), _task("repeats", ("line", "sine", "alu"), 96))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task file and the data of its tasks."""
    folder = tmp_path_factory.mktemp("task_file")
    (folder / "my_task.py").write_text(MY_TASK)
    write_data(folder / "data", [f"{folder / 'my_task.py'}:motifs", f"{folder / 'my_task.py'}:repeats"], n=24)
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False)


def record_in(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


TRAINING = ("--model", "onehot", "--epochs", "1", "--batch-size", "8", "--checkpoint-every", "1000")


def test_training_takes_a_task_file_and_a_bed(folder: Path) -> None:
    bed, genome = "data/motifs/motifs.bed", "data/genomes/genome.fa"
    flags = ("--bed", bed, "--genome", genome, "--out", "from_bed", *TRAINING)
    done = run(folder, "bend_hf.train", "--task", "my_task.py:motifs", *flags)
    assert done.returncode == 0, done.stderr
    record = record_in(folder / "from_bed")
    assert (record["task"], record["main_metric"]) == ("motifs", "auroc")
    assert set(record["metrics"]) == {"auroc", "auprc"}


def test_training_takes_a_task_file_and_a_data_folder(folder: Path) -> None:
    done = run(
        folder, "bend_hf.train", "--task", "my_task.py:repeats", "--data", "data", "--out", "from_folder", *TRAINING
    )
    assert done.returncode == 0, done.stderr
    assert record_in(folder / "from_folder")["task"] == "repeats"


def test_controls_take_a_task_file(folder: Path) -> None:
    flags = ("--data", "data", "--only", "gc", "--out", "controls")
    done = run(folder, "bend_hf", "controls", "--task", "my_task.py:motifs", *flags)
    assert done.returncode == 0, done.stderr
    assert "motifs" in done.stdout


def test_build_and_embed_take_a_task_file(folder: Path) -> None:
    done = run(folder, "bend_hf", "build", "my_task.py:motifs", "--data", "data", "--out", "bend")
    assert done.returncode == 0, done.stderr
    assert list((folder / "bend" / "motifs" / "data").glob("train-*.parquet"))
    flags = ("--data", "data", "--model", "bend-mini", "--cache", "embeddings")
    done = run(folder, "bend_hf", "embed", "--task", "my_task.py:motifs", *flags)
    assert done.returncode == 0, done.stderr
    assert list((folder / "embeddings").rglob("*.arrow"))


@pytest.mark.parametrize(
    ("task", "flags", "status", "message"),
    [
        ("my_task.py", (), 2, r"2 declarations in TASKS: motifs, repeats; choose one, for example"),
        ("my_task.py:motif", (), 2, "holds no task 'motif'; did you mean 'motifs'?"),
        (
            "my_task.py:motifs",
            (),
            1,
            "the bundled sample holds motifs; pass --data FOLDER, or --bed BED and --genome FASTA",
        ),
        ("my_task.py:motifs", ("--data", "sample"), 1, "the bundled sample does not hold motifs; pass --data FOLDER"),
        ("no_task.py", (), 2, "there is no file"),
    ],
)
def test_what_is_missing_is_said_before_anything_runs(
    folder: Path, tmp_path: Path, task: str, flags: tuple[str, ...], status: int, message: str
) -> None:
    (tmp_path / "my_task.py").write_text(MY_TASK)
    done = run(tmp_path, "bend_hf.train", "--task", task, *flags, *TRAINING)
    assert done.returncode == status
    assert message in done.stderr


def test_a_task_file_cannot_stand_in_for_a_task_of_bend(tmp_path: Path) -> None:
    (tmp_path / "my_task.py").write_text(MY_TASK.replace('"motifs"', '"gene_finding"'))
    done = run(tmp_path, "bend_hf.train", "--task", "my_task.py:gene_finding", *TRAINING)
    assert done.returncode == 2
    assert "the key of another registered task; give it another key" in done.stderr
