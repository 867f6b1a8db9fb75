"""The device of a model, and the precision in which it computes there.

The dtype ``auto`` is bfloat16 on a GPU that computes in bfloat16 natively, and float32 elsewhere. float32 on a GPU is
full float32 unless TF32 is asked for: PyTorch otherwise uses TF32 in convolutions and recurrent layers by default.

>>> resolved_dtype("auto", "cpu"), resolved_dtype("float16", "cpu")
('float32', 'float16')
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from bend_hf.errors import ConfigError
from bend_hf.types import DtypeChoice, ModelDtype

if TYPE_CHECKING:
    import torch


def usable_cores() -> int:
    """Return how many cores of the machine this process may use; a batch system may allow it few of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def best_device() -> str:
    """Return ``cuda``, ``mps`` or ``cpu``, the fastest that is available."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def available_device(name: str | None) -> torch.device:
    """Return a device by its name; None: the fastest that is available.

    Raises:
        ConfigError: This machine has no such device.
    """
    import torch

    device = torch.device(name or best_device())
    if not {"cuda": torch.cuda, "mps": torch.backends.mps, "cpu": torch.cpu}[device.type].is_available():
        raise ConfigError(f"device {str(device)!r} is not available; expected {best_device()!r}")
    return device


_PLANS_FOR_GPUS: ContextVar[bool] = ContextVar("plans for GPUs", default=False)


@contextmanager
def planned_for_gpus(gpus: bool = True) -> Iterator[None]:
    """Let ``auto`` mean, within the block, what it means on a GPU with bfloat16: jobs elsewhere have one.

    Args:
        gpus: False within such a block for what is computed on this machine.
    """
    token = _PLANS_FOR_GPUS.set(gpus)
    try:
        yield
    finally:
        _PLANS_FOR_GPUS.reset(token)


def computes_in_bfloat16(device: str | None) -> bool:
    """Return whether a device is a GPU that computes in bfloat16 natively.

    Args:
        device: Its name; None: the fastest that is available, or that of the jobs within ``planned_for_gpus``.
    """
    if device is None and _PLANS_FOR_GPUS.get():
        return True
    name = device or best_device()
    if not name.startswith("cuda"):
        return False
    import torch

    if not torch.cuda.is_available():
        return False
    index = torch.device(name).index
    if index is not None and index >= torch.cuda.device_count():
        return False  # ``available_device`` says so
    with torch.cuda.device(index if index is not None else torch.cuda.current_device()):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def resolved_dtype(choice: DtypeChoice, device: str | None) -> ModelDtype:
    """Return the dtype of weights and arithmetic that a choice means on a device.

    Args:
        choice: A dtype, or ``auto``.
        device: Name of the device; None: the fastest that is available.
    """
    if choice != "auto":
        return choice
    return "bfloat16" if computes_in_bfloat16(device) else "float32"


def check_tf32(dtype: ModelDtype, device: str | None) -> None:
    """Check that TF32 has an effect.

    Raises:
        ConfigError: The model does not compute in float32, or not on a CUDA device.
    """
    kind = (device or best_device()).partition(":")[0]
    if kind != "cuda":
        raise ConfigError(
            f"--tf32 is given, but the model computes on the device {kind!r}; only CUDA devices have TF32. Leave the "
            "flag out, or give --device cuda"
        )
    if dtype != "float32":
        raise ConfigError(
            f"--tf32 is given, but the model computes in {dtype}; TF32 is a shorter float32. Leave the flag out, or "
            "give --model-dtype float32"
        )


def leave_out_planned_attention() -> None:
    """Compute attention without cuDNN, for which PyTorch makes a plan for each shape of a batch, in each thread anew.

    A plan takes the host 42 ms and more (pytorch/pytorch#191576), longer than a GPU needs for a batch. Batches of
    sequences of different lengths have many shapes.
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def set_tf32(allowed: bool) -> None:
    """Choose whether float32 matrix products, convolutions and recurrent layers use TF32 on CUDA devices.

    Args:
        allowed: Otherwise they compute in full float32.
    """
    import torch

    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
