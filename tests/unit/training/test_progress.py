"""The progress bar of a training."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from bend_hf.training import progress


def test_a_bar_shows_the_loss_and_no_loss_that_is_not_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "shows_progress", lambda: True)
    process = SimpleNamespace(is_main_process=True)
    for loss in (0.25, math.nan):
        with progress.Bar(process, "heads", unit="step") as bar:  # type: ignore[arg-type]  # what is read of it
            bar.with_loss(1, 1, loss)
    known, unknown = capsys.readouterr().err.strip().split("\n")
    assert "1/1" in known
    assert "loss=0.2500" in known
    assert "1/1" in unknown
    assert "loss" not in unknown
