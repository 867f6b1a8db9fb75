"""Ten steps of training end in BEND's weights."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bend_hf.training.heads.cnn import CnnHead
from bend_hf.training.losses import build_loss
from tests.shared_data import GOLDEN, needs_shared

pytestmark = needs_shared

CASES: dict[str, dict[str, Any]] = (
    json.loads((GOLDEN / "index.json").read_text())["training"] if GOLDEN.is_dir() else {}
)


@pytest.mark.parametrize("name", list(CASES))
def test_ten_steps_of_adamw_end_in_bends_weights(name: str) -> None:
    case = CASES[name]
    given = case["kwargs"]
    head = CnnHead(
        width=given["input_size"],
        n_outputs=given["output_size"],
        hidden=given["hidden_size"],
        kernel=given["kernel_size"],
        pool_bp=given.get("output_downsample_window"),
    )
    head.load_state_dict(load_file(GOLDEN / case["init"]))
    optimiser = torch.optim.AdamW(head.parameters(), lr=case["lr"], weight_decay=case["weight_decay"])
    loss_of = (
        build_loss("cross_entropy")
        if case["crit"] == "CrossEntropyLoss"
        else build_loss("bce", positive_weight=82.86 if name == "enhancer" else None)
    )
    stored = np.load(GOLDEN / case["npz"])
    batches = [
        (torch.from_numpy(stored[f"x{i}"]), torch.from_numpy(stored[f"y{i}"])) for i in (0, 1) if f"x{i}" in stored
    ]
    losses = []
    for step in range(case["steps"]):
        x_BTD, target = batches[step % len(batches)]
        optimiser.zero_grad()
        loss = loss_of(head(x_BTD, torch.arange(x_BTD.shape[1]).expand(len(x_BTD), -1)), target).mean
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, stored["losses"], rtol=1e-4)
    final = load_file(GOLDEN / case["final"])
    for key, value in head.state_dict().items():
        np.testing.assert_allclose(value, final[key], atol=1e-4, rtol=0, err_msg=key)
