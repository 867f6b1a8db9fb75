"""Work that one process does while the others wait, however long it takes.

An ordinary barrier gives up after half an hour; what is learned from two million windows may take longer.

>>> from accelerate import Accelerator
>>> from_main(Accelerator(cpu=True), lambda: 3)
3
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from bend_hf.errors import BendError

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")
_PATIENCE: Final = timedelta(days=1)  # and an end all the same, should a process hang


@dataclass(frozen=True, kw_only=True)
class _Found(Generic[T]):
    """What the work gave, or why it gave nothing."""

    value: T | None = None
    error: BendError | None = None
    defect: str | None = None


def from_main(accelerator: Accelerator, work: Callable[[], T]) -> T:
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
