"""Weights that are spread over processes, as FSDP spreads them: turned on, made whole, and cut up again.

    accelerate launch --config_file accelerate_configs/fsdp.yaml -m bend_hf.train --task gene_finding --tune full

Each process holds a share of every weight, gradient and optimizer state, and gathers the weights of a block for as long
as it runs. All processes must therefore run every block equally often, also where one has nothing to predict.

>>> is_sharded(torch.nn.Linear(2, 2)), whole(torch.ones(2)).tolist()
(False, [1.0, 1.0])
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from bend_hf.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

_ASKED: Final = "ACCELERATE_USE_FSDP"  # what 'accelerate launch' sets for a configuration with FSDP


def shard_if_asked(accelerator: Accelerator) -> None:
    """Makes sure that weights are spread where the launch asked for it.

    accelerate does so on GPUs alone: on CPUs it copies the weights to every process and says nothing. The way is the
    same on both, so it is taken on both.

    Raises:
        ConfigError: The launch asked for the first version of FSDP.
    """
    if os.environ.get(_ASKED, "false").lower() != "true" or accelerator.num_processes == 1:
        return
    from accelerate import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    is_on = accelerator.distributed_type == DistributedType.FSDP
    plugin = accelerator.state.fsdp_plugin if is_on else FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise ConfigError(
            f"fsdp_version is {plugin.fsdp_version}, which lays the weights out so that no checkpoint can name them; "
            "use fsdp_version: 2, as accelerate_configs/fsdp.yaml does"
        )
    if not is_on:
        if accelerator.mixed_precision != "no":
            plugin.set_mixed_precision(accelerator.mixed_precision)
        accelerator.state.fsdp_plugin = plugin
        accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP


def choose_units(accelerator: Accelerator, model: nn.Module) -> None:
    """Says which modules of a model are gathered one by one: those whose classes its ``_no_split_modules`` names.

    accelerate would go on with those of the first model that it sees.
    """
    if not accelerator.is_fsdp2:
        return
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    plugin = accelerator.state.fsdp_plugin
    plugin.auto_wrap_policy = transformer_auto_wrap_policy
    plugin.transformer_cls_names_to_wrap = list(getattr(model, "_no_split_modules", ()))


def block_classes(network: nn.Module) -> list[str]:
    """The classes of the blocks that a network is a stack of: what its outermost lists of modules hold."""
    inside: tuple[str, ...] = ()
    found: set[str] = set()
    for name, module in network.named_modules():
        if isinstance(module, nn.ModuleList) and not name.startswith(inside or ("\0",)):
            inside = (*inside, name + ".")
            found |= {type(block).__name__ for block in module}
    return sorted(found)


def is_sharded(model: nn.Module) -> bool:
    """Whether its weights are spread over the processes."""
    if not torch.distributed.is_available():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def whole(value: Tensor) -> Tensor:
    """The tensor itself; one that is spread is gathered on the CPU, which all processes must do together."""
    if not torch.distributed.is_available():
        return value
    from torch.distributed.tensor import DTensor

    if not isinstance(value, DTensor):
        return value
    gathered: Tensor = value.full_tensor()
    return gathered.detach().to("cpu")


def as_spread_as(weight: Tensor, value: Tensor) -> Tensor:
    """This process's share of a whole tensor where the weight is spread; else the tensor itself."""
    if not torch.distributed.is_available():
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(weight, DTensor):
        return value
    # every process has read the whole tensor, so none needs to send it
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
