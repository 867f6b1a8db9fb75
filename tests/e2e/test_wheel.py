"""A wheel built from the checkout and unpacked elsewhere runs without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, cwd: Path, *argv: str) -> str:
    """Runs Python on the unpacked wheel, away from the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, *argv], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_what_travels_with_it(installed: Path) -> None:
    assets = installed / "bend_hf" / "_assets"
    assert (assets / "metrics" / "mcc" / "mcc.py").is_file()
    assert (assets / "accelerate_configs" / "cpu.yaml").is_file()
    assert (assets / "dataset_scripts" / "dataset_card.md.jinja").is_file()
    assert (installed / "bend_hf" / "sample" / "genomes" / "sample.fa.gz").is_file()
    assert (installed / "bend_hf" / "pretrained" / "bend-mini" / "model.safetensors").is_file()
    assert any((assets / "model_cards").iterdir())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode == 0:
        assert not [n for n in installed.rglob("*") if "__pycache__" in n.parts]


def test_the_installed_package_runs_on_the_sample(installed: Path, tmp_path: Path) -> None:
    code = "import bend_hf; print(bend_hf.__file__)"
    assert run(installed, tmp_path, "-c", code).strip().startswith(str(installed))
    mini = (
        "from bend_hf.embedders import load_embedder\n"
        "embedder = load_embedder('bend-mini')\n"
        "print(embedder.folder, embedder('ACGTN').shape)"
    )
    assert run(installed, tmp_path, "-c", mini).strip() == f"{installed}/bend_hf/pretrained/bend-mini (5, 296)"
    train = "train --data sample --epochs 1 --task cpg_methylation variant_effects_disease --model onehot"
    run(installed, tmp_path, "-m", "bend_hf", *train.split())
    assert len(list((tmp_path / "results").glob("*.json"))) == 2
    run(installed, tmp_path, "-m", "bend_hf", "build", "gene_finding", "--data", "sample")
    code = (
        "import evaluate\n"
        "print(evaluate.load('bend/auroc').compute(predictions=[0.1, 0.9], references=[0, 1])['auroc'])"
    )
    assert run(installed, tmp_path, "-c", code).strip() == "1.0"
    assert json.loads((tmp_path / "bend/gene_finding/data/bend_facts.json").read_text())["facts"]["origin"] == "sample"
