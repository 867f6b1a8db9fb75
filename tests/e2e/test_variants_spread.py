"""Two processes write the same bytes as one, and one process resumes what two killed ones began."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_variants_command import folder as folder

ROOT = Path(__file__).parents[2]
ENDINGS = ("linear_probe.parquet", "mlp_probe.parquet", "csv")


def start(folder: Path, out: Path, *, processes: int, stops_after: int | None = None) -> subprocess.Popen[str]:
    """Start processes in their own group."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "ACCELERATE_USE_CPU": "true",
    }
    command = [sys.executable, "-m", "tests.e2e.variant_lives", str(folder), str(out), str(processes)]
    command += [] if stops_after is None else [str(stops_after)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, start_new_session=True, stdout=subprocess.PIPE
    )


def run(folder: Path, out: Path, *, processes: int) -> None:
    """Run processes to their end."""
    group = start(folder, out, processes=processes)
    group.communicate(timeout=1200)
    assert group.returncode == 0


def kill_two(folder: Path, out: Path, *, stops_after: int) -> None:
    """Start two processes, and kill them and their parent after each has scored that many batches."""
    group = start(folder, out, processes=2, stops_after=stops_after)
    assert group.stdout is not None
    stopped = 0
    try:
        while stopped < 2 and (line := group.stdout.readline()):
            stopped += line == "stopped\n"
    finally:
        os.killpg(group.pid, signal.SIGKILL)
    assert stopped == 2
    assert group.wait() == -signal.SIGKILL
    group.stdout.read()  # ends when none of them is left


def contents(out: Path) -> dict[str, bytes]:
    """Read what was written, by kind; the record is left out because it holds the time."""
    found = {ending: path.read_bytes() for ending in ENDINGS for path in out.glob(f"*{ending}")}
    (scores,) = (path for path in out.glob("*.parquet") if not path.name.endswith("_probe.parquet"))
    assert set(found) == set(ENDINGS)
    return {"scores": scores.read_bytes(), **found}


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("alone")
    run(folder, out, processes=1)
    return contents(out)


def test_two_processes_write_the_scores_of_one(folder: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    run(folder, tmp_path, processes=2)
    found = contents(tmp_path)
    assert found["scores"] == alone["scores"]
    assert found["csv"] == alone["csv"]


def test_one_process_ends_what_two_killed_ones_began(folder: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    kill_two(folder, tmp_path, stops_after=2)
    assert not list(tmp_path.glob("*.parquet"))
    assert len(list((tmp_path / ".scored_variants").glob("*.parquet"))) == 4
    run(folder, tmp_path, processes=1)
    assert contents(tmp_path) == alone
    assert not (tmp_path / ".scored_variants").exists()
