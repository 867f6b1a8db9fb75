"""Batches of variants are tokenized, compared and written while the device works for another one."""

from __future__ import annotations

import threading
import time
from itertools import count
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from bend_hf.embedders._alignment import Tokenized
from bend_hf.variants import ScoreSettings, score_variants
from bend_hf.variants import score as score_module
from bend_hf.variants.checkpoint import ScoringCheckpoint
from bend_hf.variants.score import ScoringResult
from tests.busy import is_kept_busy, share_of
from tests.variant_controls import Control, Memory

ROWS = [
    ("T" * (place % 3 + 1) + ref + "TT", place % 3 + 1, ref, alt, 0) for place in range(40) for ref, alt in ("AG", "CA")
]


class Slow(Control):
    """A model whose tokenizer and whose device take time; the device works for one thread at a time."""

    threads = 1
    stage_s = 0.05

    def _load(self) -> None:
        super()._load()
        self.device_lock = threading.Lock()
        self.busy: list[tuple[float, float]] = []

    @property
    def n_threads(self) -> int:
        return self.threads

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        time.sleep(self.stage_s)  # the stage itself, not a wait for something
        return super()._tokenize(sequences)

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        with self.device_lock:
            begin = time.perf_counter()
            time.sleep(self.stage_s)
            self.busy.append((begin, time.perf_counter()))
        return super()._hidden(ids_BT, mask_BT, layer)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_module, "_BATCH_VARIANTS", 4)


def scored(model: Slow, folder: Path) -> ScoringResult:
    settings = ScoreSettings(likelihood=False, averages=False)
    checkpoint = ScoringCheckpoint(folder)
    return score_variants(Memory(ROWS), model, Accelerator(cpu=True), settings, checkpoint=checkpoint)


def busy_share(model: Slow, folder: Path, stage_s: float) -> float:
    model.stage_s = stage_s
    model.busy.clear()
    scored(model, folder)
    batches = model.busy[-len(ROWS) // 4 :]  # not those that identify the model
    return share_of(batches)


def test_the_device_is_busy_while_other_batches_are_tokenized(tmp_path: Path) -> None:
    model = Slow(device="cpu")
    model.load()
    assert busy_share(model, tmp_path / "one", 0.05) < 0.7
    model.threads = 3
    folders = map(str, count())
    assert is_kept_busy(lambda stage_s: busy_share(model, tmp_path / next(folders), stage_s))


def test_threads_give_the_same_scores_and_batches(tmp_path: Path) -> None:
    model = Slow(device="cpu")
    one = scored(model, tmp_path / "one")
    model.threads = 3
    two = scored(model, tmp_path / "two")
    assert one.keys == two.keys
    assert len(one.keys) == len(ROWS) // 4
    assert torch.equal(torch.as_tensor(one.predictions.score), torch.as_tensor(two.predictions.score))
    for key in one.keys:
        first, second = (ScoringCheckpoint(tmp_path / name).read(key) for name in ("one", "two"))
        assert first is not None
        assert first.equals(second)
