"""Memory that Evo 2 takes for a long sequence, counted from the allocations of its forward pass.

    python -m benchmarks.evo2_memory

The forward pass runs on the device ``meta``, which has shapes but no memory, with the sizes of each entry in bfloat16.
Every tensor that an operation makes is counted from then until it is freed. One block of each kind stands for all
blocks, because a block leaves nothing behind but the residual stream; the weights of all blocks are added. Attention is
counted as its fused kernels allocate: the output, and one float32 number per query and head. Not counted are the work
spaces of libraries and the fragments between allocations.

Results: ``benchmarks/results/evo2_memory.json``.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bend_hf.embedders.evo2 import MODELS, published_fields
from bend_hf.embedders.networks import evo2
from bend_hf.embedders.networks.evo2 import Evo2Model
from bend_hf.embedders.networks.evo2_config import Evo2Config, config_from_json

KINDS: tuple[evo2.Kind, ...] = ("hcs", "hcm", "hcl", "attn")
RESULT = Path(__file__).with_name("results") / "evo2_memory.json"
LENGTHS_BP = (8_192, 100_000)


class Allocations(TorchDispatchMode):
    """Count the bytes of the tensors that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._bytes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Run an operation and count its outputs."""
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self._count(value)
        return out

    def _count(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        key = storage._cdata
        if key in self._bytes:
            return
        self._bytes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self._bytes.pop(key)


def fused_attention(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
    """Allocate what a fused attention does."""
    query.new_empty(query.shape[:-1], dtype=torch.float32)
    return torch.empty_like(query)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What one forward pass takes.

    Attributes:
        weights_bytes: Weights of all blocks in bfloat16; filters, poles and rotary frequencies in float32.
        activations_bytes: The most that is allocated at a time, without the weights.
    """

    weights_bytes: int
    activations_bytes: int


def memory_of(config: Evo2Config, n_tokens: int, names: Iterable[str] = ("norm",), *, device: str = "meta") -> Memory:
    """Count the memory of the forward pass over one sequence."""
    with torch.device(device):
        whole = Evo2Model(config).bfloat16()
        model = Evo2Model(replace(config, kinds=KINDS)).bfloat16().requires_grad_(False)
        ids_1T = torch.zeros(1, n_tokens, dtype=torch.int64)
    weights = sum(value.nbytes for value in whole.state_dict().values())
    with patch.object(evo2, "scaled_dot_product_attention", fused_attention), Allocations() as allocations:
        model.run(ids_1T, tuple(names))
    return Memory(weights_bytes=weights, activations_bytes=allocations.peak)


def measure() -> dict[str, Any]:
    """Measure every entry at every length."""
    rows = []
    for spec in MODELS:
        config = config_from_json(published_fields(spec.key))
        for n_bp in LENGTHS_BP:
            found = memory_of(config, n_bp)
            rows.append({"model": spec.key, "length_bp": n_bp, **asdict(found)})
            print(f"{spec.key}, {n_bp:,} bp: {found.weights_bytes / 1e9:.1f} + {found.activations_bytes / 1e9:.1f} GB")
    return {"dtype": "bfloat16", "window_tokens": evo2.WINDOW_TOKENS, "rows": rows}


if __name__ == "__main__":
    RESULT.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    print(RESULT)
