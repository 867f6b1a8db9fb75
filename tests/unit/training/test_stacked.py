"""Heads that are trained together learn what each learns alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from bend_hf.errors import ConfigError, InputError, TrainingError
from bend_hf.training.batches import Split
from bend_hf.training.checkpoints import Checkpoints, load_trained, random_states
from bend_hf.training.head_trainer import FitConfig, Fitted, HeadData, fit
from bend_hf.training.heads import HEADS
from bend_hf.training.heads.cnn import CnnHead
from bend_hf.training.heads.linear import LinearHead
from bend_hf.training.losses import build_loss
from bend_hf.training.predict import predict
from bend_hf.training.stacked import (
    StackedCallbacks,
    StackedData,
    StackedHeads,
    StackedMember,
    fit_stacked,
    predict_stacked,
)
from bend_hf.training.stacked import heads as stacked_module
from bend_hf.types import Ints
from tests.splits import WIDTH, Rows, gene_like, window_like

CONFIG = FitConfig(epochs=3, batch_size=4, learning_rate=0.01, weight_decay=0.01, seed=0, checkpoint_every=2)
Make = Callable[[], nn.Module]


class Dropped(nn.Module):
    """A head with dropout and running statistics, as ResNets and Basset have."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.norm = nn.Dropout(0.3), nn.BatchNorm1d(WIDTH)
        self.cnn = CnnHead(width=WIDTH, n_outputs=3, hidden=5)

    def forward(self, x_BTD: torch.Tensor, token_of_BL: torch.Tensor) -> torch.Tensor:
        x_BTD = self.norm(self.dropout(x_BTD).transpose(1, 2)).transpose(1, 2)
        logits: torch.Tensor = self.cnn(x_BTD, token_of_BL)
        return logits


def accuracy(predictions: object) -> float:
    predicted = predictions.predicted if predictions.predicted is not None else predictions.score > 0.5  # type: ignore[attr-defined]
    return float((predicted == predictions.target).mean())  # type: ignore[attr-defined]


def other_features(split: Split, seed: int) -> Split:
    """The same items with other embeddings, as another layer gives them."""
    rng = np.random.default_rng(seed)
    whole = split.embeddings.rows(np.arange(len(split)))  # type: ignore[attr-defined]
    counts = whole.token_of_BL.max(1) + 1
    mixed = whole.x_BTD @ rng.normal(size=(WIDTH, WIDTH)).astype(np.float32)
    return replace(split, embeddings=Rows([one[:n] for one, n in zip(mixed, counts, strict=True)]))


def alone(make: Make, member: StackedMember, validation: Split, loss: str) -> tuple[Fitted, np.ndarray]:
    torch.manual_seed(member.config.seed)
    head, accelerator = make(), Accelerator(cpu=True)
    split = member.train
    if member.rows is not None:
        chosen, rows = split.dataset.select(member.rows), member.rows
        split = Split(
            dataset=chosen,
            embeddings=_Chosen(split, rows),
            targets=type(split.targets)(chosen, split.targets.kind),
        )
    data = HeadData(
        train=split,
        loss=build_loss(loss),  # type: ignore[arg-type]
        validate=lambda one: accuracy(predict(one, validation, accelerator, batch_size=4)),
    )
    fitted = fit(head, data, member.config, accelerator)
    load_trained(head, fitted.state)
    predictions = predict(head, validation, accelerator, batch_size=4)
    return fitted, np.asarray(predictions.predicted if predictions.score is None else predictions.score)


class _Chosen:
    def __init__(self, split: Split, rows: Ints) -> None:
        self.split, self.chosen = split, rows

    def rows(self, rows: Ints) -> object:
        return self.split.embeddings.rows(self.chosen[rows])


def members_of(make: Make, splits: Sequence[Split], configs: Sequence[FitConfig], rows: Sequence[Ints | None]) -> list:
    members = []
    for place, (split, config, chosen) in enumerate(zip(splits, configs, rows, strict=True)):
        torch.manual_seed(config.seed)
        head = make()
        members.append(
            StackedMember(
                name=f"head {place}", head=head, train=split, config=config, rows=chosen, random=random_states()
            )
        )
    return members


