"""Whatever change to files fails in a command, it ends with one line, nothing is half written, and it can be repeated.

The kernel lets the n-th change fail (``tests.faults``), so that what Arrow, HDF5 and safetensors write is covered.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.fault_lives import COMMANDS
from tests.faults import live, why_not

ROOT = Path(__file__).resolve().parents[2]


def sweep(folder: Path, names: list[str], every: int) -> dict[str, dict[str, object]]:
    """The lives of some commands; see ``tests.e2e.fault_lives``."""
    home = folder / "home" / "hf"
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.fault_lives", str(folder), ",".join(names), str(every)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=7200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, object]] = json.loads(done.stdout)
    return found


def test_the_chosen_change_fails_and_no_other(tmp_path: Path) -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)

    def act() -> int:
        for name in "abc":
            (tmp_path / name).write_text(name)
        return 0

    whole = live(act, below=tmp_path)
    assert [one.kind for one in whole.changes] == ["open", "write"] * 3
    assert whole.status == 0
    for path in tmp_path.iterdir():
        path.unlink()
    failed = live(act, below=tmp_path, fails=4, stays=True)  # Python writes again when it closes a file
    assert failed.status == 99
    assert "No space left on device" in failed.text
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "a", "b": ""}


@pytest.mark.slow  # some lives of two commands
def test_a_change_that_fails_is_one_line_and_the_command_can_be_repeated(tmp_path: Path) -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    for name, found in sweep(tmp_path, ["train", "build"], 80).items():
        assert found["wrong"] == [], name
        assert found["lives"], name


@pytest.mark.long  # every change of every command
@pytest.mark.parametrize("name", COMMANDS)
def test_every_change_of_every_command_may_fail(name: str, tmp_path: Path) -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    found = sweep(tmp_path, [name], int(os.environ.get("FAULTS_EVERY", "1")))[name]
    assert found["wrong"] == []
