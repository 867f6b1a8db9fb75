"""The heads give what BEND's give on the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bend_hf.tasks._spec import Head
from bend_hf.training.heads import build_head
from tests.shared_data import GOLDEN, needs_shared

pytestmark = needs_shared

CASES: dict[str, dict[str, Any]] = json.loads((GOLDEN / "index.json").read_text())["heads"] if GOLDEN.is_dir() else {}
CALLS = [(name, call) for name, case in CASES.items() for call in case["calls"]]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda logits: logits,
    "softmax": lambda logits: logits.softmax(-1),
    "softplus": nn.functional.softplus,
    "sigmoid": torch.sigmoid,
}


def spec_of(case: dict[str, Any]) -> Head:
    given = case["kwargs"]
    pool_bp = given.get("output_downsample_window")
    if case["cls"] == "Basset":
        return Head("basset", window_bp=given["input_len"])
    if case["cls"] == "CNN":
        return Head("cnn", hidden=given["hidden_size"], kernel=given["kernel_size"], pool_bp=pool_bp)
    return Head(
        "resnet", layers=given["n_layers"], channels=given["hidden_size"], kernel=given["kernel_size"], pool_bp=pool_bp
    )


def head_of(case: dict[str, Any]) -> nn.Module:
    state = load_file(GOLDEN / case["state"])
    head = build_head(
        spec_of(case), case["kwargs"].get("input_size", 5), case["kwargs"]["output_size"]
    )  # a supervised ResNet has no input_size
    head.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    return head.eval()


def input_of(case: dict[str, Any], length: int | None) -> Tensor:
    """BEND's heads make nucleotides one-hot themselves, and interpolate between tokens where they upsample."""
    x = torch.from_numpy(np.load(GOLDEN / case["npz"])["x"])
    if x.dtype == torch.int64:
        x = nn.functional.one_hot(x, 5).float()
    factor = case["kwargs"].get("upsample_factor")
    if factor:
        x = nn.functional.interpolate(x.transpose(1, 2), scale_factor=factor, mode="linear").transpose(1, 2)
    return x[:, :length]


@pytest.mark.parametrize(("name", "call"), CALLS)
def test_head_gives_what_bend_gives(name: str, call: str) -> None:
    case = CASES[name]
    given = case["calls"][call]["kwargs"]
    x = input_of(case, given.get("length"))
    with torch.no_grad():
        logits = head_of(case)(x, torch.arange(x.shape[1]).expand(len(x), -1))
    ours = ACTIVATIONS[given.get("activation", "none")](logits).numpy()
    theirs = np.load(GOLDEN / case["npz"])[call]
    if name == "cnn_kernel5":  # BEND pads by 1 whatever the kernel; its ends, and what they reach, are not ours
        ours, theirs = ours[:, 4:-4], theirs[:, 2:-2]
    np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, atol=1e-5, rtol=0)


def test_kernel_of_five_keeps_the_length() -> None:
    case = CASES["cnn_kernel5"]
    x = input_of(case, None)
    logits = head_of(case)(x, torch.arange(x.shape[1]).expand(len(x), -1))
    assert logits.shape[1] == x.shape[1]


@pytest.mark.parametrize("name", ["cnn_gene_finding", "cnn_histone", "cnn_enhancer"])
def test_padded_batch_gives_what_bend_gives_alone(name: str) -> None:
    case = CASES[name]
    x = input_of(case, None)
    head = head_of(case)
    garbage = torch.cat([x, torch.full((len(x), 300, x.shape[2]), 7.0)], dim=1)
    token_of = torch.arange(garbage.shape[1]).expand(len(x), -1)
    token_of = torch.where(token_of < x.shape[1], token_of, -1)
    with torch.no_grad():
        logits = head(garbage, token_of)
    theirs = np.load(GOLDEN / case["npz"])["none"]
    windows = x.shape[1] // (head.pool_bp or 1)
    np.testing.assert_allclose(logits[:, :windows].reshape(theirs.shape), theirs, atol=1e-5, rtol=0)
