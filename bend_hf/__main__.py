"""``python -m bend_hf`` is the command ``bend-hf``.

``run`` is what the installed command calls: ``main``, with fewer passes of the garbage collector and a short exit. The
libraries of a training make half a million objects that live to the end. Looking for garbage among them, and freeing
them one by one before the process ends, takes up to a third of a small command's time.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from typing import Final

from bend_hf.cli._main import main

# Objects made before the youngest are searched, and the factors of the two older generations. Python's are 700, 10 and
# 10. A small training makes 480,000 objects, and the scoring of two variants 860,000. They are those of the libraries,
# 3 % of them are garbage, and every 50,000 take 40 ms to search.
_GC_AT_START: Final = (1_000_000, 20, 100)
_GC_THRESHOLD: Final = (50_000, 20, 100)
_OUTPUT_LOST: Final = 120  # what Python exits with if it cannot flush the output


def run() -> None:
    """Run the command and end the process."""
    gc.set_threshold(*_GC_AT_START)
    gc.callbacks.append(_after_first_search)
    status = main()
    if _needs_the_interpreter():
        sys.exit(status)
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except OSError:
        os._exit(_OUTPUT_LOST)
    os._exit(status)


def _after_first_search(phase: str, _: dict[str, int]) -> None:
    """Search more often from now on."""
    if phase == "stop":
        gc.callbacks.remove(_after_first_search)
        gc.set_threshold(*_GC_THRESHOLD)


def _needs_the_interpreter() -> bool:
    """Whether something is left that only the interpreter's own end settles: a thread, a profiler, other processes."""
    threads = [one for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]
    tools = getattr(sys, "monitoring", None)
    watched = (
        sys.getprofile() is not None
        or sys.gettrace() is not None
        or (tools is not None and any(tools.get_tool(number) for number in range(6)))
    )
    distributed = sys.modules.get("torch.distributed")
    grouped = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return bool(threads) or watched or grouped or sys.flags.inspect == 1


if __name__ == "__main__":
    run()
