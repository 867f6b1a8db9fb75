"""AdamW for stacked weights, with a learning rate for each head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from bend_hf.training.optimizer import EagerOptimizer


class StackedAdamW(EagerOptimizer):
    """AdamW for stacked weights, with a learning rate for each head; the arithmetic is that of ``torch.optim.AdamW``.

    Args:
        weights: Stacked weights, shape (K, ...) each.
        rates: Learning rate of each head, shape (K,).
        weight_decay: Weight decay of each head, shape (K,).
    """

    BETAS, EPS = (0.9, 0.999), 1e-8  # defaults of torch.optim.AdamW

    def __init__(self, weights: Iterable[nn.Parameter], rates: Sequence[float], weight_decay: Sequence[float]) -> None:
        super().__init__(weights, {"rates": list(rates), "weight_decay": list(weight_decay)})

    def set_rates(self, rates: Sequence[float]) -> None:
        """Set the learning rates of the next step; a head with the rate 0 stays as it is."""
        for group in self.param_groups:
            group["rates"] = list(rates)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # takes no closure
        """Take a step."""
        (first, second), eps = self.BETAS, self.EPS
        for group in self.param_groups:
            rates, decay = group["rates"], group["weight_decay"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
                state["step"] += 1
                n_steps, mean, square = float(state["step"]), state["exp_avg"], state["exp_avg_sq"]
                mean.lerp_(weight.grad, 1 - first)
                square.mul_(second).addcmul_(weight.grad, weight.grad, value=1 - second)
                width = (square.sqrt() / (1 - second**n_steps) ** 0.5).add_(eps)
                sizes = [rate / (1 - first**n_steps) for rate in rates]
                if len(set(rates)) == 1 and len(set(decay)) == 1:
                    weight.mul_(1 - rates[0] * decay[0])
                    weight.addcdiv_(mean, width, value=-sizes[0])
                    continue
                kept = [1 - rate * one for rate, one in zip(rates, decay, strict=True)]
                weight.mul_(_per_head(kept, weight))
                weight.sub_((mean / width).mul_(_per_head(sizes, weight)))


def _per_head(values: Sequence[float], like: Tensor) -> Tensor:
    shape = (-1, *(1 for _ in like.shape[1:]))
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(shape)
