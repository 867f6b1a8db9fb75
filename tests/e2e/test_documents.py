"""The documents say what is so: tables and outputs are up to date, links resolve, and the blocks of each page run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from benchmarks._docs import pages, render
from benchmarks.first_steps import commands

ROOT = Path(__file__).resolve().parents[2]
PAGES = pages()
# Lines that are not run here, each with its reason.
LEFT_OUT = {
    "bend-hf demo": "takes minutes; test_as_typed.py runs it",
    "make ": "makes virtual environments, uses the network, or runs these tests",
    "bend-hf controls gene_finding": "needs AUGUSTUS on PATH; test_augustus.py runs a program in its place",
    "bend-hf download": "needs the network; downloads are tested against a loopback server",
    "bend-hf submit run": "needs Slurm; test_slurm.py submits to a real one",
    "bend-hf submit --status": "needs a submission; test_slurm.py has one",
    "bend-hf convert": "needs published weights; test_evo2.py converts a small checkpoint",
    "bend-hf train --task gene_finding --model evo2": "needs the weights of Evo 2",
    "bend-hf train --task gene_finding --model dnabert2": "needs the weights of DNABERT-2",
}
# Pages whose blocks are always run; ``make test-long`` runs the others, which take minutes.
FIRST_READ = {"README.md"}
_BLOCK = re.compile(r"^(?:<!-- save as (\S+) -->\n)?(```+)(\w+)\n(.*?)^\2$", re.DOTALL | re.MULTILINE)
# Recipes that add a file to the package run in a copy of it.
COPIED = ("bend_hf", "metrics", "model_cards", "accelerate_configs", "dataset_scripts", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the file that it is saved as."""

    language: str
    body: str
    file: str | None


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page."""
    for file, _, language, body in _BLOCK.findall(page.read_text(encoding="utf-8")):
        named = re.match(r"# save as (\S+)", body)
        yield Block(language, body, file or (named[1] if named else None))


def names(page: Path) -> str:
    """A page's path inside the repository."""
    return page.relative_to(ROOT).as_posix()


def masked(printed: str) -> str:
    """What a command printed, without numbers, which differ between machines, and without the width of columns."""
    return re.sub(r"[ -]+", " ", re.sub(r"\d[\d,.T]*", "#", printed)).strip()


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_tables_are_what_the_declarations_and_benchmarks_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert render(text) == text, "run make docs"


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_between_files_resolve(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_every_page_is_listed_in_the_readme_and_in_the_index() -> None:
    readme, index = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/README.md"))
    for page in (ROOT / "docs").glob("[!R]*.md"):
        assert f"(docs/{page.name})" in readme
        assert f"({page.name})" in index


def test_every_reason_for_leaving_a_line_out_is_in_use() -> None:
    lines = [line for page in PAGES for block in blocks(page) for line in block.body.splitlines()]
    assert not [start for start in LEFT_OUT if not any(line.startswith(start) for line in lines)]


def with_blocks() -> Iterator[ParameterSet]:
    """Yield the pages with blocks; those that most readers do not type first are marked as long."""
    for page in PAGES:
        if any(blocks(page)):
            yield pytest.param(page, id=names(page), marks=[pytest.mark.long] if page.name not in FIRST_READ else [])


@pytest.mark.parametrize("page", with_blocks())
def test_blocks_run_in_order(page: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if page.name == "README.md":  # what a newcomer types first, with an empty home folder
        home = tmp_path / "home"
        environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "HF_HOME": str(home / "hf")}
        environment.pop("BEND_HF_CACHE", None)
    if page.name == "CONTRIBUTING.md":
        copy_checkout(tmp_path)
        environment["PYTHONPATH"] = str(tmp_path)
    shown = {body: name for name, body in commands().items()} if page.name == "README.md" else {}
    for block in blocks(page):
        if block.file:
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(block.body, encoding="utf-8")
        if block.language == "python" and not (block.file or "").startswith(("bend_hf/", "metrics/")):
            (tmp_path / "block.py").write_text(block.body, encoding="utf-8")
            command = [sys.executable, "block.py"]
        elif block.language == "bash":
            kept = [line for line in block.body.splitlines() if not line.startswith(tuple(LEFT_OUT))]
            command = ["bash", "-euo", "pipefail", "-c", "\n".join(kept) or "true"]
        else:
            continue
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block.body}\n{done.stdout}\n{done.stderr}"
        if block.body in shown:
            name = shown[block.body]
            printed = page.read_text(encoding="utf-8").partition(f"<!-- begin output {name} -->")[2]
            expected = printed.partition("```text\n")[2].partition("```")[0]
            assert masked(done.stdout) == masked(expected), "run python -m benchmarks.first_steps and make docs"


def test_the_files_of_the_recipes_pass_ruff(tmp_path: Path) -> None:
    copy_checkout(tmp_path)
    files = [block for block in blocks(ROOT / "CONTRIBUTING.md") if block.language == "python" and block.file]
    for block in files:
        path = tmp_path / str(block.file)
        assert not path.exists(), f"{block.file} is there already; a recipe must not change a file"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.body, encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "check", *(str(block.file) for block in files)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def copy_checkout(folder: Path) -> None:
    """Copy what the package is made of, so that a recipe's files join it."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