def together(
    members: list[StackedMember],
    validations: Sequence[Split],
    *,
    batched: object = None,
    loss: str = "cross_entropy",
    folder: Path | None = None,
    progress: Callable[[int, int, float], None] = lambda *_: None,
) -> tuple[list[Fitted], list[np.ndarray], StackedHeads]:
    accelerator = Accelerator(cpu=True)
    stacked = StackedHeads(
        [one.head for one in members],
        batched=batched,  # type: ignore[arg-type]
        random=[one.random or {} for one in members],
    )

    def validate(heads: StackedHeads, chosen: Sequence[int]) -> list[float | None]:
        splits = [validations[place] for place in chosen]
        found = predict_stacked(heads, splits, accelerator, batch_size=4, members=chosen)
        return [accuracy(one) for one in found]

    fitted = fit_stacked(
        stacked,
        members,
        StackedData(loss=build_loss(loss), validate=validate),  # type: ignore[arg-type]
        accelerator,
        checkpoints=None if folder is None else Checkpoints(folder),
        callbacks=StackedCallbacks(on_progress=progress),
    )
    stacked.load([one.state for one in fitted])
    predictions = predict_stacked(stacked, validations, accelerator, batch_size=4)
    return fitted, [np.asarray(one.predicted if one.score is None else one.score) for one in predictions], stacked


def assert_alike(found: Fitted, expected: Fitted, *, atol: float) -> None:
    assert found.best_epoch == expected.best_epoch
    assert found.steps_per_epoch == expected.steps_per_epoch
    assert [one.epoch for one in found.history] == [one.epoch for one in expected.history]
    assert [one.validation for one in found.history] == pytest.approx([one.validation for one in expected.history])
    assert [one.loss for one in found.history] == pytest.approx([one.loss for one in expected.history], abs=1e-5)
    assert found.state.keys() == expected.state.keys()
    for name, value in expected.state.items():
        torch.testing.assert_close(found.state[name], value, rtol=0, atol=atol)


TRAIN, VALIDATION = gene_like(18, seed=1), gene_like(6, seed=2)
LAYERS = [TRAIN, other_features(TRAIN, 5), other_features(TRAIN, 6)]
VALIDATIONS = [VALIDATION, other_features(VALIDATION, 5), other_features(VALIDATION, 6)]
HEAD_KINDS: dict[str, tuple[Make, object]] = {
    "cnn by tokens": (lambda: CnnHead(width=WIDTH, n_outputs=3, hidden=5), HEADS.get("cnn").batched),
    "cnn repeated": (lambda: CnnHead(width=WIDTH, n_outputs=3, hidden=8), HEADS.get("cnn").batched),
    "even kernel": (lambda: CnnHead(width=WIDTH, n_outputs=3, hidden=4, kernel=4), HEADS.get("cnn").batched),
    "linear": (lambda: LinearHead(width=WIDTH, n_outputs=3), HEADS.get("linear").batched),
    "one by one": (Dropped, None),
}


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_layers_trained_together_learn_what_each_learns_alone(kind: str) -> None:
    make, batched = HEAD_KINDS[kind]
    members = members_of(make, LAYERS, [CONFIG] * 3, [None] * 3)
    fitted, predicted, _ = together(members, VALIDATIONS, batched=batched)
    for place, member in enumerate(members):
        expected, values = alone(make, member, VALIDATIONS[place], "cross_entropy")
        assert_alike(fitted[place], expected, atol=2e-5 if batched else 0)
        np.testing.assert_array_equal(predicted[place], values)


def test_heads_with_rows_seeds_rates_and_lengths_of_their_own_learn_what_each_learns_alone() -> None:
    rows = [np.array([3]), np.array([3, 7, 1]), np.arange(17, 5, -1), None]
    configs = [
        replace(CONFIG, epochs=5, seed=1),
        replace(CONFIG, epochs=2, seed=2, batch_size=2, learning_rate=0.03, weight_decay=0.1),
        replace(CONFIG, epochs=4, seed=3, batch_size=5, schedule="cosine", warmup_steps=2, accumulation=2),
        replace(CONFIG, epochs=6, seed=4, patience=1, schedule="linear"),
    ]
    for make, batched in (HEAD_KINDS["cnn by tokens"], HEAD_KINDS["linear"], HEAD_KINDS["one by one"]):
        members = members_of(make, [TRAIN] * 4, configs, rows)
        fitted, predicted, _ = together(members, [VALIDATION] * 4, batched=batched)
        for place, member in enumerate(members):
            expected, values = alone(make, member, VALIDATION, "cross_entropy")
            assert_alike(fitted[place], expected, atol=2e-5)
            np.testing.assert_array_equal(predicted[place], values)


