"""Sharded weights (FSDP): turn sharding on, gather whole tensors, and shard them again.

    accelerate launch --config_file accelerate_configs/fsdp.yaml -m bend_hf.train --task gene_finding --tune full

Each process holds a shard of every weight, gradient and optimizer state, and gathers the weights of a block while it
runs. All processes must therefore run every block equally often, even if one has nothing to predict.

>>> import torch
>>> is_sharded(torch.nn.Linear(2, 2)), whole(torch.ones(2)).tolist()
(False, [1.0, 1.0])
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from torch import Tensor, nn

from bend_hf.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

_FSDP_VARIABLE: Final = "ACCELERATE_USE_FSDP"  # set by 'accelerate launch' for a configuration with FSDP


def shard_if_asked(accelerator: Accelerator) -> None:
    """Turn FSDP on if the launch configuration asks for it, also on CPUs.

    On CPUs accelerate silently copies the weights to every process instead.

    Raises:
        ConfigError: The launch configuration asks for version 1 of FSDP.
    """
    if os.environ.get(_FSDP_VARIABLE, "false").lower() != "true" or accelerator.num_processes == 1:
        return
    from accelerate import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    is_on = accelerator.distributed_type == DistributedType.FSDP
    plugin = accelerator.state.fsdp_plugin if is_on else FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise ConfigError(
            f"fsdp_version is {plugin.fsdp_version}, whose flattened weights cannot be named in a checkpoint; "
            "set fsdp_version: 2, as in accelerate_configs/fsdp.yaml"
        )
    if not is_on:
        if accelerator.mixed_precision != "no":
            plugin.set_mixed_precision(accelerator.mixed_precision)
        accelerator.state.fsdp_plugin = plugin
        accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP


def choose_units(accelerator: Accelerator, model: nn.Module) -> None:
    """Set the modules that are gathered one by one: those whose classes the model's ``_no_split_modules`` names.

    Without this, accelerate keeps the modules of the first model that it sees.
    """
    if not accelerator.is_fsdp2:
        return
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    plugin = accelerator.state.fsdp_plugin
    plugin.auto_wrap_policy = transformer_auto_wrap_policy
    plugin.transformer_cls_names_to_wrap = list(getattr(model, "_no_split_modules", ()))


def block_classes(network: nn.Module) -> list[str]:
    """Return the class names of a network's blocks: what its outermost module lists hold."""
    inside: tuple[str, ...] = ()
    found: set[str] = set()
    for name, module in network.named_modules():
        if isinstance(module, nn.ModuleList) and not name.startswith(inside or ("\0",)):
            inside = (*inside, name + ".")
            found |= {type(block).__name__ for block in module}
    return sorted(found)


def is_sharded(model: nn.Module) -> bool:
    """Return whether the weights are sharded over the processes."""
    if "torch.distributed.fsdp" not in sys.modules:  # its import takes as long as a small training
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def _may_be_sharded() -> bool:
    """Return whether a tensor can be sharded: its class is imported, which takes seconds."""
    return "torch.distributed.tensor" in sys.modules


def whole(value: Tensor) -> Tensor:
    """Return the whole tensor. A sharded tensor is gathered on the CPU, which all processes must do together."""
    if not _may_be_sharded():
        return value
    from torch.distributed.tensor import DTensor

    if not isinstance(value, DTensor):
        return value
    gathered: Tensor = value.full_tensor()
    return gathered.detach().to("cpu")


def shard_like(weight: Tensor, value: Tensor) -> Tensor:
    """Return this process's shard of a tensor if the weight is sharded, else the tensor itself."""
    if not _may_be_sharded():
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(weight, DTensor):
        return value
    # every process has read the whole tensor, so nothing is sent
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
