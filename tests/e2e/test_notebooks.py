"""The notebooks run from top to bottom, and the outputs in the files are those of such a run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks._notebooks import LIMIT, code_of, execute, notebooks

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = notebooks()


def kinds(notebook: dict[str, object]) -> list[list[object]]:
    """What each code cell shows: the kinds of its outputs."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]  # type: ignore[attr-defined]
    return [
        [sorted(output["data"]) if "data" in output else output["name"] for output in cell["outputs"]] for cell in cells
    ]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebooks after a run with few items."""
    folder = tmp_path_factory.mktemp("notebooks")
    command = [sys.executable, "-m", "benchmarks._notebooks", "--limit", "12", "--out", str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_the_stored_one_shows(path: Path, ran: Path) -> None:
    stored, now = (json.loads(one.read_text(encoding="utf-8")) for one in (path, ran / path.name))
    assert code_of(stored) == code_of(now)
    assert kinds(stored) == kinds(now), "run make notebooks"
    assert any("image/png" in str(kind) for kind in kinds(now))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stored_notebook_holds_no_path_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"/(?:tmp|home|root|Users|work)/[^\"\\ ]+", text)
    assert path.stat().st_size < 300_000
    assert len(LIMIT.findall("\n".join(code_of(json.loads(text))))) == 1
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))


def test_every_notebook_is_in_the_list() -> None:
    assert sorted(NOTEBOOKS) == sorted((ROOT / "examples").glob("*.ipynb"))


def test_a_cell_shows_what_it_prints_and_its_last_value() -> None:
    cells = [
        {"cell_type": "code", "source": ["print(1)\n", "2 + 2"], "outputs": []},
        {"cell_type": "code", "source": ["LIMIT = 5\n", "LIMIT"], "outputs": []},
        {"cell_type": "code", "source": ["LIMIT;"], "outputs": []},
    ]
    first, second, third = execute({"cells": cells}, limit=3)["cells"]
    assert first["outputs"][0]["text"] == ["1"]
    assert first["outputs"][1]["data"] == {"text/plain": ["4"]}
    assert second["outputs"][0]["data"] == {"text/plain": ["3"]}
    assert third["outputs"] == []


def test_a_failing_cell_ends_the_run() -> None:
    with pytest.raises(ZeroDivisionError):
        execute({"cells": [{"cell_type": "code", "source": ["1 / 0"]}]})
