"""AdamW without the import of the compiler: the numbers of torch's own."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from bend_hf.training.optimizer import AdamW


def train(kind: type[torch.optim.AdamW]) -> tuple[list[torch.Tensor], dict[str, object]]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = kind(model.parameters(), lr=0.1, weight_decay=0.01)
    for _ in range(3):
        model(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return list(model.parameters()), optimizer.state_dict()


def test_steps_and_states_equal_those_of_torch() -> None:
    weights, state = train(AdamW)
    expected, expected_state = train(torch.optim.AdamW)
    assert all(torch.equal(one, other) for one, other in zip(weights, expected, strict=True))
    assert state["param_groups"] == expected_state["param_groups"]
    restored = AdamW(weights, lr=0.5)
    restored.load_state_dict(state)
    assert restored.param_groups[0]["lr"] == 0.1
    assert not any(weight.grad is not None for weight in weights)


def test_a_step_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch; from bend_hf.training.optimizer import AdamW\n"
        "w = torch.nn.Parameter(torch.ones(2)); o = AdamW([w], lr=0.1)\n"
        "w.sum().backward(); o.step(); o.zero_grad(); o.load_state_dict(o.state_dict())\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
