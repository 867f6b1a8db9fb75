"""Checkpoints: whole or not at all, the last and the best, and no pickle."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from bend_hf.errors import RecordError
from bend_hf.training.checkpoints import (
    Checkpoints,
    Saved,
    load_trained,
    restore_training,
    trained_state,
    training_tensors,
)


def saved(step: int) -> Saved:
    return Saved(tensors={"model.w": torch.full((3,), float(step))}, facts={"step": step, "loss": 0.1 + 0.2})


def best(epoch: int) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3,), -float(epoch))}


def test_what_is_written_comes_back_to_the_bit(tmp_path: Path) -> None:
    place = Checkpoints(tmp_path / "run")
    exotic = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    place.write(Saved(tensors={"x": exotic, "count": torch.tensor(7)}, facts={"loss": 0.1 + 0.2}), best={}, best_at=0)
    found = place.read()
    assert found is not None
    assert found.tensors["x"].view(torch.int32).tolist() == exotic.view(torch.int32).tolist()
    assert found.tensors["count"].item() == 7
    assert found.facts["loss"] == 0.1 + 0.2


def test_only_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    place = Checkpoints(tmp_path)
    place.write(saved(1), best=best(1), best_at=1)
    place.write(saved(2), best=best(3), best_at=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-3.safetensors", "last.safetensors"]
    found = place.read()
    assert found is not None
    assert found.facts["step"] == 2
    assert found.best["w"].tolist() == [-3.0] * 3


def test_a_write_that_dies_before_its_rename_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Checkpoints(tmp_path)
    place.write(saved(1), best=best(1), best_at=1)

    def die(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", die)
        with pytest.raises(RecordError, match=r"no space left on device.*; free some space"):
            place.write(saved(2), best=best(2), best_at=2)
    found = place.read()
    assert found is not None
    assert (found.facts["step"], found.best["w"][0].item()) == (1, -1.0)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["last.safetensors", "best-1.safetensors"])
def test_a_damaged_checkpoint_is_logged_and_not_used(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Checkpoints(tmp_path)
    place.write(saved(1), best=best(1), best_at=1)
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING):
        assert place.read() is None
    assert "cannot be used" in caplog.text


def test_the_header_is_json_and_the_file_is_safetensors(tmp_path: Path) -> None:
    Checkpoints(tmp_path).write(saved(4), best={}, best_at=0)
    with safe_open(tmp_path / "last.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["bend_hf"])["step"] == 4


def test_a_process_that_does_not_write_writes_nothing(tmp_path: Path) -> None:
    Checkpoints(tmp_path / "run", writes=False).write(saved(1), best={}, best_at=0)
    assert not (tmp_path / "run").exists()


def test_frozen_weights_are_not_stored() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].requires_grad_(False)
    state = trained_state(model)
    assert set(state) == {"1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    other = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    other[0].requires_grad_(False)
    before = other[0].weight.clone()
    load_trained(other, {**state, "1.weight": torch.tensor([5.0, 6.0])})
    assert other[1].weight.tolist() == [5.0, 6.0]
    assert torch.equal(other[0].weight, before)


def test_a_restored_optimizer_continues_to_the_bit() -> None:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer, times: int) -> None:
        for _ in range(times):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()

    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    whole, whole_optimizer = made()
    step(whole, whole_optimizer, 3)
    tensors = {name: value.clone() for name, value in training_tensors(whole, whole_optimizer).items()}
    step(whole, whole_optimizer, 3)
    again, again_optimizer = made()
    restore_training(again, again_optimizer, tensors)
    step(again, again_optimizer, 3)
    assert torch.equal(again.weight, whole.weight)  # type: ignore[arg-type]
