"""Prepare the next items in one background thread while the current item is used.

>>> list(prefetch(lambda step: step * step, range(2, 5)))
[4, 9, 16]
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(make: Callable[[Item], Made], items: Iterable[Item], *, n_ahead: int = 1) -> Generator[Made, None, None]:
    """Yield ``make(item)`` for each item, in order.

    An exception of ``make`` is raised at its place in the order. Closing the generator drops what has not been
    started and waits for the call that is running.

    Args:
        make: Called in one background thread, for one item at a time.
        items: Read in the calling thread, at most ``n_ahead`` items before they are needed.
        n_ahead: How many results may wait while another one is used; this bounds the memory.

    Yields:
        The results.
    """
    left = iter(items)
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        try:
            waiting.extend(thread.submit(make, item) for item in islice(left, n_ahead))
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(thread.submit(make, item) for item in islice(left, 1))
                yield made
        finally:
            for future in waiting:
                future.cancel()
