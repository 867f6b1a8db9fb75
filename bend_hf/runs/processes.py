"""Call a function on several items at once, each in a process of its own, with the results in the order of the items.

    with Processes(prepare=import_packages, n=n_at_once(7)) as processes:
        for outcomes in processes.map(compare, configs):
            ...

One process imports the packages and is copied for each item (it forks), so that the imports cost their
time once. Small networks gain little from several threads, so the processes share the cores. What a process logs
is logged here when its turn comes. An error is raised here as it was there. Whatever ends the block ends the processes:
they free their leases, and finished work is kept.

>>> n_at_once(3, n_cores=2), n_at_once(3, n_cores=64), n_at_once(1, n_cores=64)
(2, 3, 1)
"""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import connection
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from bend_hf.embedders._device import usable_cores

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess
    from multiprocessing.process import BaseProcess

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST: Final = 4  # processes at once: each holds a model and its libraries, almost a gigabyte
_NO_BARS: Final = {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}  # they would mix on one line


# glibc's malloc returns large blocks to the system and gets them again, page by page, for every batch of a network.
# Blocks that are freed are kept instead. Other systems ignore this.
_KEPT_BLOCKS: Final = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


def n_at_once(n_items: int, *, n_cores: int | None = None) -> int:
    """Return how many processes work at once; 1 where it is not safe to copy a process that has imported libraries.

    Args:
        n_items: How many items there are.
        n_cores: Cores that they may use; None for those of this process.
    """
    if sys.platform != "linux":
        return 1
    return max(1, min(n_items, usable_cores() if n_cores is None else n_cores, _MOST))


@dataclass(frozen=True, kw_only=True)
class _Answer(Generic[Result]):
    """What a process sends when it ends.

    Attributes:
        records: What it logged.
        result: What the function returned.
        errors: What it raised instead, the error first and then its causes; empty if it returned.
    """

    records: list[logging.LogRecord] = field(default_factory=list)
    result: Result | None = None
    errors: tuple[BaseException, ...] = ()


_DEAD: Final = _Answer[Any](errors=(RuntimeError("a process abruptly died"),))


class Processes:
    """The processes of a block. Entering it starts the imports, which go on while the caller does something else.

    Args:
        prepare: A function of a module, which is called once before the items: it imports what they need.
        n: How many processes work at once; with 1 the function is called in this process.
    """

    def __init__(self, *, prepare: Callable[[], object], n: int) -> None:
        self._prepare, self._n = prepare, n
        self._host: SpawnProcess | None = None
        self._here, self._there = multiprocessing.Pipe()

    def __enter__(self) -> Self:
        if self._n > 1:
            level = logging.getLogger("bend_hf").level
            context = multiprocessing.get_context("spawn")
            self._host = context.Process(target=_host, args=(self._there, self._prepare, self._n, level))
            try:
                threads = {"OMP_NUM_THREADS": str(max(1, usable_cores() // self._n))}
                with _environment(_NO_BARS | _KEPT_BLOCKS | threads):
                    _start(self._host, signal.SIGINT)  # Ctrl-C is for this process, which ends the other
            except BaseException:
                _stop([self._host])
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._host is not None:
            self._here.close()
            if kind is not None:
                _stop([self._host])
            self._host.join()

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, costs: Sequence[float] | None = None
    ) -> Iterator[Result]:
        """Yield the function's results in the order of the items; call it once in a block.

        Args:
            function: A function of a module; it and the items are pickled.
            items: What it is called on.
            costs: How long each item takes, in any unit; the longest starts first, so that no process works alone at
                the end. Without it, items start in their order.

        Raises:
            RuntimeError: A process died.
        """
        if self._host is None:
            yield from map(function, items)
            return
        starts = sorted(range(len(items)), key=lambda place: 0.0 if costs is None else -costs[place])
        self._here.send((function, [(place, items[place]) for place in starts]))
        self._there.close()
        for _ in items:
            try:
                answer: _Answer[Result] = self._here.recv()
            except EOFError:
                answer = _DEAD
            yield _opened(answer)


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that are not set, for a process that starts in the block."""
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _start(process: BaseProcess, blocked: signal.Signals) -> None:
    """Start a process in which a signal is blocked; here it waits until the process is there to be ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {blocked})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(processes: Iterable[BaseProcess]) -> None:
    """End processes, and wait until they have cleaned up."""
    started = [process for process in processes if process.pid is not None]
    for process in started:
        process.terminate()
    for process in started:
        process.join()


def _opened(answer: _Answer[Result]) -> Result:
    """Log what a process logged, and return its result or raise its error."""
    for record in answer.records:
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    for error, cause in pairwise(answer.errors):
        error.__cause__ = cause
    if answer.errors:
        raise answer.errors[0]
    return answer.result  # type: ignore[return-value]  # the function returned it


def _host(pipe: connection.Connection, prepare: Callable[[], object], n: int, level: int) -> None:
    """Prepare, then copy this process for each item, ``n`` at once, and send the answers in the order of the items."""
    signal.signal(signal.SIGTERM, _end)
    prepare()
    gc.freeze()  # what was imported stays: the copies need not search it for garbage
    try:
        function, items = pipe.recv()
    except EOFError:  # nothing is wanted
        return
    fork, parent = multiprocessing.get_context("fork"), multiprocessing.parent_process()
    waiting = list(items)  # with their places, in the order in which they start
    running: dict[connection.Connection, int] = {}
    answers: dict[int, bytes] = {}
    processes: list[BaseProcess] = []
    try:
        for place in range(len(items)):
            while place not in answers:
                while waiting and len(running) < n:
                    number, item = waiting.pop(0)
                    here, there = fork.Pipe(duplex=False)
                    processes.append(fork.Process(target=_work, args=(there, function, item, level)))
                    _start(processes[-1], signal.SIGTERM)
                    there.close()
                    running[here] = number
                ready = connection.wait([*running, *([] if parent is None else [parent.sentinel])])
                for one in ready:
                    if not isinstance(one, connection.Connection):  # the parent was killed
                        return
                    number = running.pop(one)
                    answers[number] = _received(one)
            pipe.send_bytes(answers.pop(place))
    except BrokenPipeError:  # the parent is gone, or wants no more
        return
    finally:
        _stop(processes)


def _received(pipe: connection.Connection) -> bytes:
    """Read a pickled answer; the end of a process that sends none is one too."""
    try:
        return pipe.recv_bytes()
    except EOFError:
        return pickle.dumps(_DEAD)
    finally:
        pipe.close()


class _Kept(logging.Handler):
    """Keeps log records, in a form that can be pickled."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), None
        if record.exc_info:
            record.exc_text, record.exc_info = logging.Formatter().formatException(record.exc_info), None
        self.records.append(record)


def _work(pipe: connection.Connection, function: Callable[[Item], Result], item: Item, level: int) -> None:
    """Call the function in the new process, and send what it gives."""
    signal.signal(signal.SIGTERM, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    kept = _Kept()
    logging.basicConfig(level=logging.INFO, handlers=[kept], force=True)
    logging.getLogger("bend_hf").setLevel(level)
    try:
        answer: _Answer[Result] = _Answer(records=kept.records, result=function(item))
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        answer = _Answer(records=kept.records, errors=tuple(_causes(error)))
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        pipe.send(answer)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it; one that cannot be pickled is replaced by its text."""
    while error is not None:
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301  this process wrote it
            yield error
        except Exception:
            yield RuntimeError(f"{type(error).__name__}: {error}")
        error = error.__cause__
