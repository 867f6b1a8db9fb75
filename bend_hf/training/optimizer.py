"""AdamW of PyTorch, without the import of the compiler that its first step needs.

``torch.optim`` decorates its methods so that ``torch.compile`` leaves them alone. The decorators import
``torch._dynamo`` with SymPy, which takes seconds. Nothing here compiles an optimizer.

>>> import torch
>>> weight = torch.nn.Parameter(torch.ones(1))
>>> isinstance(AdamW([weight], lr=0.1), torch.optim.AdamW)
True
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch


class EagerOptimizer(torch.optim.Optimizer):
    """An optimizer whose methods are called directly. It is never compiled."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class AdamW(EagerOptimizer, torch.optim.AdamW):
    """``torch.optim.AdamW``: the same steps, states and state dicts."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # without torch's overloads
        """Take one step; see ``torch.optim.AdamW``."""
        loss: float | None = inspect.unwrap(torch.optim.AdamW.step)(self, closure)
        return loss
