"""``bend-hf submit`` on a real Slurm: two nodes on the loopback interface, workers that die, a drained node."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from bend_hf.cli._main import main
from bend_hf.evaluation.predictions import read_predictions
from bend_hf.files import file_sha256
from bend_hf.runs.cluster.submission import read_submission
from tests.slurm_cluster import SlurmCluster, why_not
from tests.tiny import write_bed, write_data, write_genome

ROOT = Path(__file__).resolve().parents[2]
TASK = "cpg_methylation"
EMBEDDED = ["--task", TASK, "--data", "sample", "--model", "bend-mini"]
PATIENCE_S = 600  # ends a run that hangs; a slow machine fails no test
T = TypeVar("T")

# A model that waits in the middle of a shard as long as the file $GATE exists, so that no clock decides what a worker
# does. The sequences that identify a model are embedded without a lease, and pass.
GATED = """
import json
import os
import time
from pathlib import Path

import numpy as np


def holds_a_shard(gate):
    for lock in gate.parent.glob("cache/*/*.lock"):
        try:
            if json.loads(lock.read_text())["pid"] == os.getpid():
                return True
        except (OSError, ValueError):
            continue
    return False


def embed(sequences):
    gate = Path(os.environ["GATE"])
    while gate.exists() and holds_a_shard(gate):
        time.sleep(0.05)
    return [np.eye(4, dtype=np.float32)[["ACGT".index(letter) for letter in one]] for one in sequences]
