"""Measure how fast a model embeds on this machine, and what BEND's tasks need at that speed.

The whole embedder (tokenizing, batches, the device, and rows in host memory as they are stored) takes turns with the
network alone on ready tensors, so that a machine that others use slows down both. The peak of the device is that of a
large matrix product in the same dtype.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.config import ModelFlags, flag
from bend_hf.errors import ConfigError, ModelError
from bend_hf.files import cache_folder
from bend_hf.runs.flag_effects import check_model_flags
from bend_hf.runs.published_size import ROWS, published_bp
from bend_hf.tasks import TASKS
from bend_hf.types import StoredDtype

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bend_hf.embedders._embedder import Embedder

_MATRIX: Final = {"cpu": 1024, "mps": 4096, "cuda": 8192}  # rows of the matrices whose product gives the peak
_DISK_BYTES: Final = 1 << 26  # written and flushed to measure the disk


@dataclass(frozen=True, kw_only=True)
class BenchConfig(ModelFlags):
    """The model, and the sequences that it is timed on.

    Raises:
        ConfigError: A number is not positive.
    """

    window_bp: int = flag(512, "nucleotides of a sequence", "speed", group="data")
    windows: int = flag(128, "number of sequences", "speed", group="data")
    rounds: int = flag(3, "how often each side is timed; the fastest counts", "speed", group="data")
    cache_dtype: StoredDtype = flag("float16", "dtype of stored embeddings", group="output")
    cache: Path | None = flag(None, "folder whose disk is measured; default: $BEND_HF_CACHE", "nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window_bp", "windows", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class TaskCost:
    """What a task needs at its published size.

    Attributes:
        task: Its key.
        nucleotides: Nucleotides that go through the model.
        hours: Time of the passes, or of writing if the disk is slower.
        gigabytes: Size of the cache; None for variants, which are not cached.
    """

    task: str
    nucleotides: int
    hours: float
    gigabytes: float | None


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What was measured.

    Attributes:
        model: Key of the model.
        device: Its device, with the name of a GPU.
        dtype: Of weights and arithmetic.
        window_bp: Nucleotides of a sequence.
        nucleotides_per_second: Of the whole embedder.
        bare_nucleotides_per_second: Of the network on ready tensors.
        share_of_bare: The first of these over the second.
        compiled_speed_up: Speed of the whole embedder with ``torch.compile`` over that without; None if it is not
            compiled. The numbers above are then those with it, except the time of compiling.
        matmul_flops: Floating-point operations per second of a large matrix product.
        share_of_matmul_peak: Operations of the network per second of the whole embedder, over that. Counted are matrix
            products, convolutions and attention; scans and Fourier transforms are not.
        stored_bytes_per_second: Bytes of embeddings that the embedder gives to be stored.
        disk_bytes_per_second: Bytes that the disk takes, flushed.
        tasks: Each task of BEND.
    """

    model: str
    device: str
    dtype: str
    window_bp: int
    nucleotides_per_second: float
    bare_nucleotides_per_second: float
    share_of_bare: float
    compiled_speed_up: float | None
    matmul_flops: float
    share_of_matmul_peak: float
    stored_bytes_per_second: float
    disk_bytes_per_second: float
    tasks: tuple[TaskCost, ...]


