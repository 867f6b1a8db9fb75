"""Training on small splits: batches, accumulation, schedules, early stopping, and being killed anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bend_hf.errors import InputError, TrainingError
from bend_hf.training.batches import Split, batch_rows
from bend_hf.training.checkpoints import Checkpoints
from bend_hf.training.head_trainer import Callbacks, Epoch, FitConfig, Fitted, HeadData, fit
from bend_hf.training.heads.cnn import CnnHead
from bend_hf.training.losses import build_loss
from bend_hf.training.predict import predict
from bend_hf.training.schedules import factor
from tests.splits import WIDTH, gene_like, window_like

CONFIG = FitConfig(epochs=3, batch_size=4, learning_rate=0.01, weight_decay=0.01, seed=0, checkpoint_every=2)
TRAIN, VALIDATION = gene_like(18, seed=1), gene_like(6, seed=2)


class Dropped(nn.Module):
    """A head that draws random numbers in every step, as Basset's dropout does."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.3)
        self.cnn = CnnHead(width=WIDTH, n_outputs=3, hidden=5)

    def forward(self, x_BTD: torch.Tensor, token_of_BL: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.cnn(self.dropout(x_BTD), token_of_BL)
        return logits


def accuracy(head: nn.Module) -> float:
    predictions = predict(head, VALIDATION, Accelerator(cpu=True), batch_size=4)
    assert predictions.predicted is not None
    return float((predictions.predicted == predictions.target).mean())


def trained(
    config: FitConfig = CONFIG,
    *,
    split: Split = TRAIN,
    make: Callable[[], nn.Module] = Dropped,
    validate: Callable[[nn.Module], float | None] = accuracy,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    folder: Path | None = None,
    loss: str = "cross_entropy",
) -> Fitted:
    torch.manual_seed(config.seed)
    return fit(
        make(),
        HeadData(train=split, loss=build_loss(loss), validate=validate),  # type: ignore[arg-type]
        config,
        Accelerator(cpu=True),
        checkpoints=None if folder is None else Checkpoints(folder),
        callbacks=Callbacks(on_progress=progress),
    )


def assert_equal_to_the_bit(one: Fitted, other: Fitted) -> None:
    assert one.best_epoch == other.best_epoch
    assert [(e.loss, e.validation) for e in one.history] == [(e.loss, e.validation) for e in other.history]
    assert one.state.keys() == other.state.keys()
    assert all(torch.equal(one.state[name], other.state[name]) for name in one.state)


def test_training_learns_and_keeps_the_best_epoch() -> None:
    fitted = trained(replace(CONFIG, epochs=12, learning_rate=0.05), make=lambda: CnnHead(width=WIDTH, n_outputs=3))
    values = [epoch.validation for epoch in fitted.history if epoch.validation is not None]
    assert max(values) > 0.8
    assert fitted.best_epoch == int(np.argmax(values)) + 1
    assert fitted.history[-1].loss < fitted.history[0].loss


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    assert_equal_to_the_bit(trained(), trained())
    other = trained(replace(CONFIG, seed=1))
    assert [epoch.loss for epoch in other.history] != [epoch.loss for epoch in trained().history]


@given(n=st.integers(1, 40), batch_size=st.integers(1, 12), world=st.integers(1, 4), epoch=st.integers(0, 3))
def test_every_batch_is_divided_among_the_processes(n: int, batch_size: int, world: int, epoch: int) -> None:
    whole = batch_rows(n, batch_size=batch_size, seed=5, epoch=epoch, rank=0, n_processes=1)
    shares = [
        batch_rows(n, batch_size=batch_size, seed=5, epoch=epoch, rank=r, n_processes=world) for r in range(world)
    ]
    assert sorted(np.concatenate(whole).tolist()) == list(range(n))
    assert {len(one) for one in shares} == {len(whole)}
    for place, batch in enumerate(whole):
        assert sorted(np.concatenate([one[place] for one in shares]).tolist()) == sorted(batch.tolist())


def test_accumulated_batches_are_one_large_batch() -> None:
    plain = {"make": lambda: CnnHead(width=WIDTH, n_outputs=3, hidden=5), "validate": lambda head: 0.0}
    once = trained(replace(CONFIG, epochs=1, batch_size=12), **plain)
    parts = trained(replace(CONFIG, epochs=1, batch_size=3, accumulation=4), **plain)
    assert once.history[0].loss == pytest.approx(parts.history[0].loss, rel=1e-5)
    for name, value in once.state.items():
        torch.testing.assert_close(parts.state[name], value, rtol=0, atol=1e-5)


def test_the_last_batches_that_fill_no_step_are_not_lost() -> None:
    steps: list[int] = []
    trained(
        replace(CONFIG, epochs=1, batch_size=4, accumulation=3),  # 5 batches: a step of 3, a step of 2
        progress=lambda step, n_steps, loss: steps.append(n_steps),
    )
    assert steps == [2, 2]


def test_patience_stops_after_epochs_without_a_better_one() -> None:
    values = iter([0.1, 0.5, 0.4, 0.5, 0.9])
    fitted = trained(replace(CONFIG, epochs=5, patience=2), validate=lambda head: next(values))
    assert [epoch.validation for epoch in fitted.history] == [0.1, 0.5, 0.4, 0.5]
    assert fitted.best_epoch == 2


def test_without_a_defined_metric_the_last_epoch_stands() -> None:
    fitted = trained(validate=lambda head: None)
    assert fitted.best_epoch == CONFIG.epochs
    assert [epoch.validation for epoch in fitted.history] == [None] * CONFIG.epochs


def test_an_empty_split_and_a_loss_that_is_nan_are_refused() -> None:
    with pytest.raises(InputError, match="holds no item"):
        trained(split=gene_like(0))
    with pytest.raises(TrainingError, match=r"step 2; .* layer \S+ .* the batch of item .*; lower --learning-rate"):
        trained(replace(CONFIG, learning_rate=1e30))


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_schedules_rise_then_fall_to_nothing(schedule: str) -> None:
    rates = [factor(schedule, step, n_steps=20, warmup_steps=5) for step in range(20)]  # type: ignore[arg-type]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    after = np.diff(rates[5:])
    assert (after == 0).all() if schedule == "constant" else (after < 0).all()
    assert rates[-1] == 1.0 if schedule == "constant" else 0 < rates[-1] < 0.1


def test_schedules_match_those_of_torch() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for step in range(10):
        assert factor("cosine", step, n_steps=10, warmup_steps=0) == pytest.approx(cosine.get_last_lr()[0], abs=1e-7)
        optimizer.step()
        cosine.step()


class Killed(BaseException):
    """Stands for SIGKILL inside one process; nothing of the package catches it."""


def killed_and_resumed(config: FitConfig, kills: list[int], folder: Path) -> Fitted:
    """Trains, dying after so many steps of each life, until a life lasts."""
    for lasts in kills:
        left = [lasts]

        def die(step: int, steps: int, loss: float, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] <= 0:
                raise Killed

        try:
            trained(config, progress=die, folder=folder)
        except Killed:
            torch.manual_seed(987)  # a new process has another state
            continue
    return trained(config, folder=folder)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    kills=st.lists(st.integers(1, 9), max_size=3),
    checkpoint_every=st.integers(1, 4),
    accumulation=st.sampled_from([1, 2]),
    schedule=st.sampled_from(["constant", "cosine"]),
)
def test_killed_anywhere_and_resumed_is_equal_to_the_bit(
    kills: list[int], checkpoint_every: int, accumulation: int, schedule: str
) -> None:
    config = replace(
        CONFIG,
        checkpoint_every=checkpoint_every,
        accumulation=accumulation,
        schedule=schedule,  # type: ignore[arg-type]
        warmup_steps=3,
    )
    with TemporaryDirectory() as folder:
        assert_equal_to_the_bit(killed_and_resumed(config, kills, Path(folder) / "run"), trained(config))


