"""``bend-hf bench`` measures the model, and computes what the tasks need from what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bend_hf.cli._main import main
from bend_hf.runs.bench import BenchConfig, _costs, bench, count_flop
from bend_hf.runs.published_size import ROWS, published_bp
from bend_hf.tasks import TASKS


def test_hours_follow_from_the_slower_of_model_and_disk() -> None:
    costs = {one.task: one for one in _costs(1e6, 100.0, 1e9)}
    methylation = costs["cpg_methylation"]  # 959,039 windows of 512 bp
    assert methylation.nucleotides == 959_039 * 512
    assert methylation.hours == pytest.approx(959_039 * 512 / 1e6 / 3600)
    assert methylation.gigabytes == pytest.approx(959_039 * 512 * 100 / 1e9)
    slow_disk = {one.task: one for one in _costs(1e6, 100.0, 1e7)}["cpg_methylation"]
    assert slow_disk.hours == pytest.approx(10 * methylation.hours)


def test_variants_are_two_sequences_each_and_not_cached() -> None:
    disease = {one.task: one for one in _costs(1e6, 100.0, 1.0)}["variant_effects_disease"]
    assert disease.nucleotides == 295_495 * 2 * 513
    assert disease.gigabytes is None
    assert disease.hours == pytest.approx(disease.nucleotides / 1e6 / 3600)


def test_every_published_task_has_a_size() -> None:
    assert {task.key for task in TASKS} >= set(ROWS)
    assert published_bp(TASKS.get("gene_finding")) == int(5976 * 4_353_894 / 597)


def test_the_command_prints_one_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", "bend-mini", "--windows", "2", "--rounds", "1", "--device", "cpu", "--cache", str(tmp_path)]
    assert main(["bench", *flags, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["device"] == "cpu"
    assert found["share_of_bare"] == pytest.approx(
        found["nucleotides_per_second"] / found["bare_nucleotides_per_second"]
    )
    assert found["share_of_matmul_peak"] > 0
    assert {one["task"] for one in found["tasks"]} == set(ROWS)
    assert not list(tmp_path.iterdir())


def test_a_model_without_weights_is_timed_too(tmp_path: Path) -> None:
    found = bench(BenchConfig(model="onehot", windows=2, rounds=1, cache=tmp_path, device="cpu"))
    assert found.nucleotides_per_second > 0
    assert found.share_of_matmul_peak == 0


def test_operations_are_those_of_the_products() -> None:
    weight = torch.nn.Linear(4, 3)
    kernel = torch.nn.Conv1d(2, 5, 3)

    def work() -> None:
        with torch.inference_mode():
            weight(torch.ones(7, 4))
            kernel(torch.ones(1, 2, 10))

    assert count_flop(work) == 2 * 7 * 4 * 3 + 2 * 8 * 3 * 2 * 5
