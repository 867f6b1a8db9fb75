"""Folders that an ordinary user may only read: inputs are used from there, and an output there is refused at the start.

Root may write anywhere, so as root the commands run in a process that has given up the right to (CAP_DAC_OVERRIDE).
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.tiny import write_data

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ("train", "--task", "gene_finding", "--epochs", "1", "--batch-size", "4")
WORDS = """
import numpy as np

def embed(sequences):
    return [np.ones((len(one), 2), np.float32) for one in sequences]
"""
RUNS = """
import json, subprocess, sys
from bend_hf.cli._main import main

for argv in json.loads(sys.argv[1]):
    status = subprocess.run(argv).returncode if argv[0] == "chmod" else main(argv)
    print("\\nstatus:", status, flush=True)
"""
# linux/prctl.h and linux/capability.h
_DROP = 24  # PR_CAPBSET_DROP
_RIGHTS = (1, 2, 3)  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER


def as_ordinary_user() -> None:
    """Give up root's right to pass over permissions."""
    if os.getuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for right in _RIGHTS:
            if libc.prctl(_DROP, right, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl")


def run(commands: Sequence[Sequence[str]], cache: Path) -> list[tuple[int, str]]:
    """The exit status and the output of each command."""
    done = subprocess.run(
        [sys.executable, "-c", RUNS, json.dumps(commands)],
        preexec_fn=as_ordinary_user,
        env={**os.environ, "PYTHONPATH": str(ROOT), "BEND_HF_CACHE": str(cache), "HF_HOME": str(cache / "hf")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    text, *others = done.stdout.split("\nstatus: ")
    assert len(others) == len(commands), done.stdout
    outcomes = []
    for other in others:
        status, _, following = other.partition("\n")
        outcomes.append((int(status), text))
        text = following
    return outcomes


def set_writable(folder: Path, *, writable: bool) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o755 if writable else 0o555) if path.is_dir() else (0o644 if writable else 0o444))


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data folder without an index that nobody may write to."""
    folder = write_data(tmp_path / "data", ["gene_finding"], n=12)
    set_writable(folder, writable=False)
    trial = subprocess.run(
        [sys.executable, "-c", f"open({str(folder / 'trial')!r}, 'w')"],
        preexec_fn=as_ordinary_user,
        capture_output=True,
        check=False,
    )
    if trial.returncode == 0:
        set_writable(folder, writable=True)
        pytest.skip("this process writes to read-only folders even without root's rights")
    yield folder
    set_writable(folder, writable=True)


@pytest.mark.slow  # eight commands
def test_read_only_folders_are_read_and_refused_as_outputs(data: Path, tmp_path: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    (tmp_path / "words.py").write_text(WORDS)
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    of = ["--data", str(data)]
    model = str(tmp_path / "words.py")
    embeds = ["embed", "--task", "gene_finding", "--model", model, *of]
    outcomes = run(
        [
            [*TRAIN, "--model", "onehot", *of, "--out", str(tmp_path / "results")],
            [*TRAIN, "--model", "onehot", *of, "--out", str(closed / "results")],
            ["build", "gene_finding", *of, "--out", str(closed)],
            [*embeds, "--cache", str(closed)],
            [*embeds, "--cache", str(tmp_path / "filled")],
            ["chmod", "-R", "a-w", str(tmp_path / "filled")],
            [*TRAIN, "--model", model, *of, "--cache", str(tmp_path / "filled"), "--out", str(tmp_path / "results")],
            ["chmod", "-R", "u+w", str(tmp_path / "filled")],
            ["report", str(tmp_path / "results"), "--out", str(closed), "--no-plots"],
        ],
        tmp_path / "cache",
    )
    assert [status for status, _ in outcomes] == [0, 1, 1, 1, 0, 0, 0, 0, 1], outcomes
    for status, text in outcomes:
        assert "Traceback" not in text, text
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        assert len(errors) == status, text
        assert all(str(closed) in line and "Permission denied" in line for line in errors)
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == files
    assert list(closed.iterdir()) == []
