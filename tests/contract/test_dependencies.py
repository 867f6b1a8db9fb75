"""pyproject.toml declares what the package imports, and constraints-lowest.txt pins what it declares."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = ("plots", "lora", "bigwig", "motifs", "cluster")
# Names that differ between the package and its import.
PACKAGE_OF = {"yaml": "pyyaml", "sklearn": "scikit-learn"}
# Imported if they are there, or on the Hub only; each with its reason.
NOT_DECLARED = {
    "mamba_ssm": "a faster kernel, which is used if it is installed",
    "triton": "comes with PyTorch for CUDA, on Linux",
    "gradio": "metrics/app.py runs in a Space on the Hub",
    "_typeshed": "exists for the type checker only",
}


def requirements(*extras: str) -> dict[str, Requirement]:
    """Dependencies, with those of some extras, by normalized name."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): one for one in found if not one.extras}


def pins(name: str) -> dict[str, Version]:
    """Versions in a constraints file, by normalized name."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): Version(version) for package, version in pairs}


def imported() -> set[str]:
    """Third-party packages that bend_hf and the metrics import, by normalized name."""
    found: set[str] = set()
    for path in [*(ROOT / "bend_hf").rglob("*.py"), *(ROOT / "metrics").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                found.add(node.module.partition(".")[0])
    found -= {*sys.stdlib_module_names, "bend_hf", *NOT_DECLARED}
    return {canonicalize_name(PACKAGE_OF.get(name, name)) for name in found}


def lower_bound(requirement: Requirement) -> Version:
    """The version after ``>=``."""
    found = re.search(r">=([\d.]+)", str(requirement.specifier))
    assert found is not None, f"{requirement} has no lower bound"
    return Version(found[1])


def test_what_is_imported_is_declared() -> None:
    assert imported() <= set(requirements(*EXTRAS))


def test_what_is_declared_is_imported() -> None:
    assert set(requirements(*EXTRAS)) <= imported()


@pytest.mark.parametrize("name", sorted(set(requirements(*EXTRAS, "test")) - {"torch"}))
def test_the_lowest_version_is_the_one_that_is_tested(name: str) -> None:
    assert pins("constraints-lowest.txt")[name] == lower_bound(requirements(*EXTRAS, "test")[name])


@pytest.mark.parametrize("name", sorted(requirements(*EXTRAS, "test", "docs", "dev")))
def test_the_tested_version_is_allowed(name: str) -> None:
    assert requirements(*EXTRAS, "test", "docs", "dev")[name].specifier.contains(pins("constraints.txt")[name])


def test_the_lowest_torch_is_the_tested_one() -> None:
    assert pins("constraints-lowest.txt")["torch"] == pins("constraints.txt")["torch"]
