"""Lets a process end itself as ``kill -9`` would, at a chosen call of a function, and makes its lives cheap.

>>> before(len, 2, lambda *_: print("second"))("abc")
3
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import bend_hf


def die(*_: object) -> None:
    """As kill -9 does: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(function: Callable[..., Any], number: int, act: Callable[..., None]) -> Callable[..., Any]:
    """The function, with something done before its call of that number."""
    calls = [0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == number:
            act(*args)
        return function(*args, **kwargs)

    return wrapped


CHANGES = ("os.link", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.utime")


def fetch_and_die(url: str, folder: Path, moment: int | None, count: Path, of: Literal["calls", "changes"]) -> None:
    """Download a file in a process of its own, and die at a function call or before a change; or count them."""
    from bend_hf.data.download import RemoteFile, download

    seen = 0

    def watch(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            die()

    def watch_changes(event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and str(arguments[0]).startswith(str(folder)):
            watch()

    if of == "calls":
        sys.setprofile(watch)
    else:
        sys.addaudithook(watch_changes)
    download(RemoteFile(name="weights.bin", url=url), folder)
    sys.setprofile(None)
    count.write_text(str(seen))


def import_all() -> None:
    """Imports the package and what it imports late, before the forks, so that a life costs no import."""
    for module in pkgutil.walk_packages(bend_hf.__path__, "bend_hf."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("accelerate", "datasets", "evaluate", "h5py", "scipy.stats", "sklearn.metrics", "transformers"):
        importlib.import_module(name)
