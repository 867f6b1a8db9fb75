"""``bend-hf submit`` on a real Slurm: two nodes on the loopback interface, a killed worker, a drained node."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bend_hf.evaluation.predictions import read_predictions
from tests.slurm_cluster import SlurmCluster, why_not
from tests.tiny import write_data

ROOT = Path(__file__).resolve().parents[2]
TASK = "cpg_methylation"
EMBEDDED = ["--task", TASK, "--data", "sample", "--model", "bend-mini"]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(why_not() is not None, reason=why_not() or "a cluster can be started"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    one = SlurmCluster.start(tmp_path_factory.mktemp("slurm"))
    try:
        yield one
    finally:
        one.stop()


def run(cluster: SlurmCluster, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a folder, with the cluster's variables."""
    environment = {**cluster.environment(), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)


def bend_hf(cluster: SlurmCluster, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(cluster, folder, sys.executable, "-m", "bend_hf", *words)


def holder_of_a_shard(cache: Path, seconds: float) -> int:
    """Waits until some shards are finished and another one is being filled; returns the process that fills it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if len(list(cache.glob("*/shard-*.json"))) >= 3:
            for lock in cache.glob("*/*.lock"):
                with contextlib.suppress(OSError, ValueError):
                    return int(json.loads(lock.read_text())["pid"])
        time.sleep(0.01)
    raise AssertionError("no worker has filled a shard")


def shards(cache: Path) -> dict[str, str]:
    return {
        f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in cache.glob("*/*.arrow")
    }


def test_a_grid_survives_a_killed_worker_and_a_drained_node(cluster: SlurmCluster, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'bend-hf[cluster]'")
    written = ["--cache", "cache", "--out", "results", "--epochs", "1", "--seeds", "0", "--jobs", "jobs"]
    done = bend_hf(cluster, tmp_path, "submit", "run", *EMBEDDED, *written, "--nodes", "4")
    assert done.returncode == 0, done.stderr
    os.kill(holder_of_a_shard(tmp_path / "cache", 120), signal.SIGKILL)
    cluster.run("scontrol", "update", f"nodename={cluster.nodes[1]}", "state=drain", "reason=test")
    cluster.wait(240)
    cluster.run("scontrol", "update", f"nodename={cluster.nodes[1]}", "state=resume")

    status = bend_hf(cluster, tmp_path, "submit", "--status", "jobs")
    assert status.returncode == 0, status.stdout
    assert "done, 1 started again" in status.stdout
    attempts = [path.read_text().split()[0::3] for path in (tmp_path / "jobs" / "exits").iterdir()]
    assert ["137", "0"] in attempts
    assert [path.suffix for path in (tmp_path / "jobs").rglob("*") if path.suffix == ".pkl"] == []

    alone = bend_hf(cluster, tmp_path, "embed", *EMBEDDED, "--cache", "alone")
    assert alone.returncode == 0, alone.stderr
    assert shards(tmp_path / "cache") == shards(tmp_path / "alone")
    left = [path for path in (tmp_path / "cache").rglob("*") if ".lock" in path.name or path.suffix == ".part"]
    assert left == []
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "results").glob(f"{TASK}__*.json"))
    assert record["task"] == TASK
    assert (tmp_path / "results_report" / "index.html").is_file()


def test_a_worker_that_is_told_to_stop_frees_its_shard_and_goes_on_later(cluster: SlurmCluster, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'bend-hf[cluster]'")
    words = ["submit", "embed", *EMBEDDED, "--cache", "cache", "--jobs", "jobs", "--splits", "train"]
    assert bend_hf(cluster, tmp_path, *words, "--shard-mb", "2").returncode == 0
    holder_of_a_shard(tmp_path / "cache", 120)
    cluster.run("scancel", "--signal=TERM", "--me")  # to the worker and not to its script, as before a limit of time
    cluster.wait(240)
    (attempts,) = (path.read_text().split()[0::3] for path in (tmp_path / "jobs" / "exits").iterdir())
    assert attempts == ["143", "0"]
    (log,) = (tmp_path / "jobs" / "logs").glob("*_log.err")
    assert "terminated; finished work is kept" in log.read_text()
    assert "1 done, 1 started again" in bend_hf(cluster, tmp_path, "submit", "--status", "jobs").stdout


def test_two_nodes_train_what_one_process_trains(cluster: SlurmCluster, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", (TASK,), n=22)
    flags = ["--task", TASK, "--data", str(data), "--epochs", "2", "--batch-size", "5", "--learning-rate", "0.01"]
    script = str(ROOT / "accelerate_configs" / "slurm.sh")
    options = ["--gpus-per-node=0", "--cpus-per-task=1", "--output=log", f"--chdir={ROOT}"]
    asked = [*options, f"--output={tmp_path / 'log'}", script, *flags, "--out", str(tmp_path / "two")]
    done = run(cluster, tmp_path, "sbatch", "--nodes=2", *asked)
    assert done.returncode == 0, done.stderr
    cluster.wait(240)
    alone = run(cluster, tmp_path, sys.executable, "-m", "bend_hf.train", *flags, "--out", str(tmp_path / "one"))
    assert alone.returncode == 0, alone.stderr
    records = {}
    for name in ("one", "two"):
        paths = list((tmp_path / name).glob(f"{TASK}__*.json"))
        assert len(paths) == 1, (tmp_path / "log").read_text()[-3000:]
        records[name] = (json.loads(paths[0].read_text()), read_predictions(paths[0].with_suffix(".parquet")))
    (one, ours), (two, theirs) = records["one"], records["two"]
    assert (one["cost"]["processes"], two["cost"]["processes"]) == (1, 2)
    assert one["config"]["run_key"] == two["config"]["run_key"]
    for mine, other in zip(one["training"]["runs"][0]["history"], two["training"]["runs"][0]["history"], strict=True):
        assert other["loss"] == pytest.approx(mine["loss"], rel=1e-4)
    np.testing.assert_array_equal(theirs.item, ours.item)
    np.testing.assert_allclose(theirs.score, ours.score, atol=1e-4)