def bench(config: BenchConfig) -> Bench:
    """Measure a model.

    Raises:
        ModelError: The model has no network that can be timed alone.
        ConfigError: A flag has no effect on the model.
    """
    from bend_hf.embedders.cache.dtypes import torch_dtype
    from bend_hf.embedders.cache.shards import embedding_bytes
    from bend_hf.embedders.from_config import open_model

    check_model_flags(config)
    embedder = open_model(config)
    if not embedder.overlaps:
        raise ModelError(f"{embedder.name} is not timed: it embeds both strands, or with code of your own")
    random = np.random.default_rng(config.seed)
    letters = np.array(["A", "C", "G", "T"])
    sequences = ["".join(random.choice(letters, config.window_bp)) for _ in range(config.windows)]
    device, stored = embedder.runner().device, torch_dtype(config.cache_dtype)

    def whole(one: Embedder) -> int:
        with one.runner().fixed():
            return sum(len(unit.bp) for unit in one.iter_stored([sequences], stored))

    n_rows, bare = whole(embedder), _bare(embedder, sequences)
    sides: list[Callable[[], object]] = [partial(whole, embedder), bare]
    if config.compile:
        sides.append(partial(whole, open_model(replace(config, compile=False))))
    whole_s, bare_s, *plain_s = _in_turns(sides, device, config.rounds)
    n_bp = config.window_bp * config.windows
    peak = _matmul_flops(device, embedder.dtype)
    row_bytes = embedding_bytes(embedder.width, config.cache_dtype)
    disk = _disk_speed(config.cache or cache_folder("embeddings"))
    speed = n_bp / whole_s
    return Bench(
        model=config.model,
        device=_device_name(device),
        dtype=embedder.dtype,
        window_bp=config.window_bp,
        nucleotides_per_second=speed,
        bare_nucleotides_per_second=n_bp / bare_s,
        share_of_bare=bare_s / whole_s,
        compiled_speed_up=plain_s[0] / whole_s if plain_s else None,
        matmul_flops=peak,
        share_of_matmul_peak=count_flop(bare) / whole_s / peak,
        stored_bytes_per_second=n_rows * row_bytes / whole_s,
        disk_bytes_per_second=disk,
        tasks=tuple(_costs(speed, row_bytes * n_rows / n_bp, disk)),
    )


def _costs(nucleotides_per_second: float, bytes_per_bp: float, disk_bytes_per_second: float) -> list[TaskCost]:
    """Compute what each task needs."""
    found = []
    for task in TASKS:
        if task.key not in ROWS:
            continue
        n_bp = published_bp(task)
        n_bytes = None if task.variant else n_bp * bytes_per_bp
        seconds = max(n_bp / nucleotides_per_second, (n_bytes or 0.0) / disk_bytes_per_second)
        gigabytes = None if n_bytes is None else n_bytes / 1e9
        found.append(TaskCost(task=task.key, nucleotides=n_bp, hours=seconds / 3600, gigabytes=gigabytes))
    return found


def _bare(embedder: Embedder, sequences: list[str]) -> Callable[[], None]:
    """Return a function that runs the network over the batches of some sequences, which lie on the device."""
    import torch

    batches: list[tuple[Tensor, Tensor | None]] = []

    def remember(ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        batches.append((ids_BT, mask_BT))
        return ids_BT[..., None].float()

    tokenized = embedder.tokenize(sequences)
    with embedder.runner().fixed():
        for _ in embedder.runner().run(tokenized, tokenized.embedding_token, remember):
            pass

    def run() -> None:
        with torch.inference_mode():
            for ids_BT, mask_BT in batches:
                embedder._hidden(ids_BT, mask_BT, embedder.layer)

    return run


def _in_turns(functions: Sequence[Callable[[], object]], device: torch.device, rounds: int) -> list[float]:
    """Return the shortest seconds of each of some functions, timed in turns after one call that does not count."""
    for function in functions:
        function()
    timed = [[_timed(function, device) for function in functions] for _ in range(rounds)]
    return [min(of_function) for of_function in zip(*timed, strict=True)]


def _timed(function: Callable[[], object], device: torch.device) -> float:
    import torch

    def settle() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    settle()
    start = time.perf_counter()
    function()
    settle()
    return time.perf_counter() - start


def count_flop(function: Callable[[], object]) -> int:
    """Count the floating-point operations of matrix products, convolutions and attention in a call.

    >>> import torch
    >>> count_flop(lambda: torch.ones(2, 3) @ torch.ones(3, 5))
    60
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        function()
    return int(counter.get_total_flops())


def _matmul_flops(device: torch.device, dtype: str) -> float:
    """Measure the floating-point operations per second of a large matrix product."""
    import torch

    n = _MATRIX[device.type]
    a = torch.ones((n, n), dtype=getattr(torch, dtype), device=device)

    def multiply() -> None:
        for _ in range(4):
            torch.mm(a, a)

    multiply()
    return 4 * 2 * n**3 / min(_timed(multiply, device) for _ in range(3))


def _disk_speed(folder: Path) -> float:
    """Measure the bytes per second that the disk of a folder takes, flushed."""
    folder.mkdir(parents=True, exist_ok=True)
    content = os.urandom(1 << 20) * (_DISK_BYTES >> 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return len(content) / (time.perf_counter() - start)


def _device_name(device: torch.device) -> str:
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
