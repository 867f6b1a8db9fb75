"""The supervised baselines are listed with what they are, and training starts from BEND's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset

from bend_hf.cli._main import main
from bend_hf.config import RunConfig
from bend_hf.data.dataset import TaskData
from bend_hf.runs.settings import resolve_config
from bend_hf.runs.train_head import fit_config
from bend_hf.tasks import TASKS, Folds, TaskSpec
from bend_hf.training.head_trainer import FitConfig, HeadData, fit
from bend_hf.training.heads import BASELINES, build_head, head_of
from bend_hf.training.losses import build_loss
from bend_hf.training.optimizer import AdamW
from tests.splits import WIDTH, gene_like


@pytest.mark.parametrize("key", list(BASELINES))
def test_a_baseline_has_as_many_weights_as_it_says(key: str) -> None:
    task = TASKS.get("histone_modification")
    head = build_head(head_of(BASELINES[key].head, task), 5, task.n_outputs)
    last = [module for module in head.modules() if isinstance(module, torch.nn.Linear)][-1]
    assert last.out_features == task.n_outputs
    of_labels = sum(weight.numel() for weight in last.parameters())
    assert sum(weight.numel() for weight in head.parameters()) - of_labels == BASELINES[key].n_parameters


def test_the_models_are_listed_with_the_baselines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (resnet,) = [line for line in lines if "resnet-supervised" in line]
    assert "19,768,448" in resnet
    assert any("basset-supervised" in line and "3,972,600" in line for line in lines)
    assert any(line.startswith("| dnabert2 ") for line in lines)


BEND_NUMBERS = {  # BEND conf/supervised_tasks/*.yaml: epochs, batch, learning rate, weight decay, positive weight
    "gene_finding": (100, 64, 0.003, 0.01, None),
    "enhancer_annotation": (100, 8, 0.001, 0.01, 82.86),
    "chromatin_accessibility": (100, 256, 0.003, 0.01, None),
    "histone_modification": (100, 256, 0.003, 0.01, None),
    "cpg_methylation": (100, 256, 0.003, 0.01, None),
}


def data_of(task: TaskSpec) -> TaskData:
    """Fifty rows in each split or subset."""
    folds = task.partition.n if isinstance(task.partition, Folds) else 0
    names = [f"part{n + 1}" for n in range(folds)] or ["train", "validation", "test"]
    return TaskData(task=task, subsets={name: Dataset.from_dict({"item": range(50)}) for name in names}, facts={})


@pytest.mark.parametrize("name", BEND_NUMBERS)
def test_a_run_without_flags_trains_as_bend_does(name: str) -> None:
    task = TASKS.get(name)
    config = fit_config(resolve_config(RunConfig(task=(name,)), data_of(task)))
    assert task.training is not None
    found = (config.epochs, config.batch_size, config.learning_rate, config.weight_decay, task.training.positive_weight)
    assert found == BEND_NUMBERS[name]
    assert (config.schedule, config.accumulation, config.patience) == ("constant", 1, None)


def test_the_optimizer_gets_those_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[AdamW] = []

    def noted(*args: object, **kwargs: object) -> AdamW:
        made.append(AdamW(*args, **kwargs))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr("bend_hf.training.head_trainer.AdamW", noted)
    config = FitConfig(epochs=1, batch_size=4, learning_rate=0.003, weight_decay=0.01, seed=0)
    head = torch.nn.Linear(WIDTH, 3)

    class Head(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = head

        def forward(self, x_BTD: torch.Tensor, token_of_BL: torch.Tensor) -> torch.Tensor:
            rows = self.linear(x_BTD)
            return rows.gather(1, token_of_BL.clamp(min=0)[..., None].expand(-1, -1, 3))

    data = HeadData(train=gene_like(8), loss=build_loss("cross_entropy"), validate=lambda model: None)
    fit(Head(), data, config, Accelerator(cpu=True))
    (optimizer,) = made
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.003, 0.01)
    assert group["betas"] == (0.9, 0.999)  # torch's own, which BEND leaves as they are
