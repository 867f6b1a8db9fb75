"""Weights that stay float32 when the rest of their model is cast to half precision.

For networks whose scans and filters exponentiate small numbers: eight bits of mantissa would ruin them.

>>> import torch
>>> keep_float32(lambda value: value.to(torch.bfloat16))(torch.zeros(2)).dtype
torch.float32
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def keep_float32(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function that ``nn.Module._apply`` hands to a module, without its casts to fewer than 32 bits.

    Args:
        function: What ``.to``, ``.half`` or ``.cuda`` do to each tensor.
    """

    def keeping(value: Tensor) -> Tensor:
        changed = function(value)
        if changed.is_floating_point() and changed.element_size() < 4:
            return value.to(device=changed.device, dtype=torch.float32)
        return changed

    return keeping