def test_a_resumed_run_does_not_repeat_the_steps_before_its_checkpoint(tmp_path: Path) -> None:
    seen: list[int] = []

    def die_at_seven(step: int, steps: int, loss: float) -> None:
        if step == 7:
            raise Killed

    with pytest.raises(Killed):
        trained(progress=die_at_seven, folder=tmp_path)
    fitted = trained(progress=lambda step, steps, loss: seen.append(step), folder=tmp_path)
    assert fitted.resumed_at == 6
    assert seen == list(range(7, 16))


def test_a_finished_training_is_read_back_without_a_step(tmp_path: Path) -> None:
    first = trained(folder=tmp_path)
    steps: list[int] = []
    again = trained(progress=lambda step, n_steps, loss: steps.append(step), folder=tmp_path)
    assert not steps
    assert_equal_to_the_bit(first, again)


def test_several_labels_per_window_train_too() -> None:
    fitted = trained(
        replace(CONFIG, epochs=10, learning_rate=0.05),
        split=window_like(24),
        make=lambda: CnnHead(width=WIDTH, n_outputs=4, hidden=8, pool_bp=12),
        validate=lambda head: None,
        loss="bce",
    )
    assert fitted.history[-1].loss < 0.8 * fitted.history[0].loss


def test_every_epoch_is_passed_to_the_callback(tmp_path: Path) -> None:
    told: list[Epoch] = []
    torch.manual_seed(0)
    fit(
        Dropped(),
        HeadData(train=TRAIN, loss=build_loss("cross_entropy"), validate=accuracy),
        CONFIG,
        Accelerator(cpu=True),
        callbacks=Callbacks(on_epoch=told.append),
    )
    assert [epoch.epoch for epoch in told] == [1, 2, 3]
