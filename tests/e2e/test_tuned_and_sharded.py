"""Fine-tuning, spread weights and batch norm on two processes: what one process gives with the same batches."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bend_hf.evaluation.predictions import Predictions, read_predictions
from bend_hf.files import asset_folder
from bend_hf.training.kept_head import read_head
from tests.e2e.spread import families
from tests.fake_checkpoints import make_tiny
from tests.tiny import write_data

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
HAS_PEFT = importlib.util.find_spec("peft") is not None
needs_peft = pytest.mark.skipif(not HAS_PEFT, reason="peft is not installed")
BASSET = ("--task", "cpg_methylation", "--model", "basset-supervised", "--learning-rate", "0.001")


def fsdp_environment() -> dict[str, str]:
    """What ``accelerate launch`` makes of the configuration for FSDP, but for the GPUs."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    file = asset_folder("accelerate_configs") / "fsdp.yaml"
    parsed = launch_command_parser().parse_args(["--config_file", str(file), "-m", "bend_hf.train"])
    launched = prepare_multi_gpu_env(_validate_launch_command(parsed)[0])
    return {name: value for name, value in launched.items() if "FSDP" in name}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a training left."""

    record: dict[str, Any]
    predictions: Predictions
    weights: str

    @property
    def run(self) -> dict[str, Any]:
        found: dict[str, Any] = self.record["training"]["runs"][0]
        return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of every training: 11 training items in batches of 5, so that one share is empty."""
    folder = tmp_path_factory.mktemp("tuned")
    data = write_data(folder / "data", ["gene_finding", "cpg_methylation"], n=22)
    checkpoint = make_tiny("dnabert3", folder / "dnabert3")
    config = json.loads((checkpoint / "config.json").read_text())
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # two processes draw differently
    (checkpoint / "config.json").write_text(json.dumps({**config, **without}))
    genes = ("--task", "gene_finding")
    model = (*genes, "--model", "dnabert3", "--checkpoint", str(checkpoint), "--random-init", "--learning-rate", "2e-3")
    full, lora = (*model, "--tune", "full"), (*model, "--tune", "lora")
    spread = fsdp_environment()
    assert spread["ACCELERATE_USE_FSDP"] == "true"

    def training(name: str, flags: tuple[str, ...], *, sharded: bool = False, **more: object) -> dict[str, object]:
        usual = ["--data", str(data), "--epochs", "2", "--batch-size", "5", "--checkpoint-every", "2"]
        environment = {"ACCELERATE_USE_CPU": "true", **(spread if sharded else {})}
        return {"argv": [*flags, *usual, "--out", str(folder / name)], "environment": environment, **more}

    trainings = [
        training("full-one", full),
        training("full-two", full, ranks=2),
        training("full-sharded", full, ranks=2, sharded=True),
        training("full-killed", full, ranks=2, sharded=True, kills=[["step", 3], ["rename", 2]]),
        training("full-fewer", full, sharded=True, kills=[["step", 3]], lives_ranks=[2, 1]),
        training("frozen-one", genes),
        training("frozen-sharded", genes, ranks=2, sharded=True),
        training("basset-one", BASSET, dropout=False),
        training("basset-two", BASSET, ranks=2, dropout=False),
    ]
    of_spread = {"ACCELERATE_USE_CPU": "true", **spread}
    trainings.append({"families": str(folder / "families.json"), "ranks": 2, "environment": of_spread})
    if HAS_PEFT:
        trainings.append(training("lora-one", lora))
        trainings.append(training("lora-two", lora, ranks=2))
        trainings.append(training("lora-sharded", lora, ranks=2, sharded=True))
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.lives", json.dumps(trainings)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=6000,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def read(out: Path) -> Ended:
    (path,) = out.glob("*.json")
    return Ended(
        record=json.loads(path.read_text()),
        predictions=read_predictions(path.with_suffix(".parquet")),
        weights=(out / "weights.txt").read_text(),
    )


SAME = [
    pytest.param("full-one", "full-two", 2),
    pytest.param("full-one", "full-sharded", 2),
    pytest.param("full-one", "full-fewer", 1),
    pytest.param("frozen-one", "frozen-sharded", 2),
    pytest.param("basset-one", "basset-two", 2),
    pytest.param("lora-one", "lora-two", 2, marks=needs_peft),
    pytest.param("lora-one", "lora-sharded", 2, marks=needs_peft),
]


@pytest.mark.parametrize(("one", "other", "processes"), SAME)
def test_it_learns_what_one_process_learns(one: str, other: str, processes: int, folder: Path) -> None:
    ours, theirs = read(folder / one), read(folder / other)
    assert (ours.record["cost"]["processes"], theirs.record["cost"]["processes"]) == (1, processes)
    assert ours.run["best_epoch"] == theirs.run["best_epoch"]
    for mine, its in zip(ours.run["history"], theirs.run["history"], strict=True):
        assert its["loss"] == pytest.approx(mine["loss"], rel=1e-5)
        assert its["validation"] == pytest.approx(mine["validation"], abs=1e-3)
    assert ours.run["history"][0]["loss"] > ours.run["history"][-1]["loss"]
    np.testing.assert_array_equal(theirs.predictions.item, ours.predictions.item)
    assert theirs.record["coverage"] == ours.record["coverage"]
    said = theirs.record["metrics"][theirs.record["main_metric"]]["value"]
    assert said == pytest.approx(ours.record["metrics"][ours.record["main_metric"]]["value"], abs=1e-3)


def test_spread_weights_killed_and_resumed_end_in_the_same_bits(folder: Path) -> None:
    whole, killed = read(folder / "full-sharded"), read(folder / "full-killed")
    assert whole.run["resumed_at_step"] is None
    assert killed.run["resumed_at_step"] == 2
    assert killed.weights.split()[0] == whole.weights.split()[0]
    assert [e["loss"] for e in killed.run["history"]] == [e["loss"] for e in whole.run["history"]]
    assert killed.record["predictions"]["sha256"] == whole.record["predictions"]["sha256"]


def test_a_run_may_go_on_with_fewer_processes(folder: Path) -> None:
    assert read(folder / "full-fewer").run["resumed_at_step"] == 2


@pytest.mark.parametrize("key", families())
def test_a_family_learns_the_same_with_spread_weights(key: str, folder: Path) -> None:
    found = json.loads((folder / "families.json").read_text())[key]
    assert found["units"] > 1  # its blocks, and what is around them
    assert found["apart"] < 1e-6 < 1e-3 < found["moved"]
    assert found["said"][0] == pytest.approx(found["said"][1], rel=1e-5, abs=1e-5)


def test_no_checkpoint_is_left(folder: Path) -> None:
    assert not list(folder.glob("*/.checkpoints"))


@pytest.mark.parametrize(("one", "other", "processes"), SAME)
def test_kept_weights_are_whole_however_they_were_spread(one: str, other: str, processes: int, folder: Path) -> None:
    ours, theirs = (next((folder / name).glob("*.safetensors")) for name in (one, other))
    shapes = [{name: value.shape for name, value in read_head(path).tensors.items()} for path in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert any(name.startswith("encoder.") for name in shapes[0]) == one.startswith(("full", "lora"))
