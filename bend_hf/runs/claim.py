"""Claim a piece of work among the processes that share an output folder, so that each is done once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from bend_hf.lease import Lease, Watch, take
from bend_hf.training.launch import run_on_main_process

if TYPE_CHECKING:
    from accelerate import Accelerator

Found = TypeVar("Found")
_LOOK_S: Final = 1.0
_claims: set[Path] = set()  # the leases that this process holds; a control may be a cell of its own grid


def lock_of(folder: Path, key: str) -> Path:
    """Return the lease of the process that computes what has a key, in its output folder."""
    return folder / f".{key[:32]}.lock"


@contextlib.contextmanager
def claimed(
    lock: Path, accelerator: Accelerator, find: Callable[[], Found | None], watch: Watch, *, wait: bool = True
) -> Iterator[Found | bool]:
    """Claim a piece of work until the block ends. All ranks call it.

    Args:
        lock: The lease, see ``lock_of``.
        accelerator: The processes.
        find: Finds what an earlier process has made of the same work. It is called while the lease is held.
        watch: Remembers the leases of others, to take over those of dead processes; one for all calls.
        wait: Wait while another process does the work.

    Yields:
        What was found; True if this process is to do the work; False if another process is doing it.
    """
    lease: Lease | None = None

    def claim() -> Found | bool:
        nonlocal lease
        if lock not in _claims:
            while (lease := take(lock, watch)) is None:
                if not wait:
                    return False
                time.sleep(_LOOK_S)
            _claims.add(lock)
        found = find()
        return True if found is None else found

    try:
        yield run_on_main_process(accelerator, claim)
    finally:
        if lease is not None:
            _claims.discard(lock)
            lease.release()
