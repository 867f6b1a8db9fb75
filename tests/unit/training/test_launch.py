"""Work on the main process alone, with the other processes replaced by a record of what they were sent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator

from bend_hf.errors import ConfigError
from bend_hf.training.launch import run_on_main_process


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the main process sent to the others, in order."""
    boxes: list[Any] = []
    monkeypatch.setattr(
        torch.distributed, "broadcast_object_list", lambda box, src, group: boxes.append((src, box[0])), raising=False
    )
    monkeypatch.setattr("bend_hf.training.launch._patient_group", lambda: None)
    return boxes


@pytest.fixture
def main_of_two() -> Accelerator:
    return cast(Accelerator, SimpleNamespace(num_processes=2, is_main_process=True))


def test_work_within_work_is_sent_once(sent: list[Any], main_of_two: Accelerator) -> None:
    def inner() -> str:
        return "inner"

    def outer() -> str:
        return "outer of " + run_on_main_process(main_of_two, inner)

    assert run_on_main_process(main_of_two, outer) == "outer of inner"
    assert [(src, box.value) for src, box in sent] == [(0, "outer of inner")]
    assert run_on_main_process(main_of_two, inner) == "inner"  # the next work is sent again
    assert [box.value for _, box in sent] == ["outer of inner", "inner"]


def test_an_error_within_work_within_work_reaches_the_other_processes(
    sent: list[Any], main_of_two: Accelerator
) -> None:
    def fail() -> None:
        raise ConfigError("the folder is full")

    for work in (lambda: run_on_main_process(main_of_two, fail), fail):
        with pytest.raises(ConfigError, match="the folder is full"):
            run_on_main_process(main_of_two, work)
    assert [str(box.error) for _, box in sent] == ["the folder is full"] * 2
