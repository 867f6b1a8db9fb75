"""The lines of the README that install bend_hf, as typed in a fresh clone with an empty home folder.

There is no network here: pip builds the package with this environment's hatchling and finds the dependencies in it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NEEDED = (
    "Makefile",
    "README.md",
    "LICENSE",
    "pyproject.toml",
    "constraints.txt",
    "accelerate_configs",
    "bend_hf",
    "dataset_scripts",
    "metrics",
    "model_cards",
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the repository, with what is needed to install it."""
    folder = tmp_path / "clone" / "bend_hf"
    folder.mkdir(parents=True)
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def environment(home: Path) -> dict[str, str]:
    """An empty home folder, no network, and the dependencies of this environment."""
    home.mkdir()
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "PATH": os.pathsep.join(["/usr/local/bin", "/usr/bin", "/bin"]),
        "PYTHON": sys.executable,
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this variable as the value of build isolation
        "HF_HUB_OFFLINE": "1",
    }


def bash(text: str, folder: Path, variables: dict[str, str]) -> str:
    """Runs lines in one shell; returns what they printed."""
    command = ["/bin/bash", "--noprofile", "--norc", "-euo", "pipefail", "-c", text]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def install_line() -> str:
    """The first command of the README."""
    found = re.search(r"## Install\n.*?```bash\n(.*?)\n```", README, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_lines_that_install_it_as_typed(clone: Path, tmp_path: Path) -> None:  # seconds: makes an environment
    line, _, comment = install_line().splitlines()[0].partition("#")
    assert line.strip() == "make setup && source .venv/bin/activate"
    elsewhere = comment.rpartition(": ")[2]
    assert elsewhere == "pip install '.[plots]'"
    (tmp_path / "empty").mkdir()
    variables = environment(tmp_path / "home")
    where = "python -c 'import bend_hf; print(bend_hf.__file__)'"

    printed = bash(f"{line}\ncommand -v bend-hf\nbend-hf tasks\ncd ../../empty\n{where}", clone, variables)
    assert f"{clone}/.venv/bin/bend-hf" in printed
    assert f"{clone}/bend_hf/__init__.py" in printed
    assert "gene_finding" in printed

    lines = f"source .venv/bin/activate\n{elsewhere}\ncd ../../empty\nbend-hf tasks\n{where}"
    printed = bash(lines, clone, variables)
    assert f"{clone}/.venv/lib" in printed
    assert "gene_finding" in printed
    assert not list((tmp_path / "home").glob("[!.]*"))  # nothing of ours is left in the home folder
