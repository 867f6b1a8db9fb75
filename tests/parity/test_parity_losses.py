"""The losses and their gradients are BEND's, apart from the padding that BEND forgets to mask."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bend_hf.training.losses import Loss, LossName, Poisson, build_loss
from tests.shared_data import GOLDEN, needs_shared

pytestmark = needs_shared

CASES: dict[str, dict[str, Any]] = json.loads((GOLDEN / "index.json").read_text())["losses"] if GOLDEN.is_dir() else {}
NAMES: dict[str, LossName] = {
    "CrossEntropyLoss": "cross_entropy",
    "BCEWithLogitsLoss": "bce",
    "MSELoss": "mse",
    "PoissonLoss": "poisson",
}
BUG = "bce_pad_BUG_mask_inactive"


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / CASES[name]["npz"]) as stored:
        found = {key: torch.from_numpy(stored[key]) for key in stored}
    if CASES[name]["cls"] == "MSELoss":  # BEND's turns the predictions to (batch, values, places)
        found["target"] = found["target"].transpose(1, 2)
    found["pred"].requires_grad_()
    return found


def loss_of(name: str, given: dict[str, Tensor]) -> Loss:
    weights = given["class_weights"].tolist() if "class_weights" in given else None
    if NAMES[CASES[name]["cls"]] == "bce":
        return build_loss("bce", positive_weight=weights)
    return build_loss(NAMES[CASES[name]["cls"]], class_weights=weights)


@pytest.mark.parametrize("name", [name for name in CASES if name not in (BUG, "poisson")])
def test_loss_and_gradient_are_bends(name: str) -> None:
    given = arrays(name)
    loss = loss_of(name, given)(given["pred"], given["target"]).mean
    loss.backward()
    np.testing.assert_allclose(loss.item(), given["loss"].item(), rtol=1e-5)
    np.testing.assert_allclose(given["pred"].grad, given["grad"], atol=1e-5, rtol=0)


def test_poisson_of_rates_is_bends() -> None:
    given = arrays("poisson")
    loss = Poisson.of_rates(given["pred"], given["target"]).mean()
    loss.backward()
    np.testing.assert_allclose(loss.item(), given["loss"].item(), rtol=1e-5)
    np.testing.assert_allclose(given["pred"].grad, given["grad"], atol=1e-5, rtol=0)


def test_padding_that_bend_averages_over_is_left_out() -> None:
    """BEND inverts the integer labels where it means to invert the comparison, so nothing is ever masked."""
    given = arrays(BUG)
    ours = build_loss("bce")(given["pred"], given["target"])
    real = given["target"] != -100
    assert (~real).any()
    assert ours.count.item() == real.sum().item()
    by_hand = torch.nn.functional.binary_cross_entropy_with_logits(given["pred"][real], given["target"][real].float())
    np.testing.assert_allclose(ours.mean.item(), by_hand.item(), rtol=1e-6)
    assert abs(ours.mean.item() - given["loss"].item()) > 1e-3
