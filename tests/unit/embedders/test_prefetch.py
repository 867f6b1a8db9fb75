"""Results that background threads prepare in advance: in order, bounded, with errors at their place."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from bend_hf.embedders._pipeline import prefetch


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(prefetch(lambda item: item * 2, iter(range(50)), n_ahead=3)) == list(range(0, 100, 2))


def test_no_item_gives_no_result() -> None:
    assert list(prefetch(str, [])) == []


def test_the_next_result_is_made_before_it_is_asked_for() -> None:
    third = threading.Event()

    def make(item: int) -> int:
        if item == 6:
            third.set()
        return item

    results = prefetch(make, range(4, 8))
    assert (next(results), next(results)) == (4, 5)
    assert third.wait(timeout=60)
    assert list(results) == [6, 7]


@pytest.mark.parametrize("n_ahead", [1, 2, 4])
def test_items_are_read_no_further_than_n_ahead(n_ahead: int) -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            read.append(item)
            yield item

    results = prefetch(lambda item: item, items(), n_ahead=n_ahead)
    for item in range(5):
        assert next(results) == item
        assert len(read) == item + 1 + n_ahead


def test_one_thread_makes_one_result_at_a_time() -> None:
    threads: set[int] = set()
    running = threading.Lock()

    def make(item: int) -> int:
        assert running.acquire(blocking=False)
        threads.add(threading.get_ident())
        running.release()
        return item

    assert len(list(prefetch(make, range(30), n_ahead=4))) == 30
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_an_exception_is_raised_at_its_place_and_nothing_is_made_after_it() -> None:
    made: list[int] = []

    def make(item: int) -> int:
        made.append(item)
        if item == 2:
            raise OSError("the disk is gone")
        return item

    results = prefetch(make, range(6))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)
    assert made == [0, 1, 2]
    assert list(results) == []


def test_closing_early_waits_for_the_running_call_and_drops_the_others() -> None:
    started, release = threading.Event(), threading.Event()
    made: list[int] = []

    def make(item: int) -> int:
        if item == 1:
            started.set()
            release.wait(timeout=60)
        made.append(item)
        return item

    results = prefetch(make, range(6), n_ahead=3)
    assert next(results) == 0
    assert started.wait(timeout=60)
    threading.Timer(0.05, release.set).start()
    results.close()
    assert made == [0, 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_calls_in_several_threads_overlap_and_stay_in_order() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def slow(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01 * (3 - number % 3))
        with lock:
            running -= 1
        return number

    assert list(prefetch(slow, range(12), n_ahead=2, n_threads=2)) == list(range(12))
    assert most == 2
    assert not [one.name for one in threading.enumerate() if one.name.startswith("prefetch")]


def test_an_error_in_one_of_several_threads_is_raised_at_its_place() -> None:
    read = []

    def items() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    def fails(number: int) -> int:
        if number == 3:
            raise ValueError(number)
        return number

    each = prefetch(fails, items(), n_ahead=2, n_threads=2)
    assert [next(each) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="3"):
        next(each)
    assert len(read) <= 3 + 3


def test_without_results_ahead_each_is_made_where_it_is_asked_for() -> None:
    threads = set(prefetch(lambda item: threading.current_thread(), range(3), n_ahead=0, n_threads=2))
    assert threads == {threading.current_thread()}