def test_heads_that_keep_a_processor_busy_are_trained_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacked_module, "_TOGETHER_BYTES", 0)
    make, batched = HEAD_KINDS["cnn by tokens"]
    configs = [CONFIG, replace(CONFIG, epochs=2, batch_size=3, accumulation=2), replace(CONFIG, seed=2)]
    members = members_of(make, LAYERS, configs, [None, np.array([3, 7, 1, 9]), None])
    fitted, predicted, _ = together(members, VALIDATIONS, batched=batched)
    for place, member in enumerate(members):
        expected, values = alone(make, member, VALIDATIONS[place], "cross_entropy")
        assert_alike(fitted[place], expected, atol=1e-6)
        np.testing.assert_array_equal(predicted[place], values)


def test_labels_of_windows_train_together() -> None:
    train, test = window_like(24), window_like(9, seed=3)
    members = members_of(
        lambda: CnnHead(width=WIDTH, n_outputs=4, hidden=8, pool_bp=12),
        [train, other_features(train, 1)],
        [CONFIG] * 2,
        [None] * 2,
    )
    validations = [test, other_features(test, 1)]
    fitted, scores, _ = together(members, validations, batched=HEADS.get("cnn").batched, loss="bce")
    for place, member in enumerate(members):
        expected, values = alone(
            lambda: CnnHead(width=WIDTH, n_outputs=4, hidden=8, pool_bp=12), member, validations[place], "bce"
        )
        assert_alike(fitted[place], expected, atol=2e-5)
        np.testing.assert_allclose(scores[place], values, atol=1e-6)


class Killed(BaseException):
    """Stands for SIGKILL inside one process."""


@pytest.mark.parametrize("kind", ["cnn by tokens", "one by one"])
def test_an_interrupted_training_resumes_to_the_same_bits(kind: str, tmp_path: Path) -> None:
    make, batched = HEAD_KINDS[kind]
    configs = [CONFIG, replace(CONFIG, epochs=2, batch_size=3, seed=8), replace(CONFIG, epochs=4, patience=1)]
    whole, _, _ = together(members_of(make, LAYERS, configs, [None] * 3), VALIDATIONS, batched=batched)
    for at in (1, 6, 11, 14):

        def die(step: int, steps: int, loss: float, at: int = at) -> None:
            if step == at:
                raise Killed

        members = members_of(make, LAYERS, configs, [None] * 3)
        with pytest.raises(Killed):
            together(members, VALIDATIONS, batched=batched, folder=tmp_path, progress=die)
        torch.manual_seed(987)
    resumed, _, _ = together(
        members_of(make, LAYERS, configs, [None] * 3), VALIDATIONS, batched=batched, folder=tmp_path
    )
    assert resumed[0].resumed_at == 12
    for found, expected in zip(resumed, whole, strict=True):
        assert_alike(found, expected, atol=0)


def test_rows_that_several_heads_want_are_read_once() -> None:
    source = TRAIN.embeddings
    assert isinstance(source, Rows)
    rows = [np.arange(4), np.arange(2, 6)]
    members = members_of(lambda: LinearHead(width=WIDTH, n_outputs=3), [TRAIN] * 2, [CONFIG] * 2, rows)
    source.asked.clear()
    together(members, [VALIDATION] * 2, batched=HEADS.get("linear").batched)
    assert [sorted(asked) for asked in source.asked] == [list(range(6))] * CONFIG.epochs


def test_one_head_of_a_stack_is_a_module_of_its_own() -> None:
    members = members_of(lambda: CnnHead(width=WIDTH, n_outputs=3), LAYERS, [CONFIG] * 3, [None] * 3)
    fitted, predicted, stacked = together(members, VALIDATIONS, batched=HEADS.get("cnn").batched)
    head = stacked.head(1)
    assert head.state_dict().keys() == fitted[1].state.keys()
    predictions = predict(head, VALIDATIONS[1], Accelerator(cpu=True), batch_size=4)
    np.testing.assert_array_equal(predictions.predicted, predicted[1])


def test_what_cannot_be_trained_together_is_refused() -> None:
    make = HEAD_KINDS["linear"][0]
    with pytest.raises(ConfigError, match="different shapes"):
        StackedHeads([make(), LinearHead(width=WIDTH, n_outputs=2)])
    with pytest.raises(InputError, match="head 1 has no row"):
        together(
            members_of(make, [TRAIN] * 2, [CONFIG] * 2, [None, np.zeros(0, np.int64)]), [VALIDATION] * 2, batched=None
        )
    with pytest.raises(TrainingError, match=r"loss of head 1 became \S+ by step 2"):
        together(
            members_of(make, LAYERS[:2], [CONFIG, replace(CONFIG, learning_rate=1e38)], [None] * 2), VALIDATIONS[:2]
        )
