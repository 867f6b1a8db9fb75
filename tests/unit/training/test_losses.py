"""Losses: padding changes nothing, parts add up, wrong weights and shapes raise."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bend_hf.errors import ConfigError, LabelError
from bend_hf.training.losses import Loss, LossName, LossParts, build_loss

NAMES: list[LossName] = list(get_args(LossName))
LOSSES: list[tuple[LossName, Loss]] = [
    *((name, build_loss(name)) for name in NAMES),
    ("cross_entropy", build_loss("cross_entropy", class_weights=[0.1, 2.0, 7.0])),
    ("bce", build_loss("bce", positive_weight=82.86)),
    ("bce", build_loss("bce", positive_weight=[1.0, 2.0, 3.0])),
]


def batch(name: LossName, n_items: int, n_windows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits (items, windows, 3) and labels that fit the loss."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n_items, n_windows, 3, generator=generator)
    if name == "cross_entropy":
        return logits, torch.randint(0, 3, (n_items, n_windows), generator=generator)
    if name == "bce":
        return logits, torch.randint(0, 2, (n_items, n_windows, 3), generator=generator)
    return logits, torch.rand((n_items, n_windows, 3), generator=generator) * 5


def padding_of(target: Tensor) -> float:
    """What marks padding: -100 is a value among real values."""
    return float("nan") if target.is_floating_point() else -100


SIZES = {"n_items": st.integers(1, 4), "n_windows": st.integers(1, 6), "seed": st.integers(0, 999)}


@pytest.mark.parametrize(("name", "loss"), LOSSES, ids=str)
@settings(deadline=None, max_examples=25)
@given(n_padded=st.integers(1, 5), **SIZES)
def test_padding_changes_neither_loss_nor_gradient(
    name: LossName, loss: Loss, n_padded: int, n_items: int, n_windows: int, seed: int
) -> None:
    logits, target = batch(name, n_items, n_windows, seed)
    wild = torch.full((n_items, n_padded, 3), float("nan"))
    padded_logits = torch.cat([logits, wild], dim=1).requires_grad_()
    padding = torch.full((n_items, n_padded, *target.shape[2:]), padding_of(target), dtype=target.dtype)
    logits.requires_grad_()
    plain, padded = loss(logits, target), loss(padded_logits, torch.cat([target, padding], dim=1))
    assert padded.count.item() == pytest.approx(plain.count.item(), rel=1e-6)
    assert padded.mean.item() == pytest.approx(plain.mean.item(), rel=1e-5)
    plain.mean.backward()
    padded.mean.backward()
    torch.testing.assert_close(padded_logits.grad[:, :n_windows], logits.grad)
    assert not padded_logits.grad[:, n_windows:].any()


@pytest.mark.parametrize(("name", "loss"), LOSSES, ids=str)
@settings(deadline=None, max_examples=25)
@given(cut=st.integers(1, 3), **SIZES)
def test_parts_of_batches_add_up_to_the_whole(
    name: LossName, loss: Loss, cut: int, n_items: int, n_windows: int, seed: int
) -> None:
    logits, target = batch(name, n_items + cut, n_windows, seed)
    whole = loss(logits, target)
    pieces = [loss(logits[:cut], target[:cut]), loss(logits[cut:], target[cut:])]
    total, count = sum(piece.total.item() for piece in pieces), sum(piece.count.item() for piece in pieces)
    assert total / count == pytest.approx(whole.mean.item(), rel=1e-5)


@pytest.mark.parametrize(("name", "loss"), LOSSES, ids=str)
def test_only_padding_is_a_loss_of_zero_with_a_gradient_of_zero(name: LossName, loss: Loss) -> None:
    logits, target = batch(name, 2, 3, seed=0)
    logits.requires_grad_()
    parts = loss(logits, torch.full_like(target, padding_of(target)))
    parts.mean.backward()
    assert (parts.mean.item(), parts.count.item()) == (0, 0)
    assert not logits.grad.any()


def test_cross_entropy_by_hand() -> None:
    """Even scores over 4 classes cost log 4 a place, whatever the weights."""
    parts = build_loss("cross_entropy", class_weights=[1, 2, 3, 4])(torch.zeros(1, 3, 4), torch.tensor([[1, 3, -100]]))
    assert parts.count.item() == 6
    assert parts.mean.item() == pytest.approx(math.log(4))


def test_bce_by_hand() -> None:
    """A logit of 0 costs log 2, a positive one three times that; labels are counted unweighted."""
    parts = build_loss("bce", positive_weight=3)(torch.zeros(1, 2, 1), torch.tensor([[1, 0]]))
    assert parts.count.item() == 2
    assert parts.mean.item() == pytest.approx(2 * math.log(2))


def test_poisson_rate_is_the_softplus_of_the_logit() -> None:
    loss = build_loss("poisson")
    logit = torch.tensor([[[0.5]]])
    rate = math.log1p(math.exp(0.5))
    assert loss(logit, torch.tensor([[[2.0]]])).mean.item() == pytest.approx(rate - 2 * math.log(rate))
    assert loss.predict(logit).item() == pytest.approx(rate)


@pytest.mark.parametrize("shape", [(4, 1), (4,)], ids=["kept", "left out"])
def test_labels_may_leave_out_an_axis_of_one(shape: tuple[int, ...]) -> None:
    target = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]])
    parts = build_loss("bce")(torch.ones(2, 4, 1), target.view(2, *shape))
    assert parts.count.item() == 8


def test_probabilities_of_classes_sum_to_one() -> None:
    predictions = build_loss("cross_entropy").predict(torch.randn(2, 5, 9))
    torch.testing.assert_close(predictions.sum(-1), torch.ones(2, 5))


def test_sums_of_half_precision_are_kept_in_float32() -> None:
    """bfloat16 counts no further than 256."""
    parts: LossParts = build_loss("bce")(
        torch.zeros(1, 1000, 1, dtype=torch.bfloat16), torch.zeros(1, 1000, dtype=torch.int64)
    )
    assert parts.count.item() == 1000
    assert parts.mean.item() == pytest.approx(math.log(2), rel=1e-3)


def test_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown loss 'cross_entorpy'; did you mean 'cross_entropy'"):
        build_loss("cross_entorpy")  # type: ignore[arg-type]


def test_weights_of_another_loss_raise() -> None:
    with pytest.raises(ConfigError, match="'bce' takes no class_weights"):
        build_loss("bce", class_weights=[1.0])
    with pytest.raises(ConfigError, match="'mse' takes no positive_weight"):
        build_loss("mse", positive_weight=2.0)


def test_labels_of_another_shape_raise() -> None:
    with pytest.raises(LabelError, match=r"\(2, 4, 1\) do not fit labels of shape \(2, 5\)"):
        build_loss("bce")(torch.zeros(2, 4, 1), torch.zeros(2, 5))
    with pytest.raises(LabelError, match=r"need labels of shape \(2, 4\), not \(2, 5\)"):
        build_loss("cross_entropy")(torch.zeros(2, 4, 9), torch.zeros(2, 5, dtype=torch.int64))


@pytest.mark.parametrize("name", ["mse", "poisson"])
def test_a_real_value_of_minus_100_is_learned(name: LossName) -> None:
    logits, target = torch.zeros(1, 2, 1), torch.tensor([[[-100.0], [float("nan")]]])
    parts = build_loss(name)(logits, target)
    assert parts.count.item() == build_loss(name).count(target).item() == 1
    torch.testing.assert_close(parts.total, build_loss(name).elementwise(logits[:, :1], target[:, :1]).sum())
