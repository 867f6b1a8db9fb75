"""The accelerator of a run, and whether it got the processes that were asked for.

>>> (missing_processes({"WORLD_SIZE": "2"}, n_processes=1) or "").partition(";")[0]
'2 processes were asked for (WORLD_SIZE), but this run has 1'

Work that one process does while the others wait, however long it takes.

An ordinary barrier gives up after half an hour; what is learned from two million windows may take longer.

>>> from accelerate import Accelerator
>>> run_on_main_process(Accelerator(cpu=True), lambda: 3)
3
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from bend_hf.config import RunConfig
from bend_hf.errors import BendError, ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

# How many processes a launcher says that it starts: torchrun and accelerate, Slurm's srun, Open MPI, MPICH and Intel.
_COUNTS: Final = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_HINT: Final = (
    "on CPUs 'accelerate launch' starts several only through mpirun; use ACCELERATE_USE_CPU=true "
    "torchrun --nproc_per_node N -m bend_hf.train ... there"
)


def missing_processes(environment: Mapping[str, str], *, n_processes: int) -> str | None:
    """What to say where a launcher promised more processes than there are; None where all is well.

    Args:
        environment: The process's environment variables.
        n_processes: How many there are.
    """
    for name in _COUNTS:
        promised = environment.get(name, "")
        if promised.isdigit() and int(promised) > n_processes:
            return f"{promised} processes were asked for ({name}), but this run has {n_processes}; {_HINT}"
    if n_processes == 1 and "WORLD_SIZE" not in environment and "MASTER_ADDR" in environment:
        # accelerate sets the address where it was told of several, and starts one without it all the same
        return f"several processes were asked for, but this run has one; {_HINT}"
    return None


def start_accelerator(config: RunConfig) -> Accelerator:
    """The accelerator of a run.

    Raises:
        ConfigError: The precision does not exist on this machine, or there are not as many processes as
            ``--processes`` wants.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    from bend_hf.training.sharding import shard_if_asked

    # a language model has weights that its embeddings do not pass through
    handlers = [] if config.tune == "head" else [DistributedDataParallelKwargs(find_unused_parameters=True)]
    try:
        accelerator = Accelerator(mixed_precision=config.mixed_precision, kwargs_handlers=handlers)
    except ValueError as error:
        raise ConfigError(f"--mixed-precision {config.mixed_precision} does not work here: {error}") from error
    if config.processes not in (None, accelerator.num_processes):
        raise ConfigError(
            f"--processes is {config.processes}, but this run has {accelerator.num_processes}; start as many with "
            f"torchrun --nproc_per_node or accelerate launch --num_processes. {_HINT}"
        )
    shard_if_asked(accelerator)
    problem = missing_processes(os.environ, n_processes=accelerator.num_processes)
    if problem is not None and accelerator.is_main_process:
        log.warning("WARNING: %s", problem)
    return accelerator


T = TypeVar("T")
_PATIENCE: Final = timedelta(days=1)  # and an end all the same, should a process hang


@dataclass(frozen=True, kw_only=True)
class _Found(Generic[T]):
    """What the work gave, or why it gave nothing."""

    value: T | None = None
    error: BendError | None = None
    defect: str | None = None


def run_on_main_process(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """What the main process makes of some work, on every process; all must call it.

    Args:
        accelerator: The processes.
        work: Done once; what it gives, or the error of the user's that it raises, goes to all.

    Raises:
        BendError: The work raised it, on every process alike.
    """
    if accelerator.num_processes == 1:
        return work()
    from torch import distributed

    group, box, raised = _patient_group(), [_Found[T]()], None
    if accelerator.is_main_process:
        try:
            box = [_Found(value=work())]
        except BendError as error:
            box = [_Found(error=error)]
        except Exception as error:  # the others must not wait for a process that is gone
            raised = error
            box = [_Found(defect=f"{type(error).__name__}: {error}")]
    distributed.broadcast_object_list(box, src=0, group=group)
    if raised is not None:
        raise raised
    (found,) = box
    if found.error is not None:
        raise found.error
    if found.defect is not None:
        raise RuntimeError(f"the main process failed: {found.defect}")
    return found.value  # type: ignore[return-value]  # None where that is what the work gives


@cache
def _patient_group() -> Any:
    """All processes, over the network of CPUs whatever the devices are, with much time."""
    from torch import distributed

    return distributed.new_group(backend="gloo", timeout=_PATIENCE)