"""

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "a cluster can be started")
needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="submitit is not installed: pip install 'bend-hf[cluster]'"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    one = SlurmCluster.start(tmp_path_factory.mktemp("slurm"))
    try:
        yield one
    finally:
        one.stop()


def environment_of(cluster: SlurmCluster) -> dict[str, str]:
    """Variables of the cluster, and of jobs that import this checkout."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**cluster.environment(), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def run(cluster: SlurmCluster, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a folder, with the cluster's variables."""
    return subprocess.run(
        words, cwd=folder, env=environment_of(cluster), capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


def bend_hf(cluster: SlurmCluster, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(cluster, folder, sys.executable, "-m", "bend_hf", *words)


@pytest.fixture
def here(cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which this process itself is a client of the cluster."""
    for name, value in environment_of(cluster).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def until(found: Callable[[], T], what: str) -> T:
    """Waits until something is there, and returns it."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if one := found():
            return one
        time.sleep(0.05)
    raise AssertionError(f"{what}: not after {PATIENCE_S} s")


@dataclass(frozen=True)
class Holder:
    """A process that fills a shard."""

    pid: int
    node: str
    job: str


def holders(cache: Path) -> list[Holder]:
    """The processes that fill shards now, each with its node and its job."""
    found = []
    for lock in sorted(cache.glob("*/*.lock")):
        with contextlib.suppress(OSError, ValueError):
            pid = int(json.loads(lock.read_text())["pid"])
            pairs = (one.partition("=") for one in Path(f"/proc/{pid}/environ").read_text().split("\0"))
            of = {name: value for name, _, value in pairs}
            job = f"{of['SLURM_ARRAY_JOB_ID']}_{of['SLURM_ARRAY_TASK_ID']}"
            found.append(Holder(pid, of["SLURMD_NODENAME"], job))
    return found


def attempts(jobs: Path, job: str) -> list[tuple[int, str]]:
    """The exit status and the node of each attempt of a job."""
    lines = (jobs / "exits" / job).read_text().splitlines()
    return [(int(line.split()[0]), line.split()[2]) for line in lines]


def shards(cache: Path) -> dict[str, str]:
    return {f"{path.parent.name}/{path.name}": file_sha256(path) for path in cache.glob("*/*.arrow")}


@needs_submitit
@pytest.mark.slow
def test_a_grid_survives_a_killed_worker_a_requeued_one_and_a_drained_node(
    cluster: SlurmCluster, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three workers are stopped in the middle of a shard each: one is killed, one is preempted, one goes on."""
    first, second = cluster.nodes
    data = str(write_data(here / "data", (TASK,), n=24))
    (here / "gated.py").write_text(GATED)
    gate = here / "gate"
    gate.touch()
    monkeypatch.setenv("GATE", str(gate))
    embedded = ["--task", TASK, "--data", data, "--model", "gated.py"]
    written = ["--cache", "cache", "--out", "results", "--epochs", "1", "--seeds", "0", "--jobs", "jobs"]
    assert main(["submit", "run", *embedded, *written, "--nodes", "3"]) == 0
    cache, jobs = here / "cache", here / "jobs"
    workers = until(lambda: found if len(found := holders(cache)) == 3 else None, "three workers hold a shard each")
    preempted, survivor = (one for one in workers if one.node == first)
    (killed,) = (one for one in workers if one.node == second)
    cluster.run("scontrol", "update", f"nodename={second}", "state=drain", "reason=test")
    os.kill(killed.pid, signal.SIGKILL)
    cluster.run("scontrol", "requeue", preempted.job)
    until(lambda: preempted not in holders(cache), "the preempted worker frees its lease")
    gate.unlink()
    cluster.wait(PATIENCE_S)
    cluster.run("scontrol", "update", f"nodename={second}", "state=resume")

    capsys.readouterr()
    assert main(["submit", "--status", "jobs"]) == 0
    assert "embed: 3 done, 2 started again, 3 of 3 shards" in capsys.readouterr().out
    assert attempts(jobs, killed.job) == [(137, second), (0, first)], "the drained node takes no more"
    assert attempts(jobs, survivor.job) == [(0, first)]
    assert attempts(jobs, preempted.job) == [(143, first), (0, first)]
    assert "terminated; finished work is kept" in (jobs / "logs" / f"{preempted.job}_0_log.err").read_text()
    assert [path.suffix for path in jobs.rglob("*") if path.suffix == ".pkl"] == []

    assert main(["embed", *embedded, "--cache", "alone"]) == 0
    assert shards(cache) == shards(here / "alone")
    assert len(shards(cache)) == 3
    assert [path for path in cache.rglob("*") if ".lock" in path.name or path.suffix == ".part"] == []
    (record,) = (json.loads(path.read_text()) for path in (here / "results").glob(f"{TASK}__*.json"))
    assert record["task"] == TASK
    assert (here / "results_report" / "index.html").is_file()


def holder_of_a_shard(cache: Path) -> Holder:
    """Waits until some shards are finished and another one is being filled; returns the process that fills it."""
    some = until(lambda: len(list(cache.glob("*/shard-*.json"))) >= 3 and holders(cache), "a worker fills a shard")
    return some[0]


@needs_submitit
@pytest.mark.long
def test_a_worker_that_is_told_to_stop_frees_its_shard_and_goes_on_later(cluster: SlurmCluster, tmp_path: Path) -> None:
    words = ["submit", "embed", *EMBEDDED, "--cache", "cache", "--jobs", "jobs", "--splits", "train"]
    assert bend_hf(cluster, tmp_path, *words, "--shard-mb", "2").returncode == 0
    holder_of_a_shard(tmp_path / "cache")
    cluster.run("scancel", "--signal=TERM", "--me")  # to the worker and not to its script, as before a limit of time
    cluster.wait(PATIENCE_S)
    (job,) = read_submission(tmp_path / "jobs").jobs["embed"]
    assert [status for status, _ in attempts(tmp_path / "jobs", job)] == [143, 0]
    (log,) = (tmp_path / "jobs" / "logs").glob("*_log.err")
    assert "terminated; finished work is kept" in log.read_text()
    assert "1 done, 1 started again" in bend_hf(cluster, tmp_path, "submit", "--status", "jobs").stdout


@needs_submitit
@pytest.mark.long
def test_variants_and_a_report_are_jobs_too(cluster: SlurmCluster, here: Path) -> None:
    genome = write_genome(here / "genome.fa")["chr1"]
    sites = [("chr1", at, at + 1, genome[at], "C" if genome[at] == "A" else "A", at % 2) for at in range(600, 640)]
    write_bed(here / "sites.bed", ("chromosome", "start", "end", "ref", "alt", "label"), sites)
    variants = ["variants", "sites.bed", "--genome", "genome.fa", "--model", "bend-mini", "--out", "variants"]
    assert main(["submit", *variants, "--jobs", "first"]) == 0
    cluster.wait(PATIENCE_S)
    assert main(["submit", "--status", "first"]) == 0
    assert list((here / "variants").glob("*.parquet"))
    trained = ["train", "--task", TASK, "--data", str(write_data(here / "data", (TASK,), n=22)), "--epochs", "1"]
    assert main([*trained, "--model", "onehot", "--out", "results"]) == 0
    assert main(["submit", "report", "results", "--out", "report", "--no-plots", "--jobs", "second"]) == 0
    cluster.wait(PATIENCE_S)
    assert main(["submit", "--status", "second"]) == 0
    assert (here / "report" / "index.html").is_file()


@pytest.mark.long
def test_two_nodes_train_what_one_process_trains(cluster: SlurmCluster, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", (TASK,), n=22)
    flags = ["--task", TASK, "--data", str(data), "--epochs", "2", "--batch-size", "5", "--learning-rate", "0.01"]
    script = str(ROOT / "accelerate_configs" / "slurm.sh")
    options = ["--gpus-per-node=0", "--cpus-per-task=1", "--output=log", f"--chdir={ROOT}"]
    asked = [*options, f"--output={tmp_path / 'log'}", script, *flags, "--out", str(tmp_path / "two")]
    done = run(cluster, tmp_path, "sbatch", "--nodes=2", *asked)
    assert done.returncode == 0, done.stderr
    cluster.wait(PATIENCE_S)
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
