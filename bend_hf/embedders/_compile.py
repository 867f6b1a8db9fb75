"""Compile a network with ``torch.compile``, and give it few shapes, because each new one is compiled again.

Both numbers of a shape, chunks and tokens, are compiled as variables. Networks whose code depends on them are compiled
for each shape, of which there are few: chunks are padded to one of 16 lengths per power of two, and batches to a
quarter, half or all of the chunks that fit. A length that fills whole batches without padding, as equal windows of
single nucleotides do, keeps its own shape.

>>> [bucket_tokens(n) for n in (9, 87, 130, 514, 1000)]
[16, 88, 136, 544, 1024]
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from bend_hf.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BACKEND = "inductor"  # torch.compile's default
_STEPS: Final = 16  # lengths per power of two: padding adds 1/16 at most, besides the smallest step
_SMALLEST_STEP: Final = 8  # tokens
_MOST_SHAPES: Final = 64  # torch compiles 8 by default, and then computes without it
_MOST_OWN_LENGTHS: Final = 8


def compile_network(model: nn.Module, device: torch.device) -> None:
    """Compile the calls of a network and of its base model, in place; the work is done when a shape is first seen.

    Raises:
        ConfigError: There is no C++ compiler, which the CPU needs.
    """
    import torch._dynamo

    if BACKEND == "inductor" and device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise ConfigError(
            "--compile is given, but there is no C++ compiler on this machine, which torch.compile needs on a CPU; "
            "install g++, or leave the flag out"
        )
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, _MOST_SHAPES)
    for one in {id(module): module for module in (model, getattr(model, "base_model", model))}.values():
        one.compile(backend=BACKEND)


def bucket_tokens(n_tokens: int) -> int:
    """Return the length to which a chunk is padded.

    Args:
        n_tokens: Its tokens.
    """
    step = max(_SMALLEST_STEP, (1 << (n_tokens - 1).bit_length() - 1) // _STEPS) if n_tokens > 1 else _SMALLEST_STEP
    return -(-n_tokens // step) * step


class Shapes:
    """Chooses the shapes of the batches of a compiled network.

    Args:
        equal_lengths: Whether chunks must not be padded.
    """

    def __init__(self, *, equal_lengths: bool) -> None:
        self._equal_lengths = equal_lengths
        self._own: set[int] = set()  # lengths that keep their own shape

    def n_tokens(self, longest: int, *, is_full: bool, most: int | None) -> int:
        """Return the tokens of each chunk of a batch, padding included.

        Args:
            longest: Tokens of the longest chunk.
            is_full: Whether all chunks have this length and fill the batch.
            most: Tokens that the network takes; None: any number.
        """
        if is_full and len(self._own) < _MOST_OWN_LENGTHS:
            self._own.add(longest)
        if self._equal_lengths or longest in self._own:
            return longest
        return max(longest, min(bucket_tokens(longest), most or bucket_tokens(longest)))

    @staticmethod
    def n_chunks(n: int, *, budget: int) -> int:
        """Return the chunks of a batch: a quarter, half or all of what fits, or all of a few.

        Args:
            n: How many there are.
            budget: How many fit.
        """
        return next((part for part in (-(-budget // 4), -(-budget // 2)) if n <= part and part > 1), max(n, budget))

    @staticmethod
    def mark(*tensors: Tensor | None) -> None:
        """Say that the numbers of chunks and tokens vary, so that one compiled function can serve all of them."""
        import torch._dynamo

        for one in tensors:
            if one is not None and min(one.shape) > 1:
                torch._dynamo.maybe_mark_dynamic(one, [0, 1])
