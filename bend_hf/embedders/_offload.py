"""Run a network whose blocks the device cannot hold: each block is copied there when it is needed.

The next block is read and copied by a thread, on a stream of its own, while the current one computes. So the device
holds two blocks at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call


@dataclass(frozen=True, kw_only=True)
class _OnDevice:
    """The weights of one block, and the event after which their copy is complete."""

    weights: dict[str, Tensor]
    copied: torch.cuda.Event | None


class StreamedBlocks:
    """Blocks that are on the device only while they compute.

    Args:
        blocks: The blocks without memory for their weights (device ``meta``).
        load: Returns the weights of a block on the host, by name.
        device: Where the blocks compute.
        pin: Whether ``load`` returns the same memory each time, which is then pinned once, for faster copies.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], load: Callable[[int], dict[str, Tensor]], device: torch.device, *, pin: bool
    ) -> None:
        self._blocks, self._device, self._load = blocks, device, load
        self._copies: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch does not annotate it
        if pin and self._copies is not None:
            pinned = [{name: one.pin_memory() for name, one in load(n).items()} for n in range(len(blocks))]
            self._load = pinned.__getitem__

    @property
    def n_parameters(self) -> int:
        """Number of weights of all blocks."""
        return sum(weight.numel() for block in self._blocks for weight in block.parameters())

    def blocks(self, n: int) -> Iterator[Callable[..., None]]:
        """Yield the first n blocks in order, with their weights on the device."""
        with ThreadPoolExecutor(max_workers=1) as thread:
            coming = [thread.submit(self._bring, 0)] if n else []
            for number in range(n):
                block = coming.pop().result()
                if number + 1 < n:
                    coming.append(thread.submit(self._bring, number + 1))
                if block.copied is not None:
                    stream = torch.cuda.current_stream(self._device)
                    stream.wait_event(block.copied)
                    for weight in block.weights.values():
                        weight.record_stream(stream)
                yield _call(self._blocks[number], block.weights)

    def _bring(self, number: int) -> _OnDevice:
        weights = self._load(number)
        if self._copies is None:
            return _OnDevice(weights={name: one.to(self._device) for name, one in weights.items()}, copied=None)
        with torch.cuda.stream(self._copies):
            moved = {name: one.to(self._device, non_blocking=True) for name, one in weights.items()}
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch does not annotate it
            copied.record(self._copies)
        return _OnDevice(weights=moved, copied=copied)


def _call(block: nn.Module, weights: dict[str, Tensor]) -> Callable[..., None]:
    def run(*arguments: object, **keywords: object) -> None:
        functional_call(block, weights, arguments, keywords)

    return run
