"""The next step's input is made in a thread while this step is computed; how long the training waited is measured.

>>> ahead = Ahead(lambda step: step * step, first=2, behind=5)
>>> list(ahead)
[4, 9, 16]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """What a function gives for the numbers of a range, in order, one made ahead.

    Args:
        make: Called in a thread, for one number at a time.
        first: The first number.
        behind: Behind the last one.

    Attributes:
        waited_seconds: For how long the one who asked had to wait, in all.
    """

    def __init__(self, make: Callable[[int], T], *, first: int, behind: int) -> None:
        self._make, self._first, self._behind = make, first, behind
        self.waited_seconds = 0.0

    def __iter__(self) -> Iterator[T]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="input") as thread:
            coming: Future[T] | None = None
            for number in range(self._first, self._behind):
                mine = coming or thread.submit(self._make, number)
                started = time.perf_counter()
                made = mine.result()
                self.waited_seconds += time.perf_counter() - started
                coming = thread.submit(self._make, number + 1) if number + 1 < self._behind else None
                yield made
