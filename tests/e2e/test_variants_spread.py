"""Variants scored by two real processes: the bytes of one, and of one that goes on where two were killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import variant_lives
from tests.e2e.test_variants_command import folder as folder

SCRIPT = Path(variant_lives.__file__)
ROOT = SCRIPT.parents[2]


def lives(folder: Path, out: Path, *, processes: int, dies_at: int = 0) -> int:
    """The exit status of a group of processes."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "ACCELERATE_USE_CPU": "true",
    }
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += [str(SCRIPT), str(folder), str(out), *([str(dies_at)] if dies_at else [])]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=300, check=False).returncode


def only(out: Path, ending: str) -> bytes:
    (path,) = out.glob(f"*.{ending}")
    return path.read_bytes()


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    assert lives(folder, out, processes=1) == 0
    return out


def test_two_processes_write_the_bytes_of_one(folder: Path, alone: Path, tmp_path: Path) -> None:
    assert lives(folder, tmp_path, processes=2) == 0
    assert only(tmp_path, "parquet") == only(alone, "parquet")
    assert only(tmp_path, "csv") == only(alone, "csv")


def test_one_process_ends_what_two_killed_ones_began(folder: Path, alone: Path, tmp_path: Path) -> None:
    assert lives(folder, tmp_path, processes=2, dies_at=3) != 0
    assert not list(tmp_path.glob("*.parquet"))
    assert list((tmp_path / ".parts").glob("*.parquet"))
    assert lives(folder, tmp_path, processes=1) == 0
    assert only(tmp_path, "parquet") == only(alone, "parquet")
    assert only(tmp_path, "csv") == only(alone, "csv")
    assert not (tmp_path / ".parts").exists()
