"""Start the accelerator of a run, check its number of processes, and run work on the main process alone.

>>> (missing_processes({"WORLD_SIZE": "2"}, n_processes=1) or "").partition(";")[0]
'2 processes were requested (WORLD_SIZE), but this run has 1'
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from bend_hf.config import Precision
from bend_hf.embedders._device import set_tf32
from bend_hf.errors import BendError, ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer
    from torch import nn
    from torch.distributed import ProcessGroup
    from torch.optim import Optimizer

log = logging.getLogger(__name__)

# Variables with the number of processes: torchrun and accelerate, Slurm's srun, Open MPI, MPICH and Intel MPI.
_COUNTS: Final = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_HINT: Final = (
    "on CPUs, 'accelerate launch' needs mpirun for several processes; use ACCELERATE_USE_CPU=true "
    "torchrun --nproc_per_node N -m bend_hf.train ... instead"
)


def missing_processes(environment: Mapping[str, str], *, n_processes: int) -> str | None:
    """Return a warning if the launcher was asked for more processes than there are, else None.

    Args:
        environment: Environment variables of the process.
        n_processes: Number of processes of this run.
    """
    for name in _COUNTS:
        requested = environment.get(name, "")
        if requested.isdigit() and int(requested) > n_processes:
            return f"{requested} processes were requested ({name}), but this run has {n_processes}; {_HINT}"
    if n_processes == 1 and "WORLD_SIZE" not in environment and "MASTER_ADDR" in environment:
        # accelerate sets the address if several are requested, but may still start one
        return f"several processes were requested, but this run has one; {_HINT}"
    return None


def start_accelerator(
    *,
    mixed_precision: Precision = "no",
    processes: int | None = None,
    tunes: bool = False,
    device: str | None = None,
    tf32: bool = False,
) -> Accelerator:
    """Start the accelerator of a run.

    Args:
        mixed_precision: Precision of the training.
        processes: Number of processes that the run must have; None takes any.
        tunes: Whether a language model is trained too. Some of its weights do not contribute to its embeddings.
        device: Device of this process, such as ``cpu`` or ``cuda:1``; None chooses it from the launcher.
        tf32: Whether float32 computations of a CUDA device may use TF32.

    Raises:
        ConfigError: This machine does not support the precision, or the number of processes is not ``--processes``.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    from bend_hf.training.sharding import shard_if_asked

    if device is not None:
        choose_device(device)
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)] if tunes else []
    try:
        on_cpu = device == "cpu" or _are_launched_on_cpus()
        accelerator = Accelerator(mixed_precision=mixed_precision, cpu=on_cpu, kwargs_handlers=handlers)
    except ValueError as error:
        raise ConfigError(f"--mixed-precision {mixed_precision} does not work here: {error}") from error
    if accelerator.device.type == "cuda":
        set_tf32(tf32)
    if processes not in (None, accelerator.num_processes):
        raise ConfigError(
            f"--processes is {processes}, but this run has {accelerator.num_processes}; start that many with "
            f"torchrun --nproc_per_node or accelerate launch --num_processes. {_HINT}"
        )
    shard_if_asked(accelerator)
    problem = missing_processes(os.environ, n_processes=accelerator.num_processes)
    if problem is not None and accelerator.is_main_process:
        log.warning("WARNING: %s", problem)
    return accelerator


def _are_launched_on_cpus() -> bool:
    """Whether this is one of several launched processes, on a machine with CPUs only.

    A launch configuration for GPUs starts them there too, and accelerate would leave each of them alone.
    """
    import torch

    several = os.environ.get("WORLD_SIZE", "").isdecimal() and int(os.environ["WORLD_SIZE"]) > 1
    return several and "LOCAL_RANK" in os.environ and not torch.accelerator.is_available()


def choose_device(device: str) -> None:
    """Make a device the current one, before the processes start.

    Raises:
        ConfigError: The device does not exist here.
    """
    import torch

    kind, _, number = device.partition(":")
    known = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if device not in known and device not in {name.partition(":")[0] for name in known}:
        raise ConfigError(f"--device {device} does not exist here; expected one of {', '.join(known)}")
    if kind == "cuda" and number:
        torch.cuda.set_device(int(number))


def prepare(accelerator: Accelerator, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, AcceleratedOptimizer]:
    """Prepare a model and its optimizer, as ``accelerator.prepare`` does.

    In a single process the model is moved here. To find out whether it may move it, accelerate imports the tensors of
    sharded models, which takes longer than a small training.
    """
    from accelerate.utils import DistributedType

    alone = accelerator.distributed_type == DistributedType.NO and accelerator.device_placement
    if alone and "torch.distributed.tensor" not in sys.modules:
        model.to(accelerator.device)
        prepared = accelerator.prepare(model, optimizer, device_placement=[False, None])
    else:
        prepared = accelerator.prepare(model, optimizer)
    return cast("tuple[nn.Module, AcceleratedOptimizer]", prepared)


def free_training(accelerator: Accelerator, *trained: object) -> None:
    """Let an accelerator forget a model and its optimizer, so that the next training starts with free memory.

    On a CPU, what is no longer referenced is free at once. A collection of all of Python's objects takes longer than a
    small training and is left to other devices, whose memory is scarce.
    """
    if accelerator.device.type != "cpu":
        accelerator.free_memory(*trained)
        return
    for kept in (accelerator._models, accelerator._optimizers, accelerator._schedulers, accelerator._dataloaders):
        kept.clear()
    accelerator.step = 0


T = TypeVar("T")
_others_wait: ContextVar[bool] = ContextVar("_others_wait", default=False)  # this process works alone for all
_TIMEOUT: Final = timedelta(days=1)  # a barrier's half hour is too short; a process that hangs must still end


@dataclass(frozen=True, kw_only=True)
class _Result(Generic[T]):
    """The result of the work, or the error that it ended with."""

    value: T | None = None
    error: BendError | None = None
    defect: str | None = None


def run_on_main_process(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Run some work on the main process while the others wait, and return its result on all. All must call it.

    Work that calls it again, as a control does when it is recorded, gets the result at once: the other processes wait
    for the outer work, and would take the inner result for its own.

    Args:
        accelerator: The processes.
        work: Runs once. Its result, or the ``BendError`` that it raises, goes to every process.

    Raises:
        BendError: The work raised it; it is raised on every process.
    """
    if accelerator.num_processes == 1 or _others_wait.get():
        return work()
    from torch import distributed

    group, box, raised = _patient_group(), [_Result[T]()], None
    if accelerator.is_main_process:
        token = _others_wait.set(True)
        try:
            box = [_Result(value=work())]
        except BendError as error:
            box = [_Result(error=error)]
        except Exception as error:  # the others must not wait for a process that has ended
            raised = error
            box = [_Result(defect=f"{type(error).__name__}: {error}")]
        finally:
            _others_wait.reset(token)
    distributed.broadcast_object_list(box, src=0, group=group)
    if raised is not None:
        raise raised
    (found,) = box
    if found.error is not None:
        raise found.error
    if found.defect is not None:
        raise RuntimeError(f"the main process failed: {found.defect}")
    return found.value  # type: ignore[return-value]  # None if the work returns None


@cache
def _patient_group() -> ProcessGroup | None:
    """Return a group of all processes with a long timeout, over gloo whatever the devices are."""
    from torch import distributed

    group: ProcessGroup | None = distributed.new_group(backend="gloo", timeout=_TIMEOUT)
    return group
