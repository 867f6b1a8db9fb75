"""Runs trainings in one life after the other, each killed with SIGKILL where it is told; run by the resume tests.

    python -m tests.e2e.lives '[{"kills": [["step", 3], ["rename", 2]], "argv": ["--task", "gene_finding"]}]'

Every life is a fork of one process that has imported everything and computed nothing, so that a life costs no import.
The last life of each training is let live; it writes the hashes of the weights that each fold ended with into
``weights.txt`` in its ``--out``.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401  loaded once, before the forks
import datasets  # noqa: F401
import evaluate  # noqa: F401

import bend_hf.checkpoints
import bend_hf.fit
import bend_hf.train


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


def arm(where: str, number: int) -> None:
    """Makes this process kill itself at a place, when it comes there for the so-manieth time."""
    if where == "step":
        bend_hf.fit._Training._show = before(bend_hf.fit._Training._show, number, die)  # type: ignore[method-assign]
    elif where == "rename":  # a checkpoint is written but not yet in its place
        os.replace = before(os.replace, number, die)
    elif where == "epoch":
        bend_hf.fit.trained_state = before(bend_hf.fit.trained_state, number, die)
    elif where == "record":  # the predictions are written, the record is not
        bend_hf.train.write_record = before(bend_hf.train.write_record, number, die)
    else:
        raise ValueError(f"no such place: {where}")


def note_weights(out: Path) -> None:
    """Makes this process write down which weights each fold ends with."""
    fit = bend_hf.fit.fit

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        fitted = fit(*args, **kwargs)
        content = b"".join(name.encode() + value.numpy().tobytes() for name, value in sorted(fitted.state.items()))
        with (out / "weights.txt").open("a") as file:
            file.write(f"{hashlib.sha256(content).hexdigest()} {fitted.resumed_at}\n")
        return fitted

    bend_hf.fit.fit = wrapped


def life(argv: list[str], prepare: Callable[[], None]) -> int:
    """One life; its wait status."""
    child = os.fork()
    if child == 0:
        prepare()
        os._exit(bend_hf.train.main(argv))
    return os.waitpid(child, 0)[1]


def main() -> None:
    """All lives of all trainings."""
    for training in json.loads(sys.argv[1]):
        argv = training["argv"]
        for where, number in training["kills"]:
            status = life(argv, partial(arm, where, number))
            if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
                raise SystemExit(f"a life that was to end at {where} {number} ended with {status}")
        status = life(argv, partial(note_weights, Path(argv[argv.index("--out") + 1])))
        if status:
            raise SystemExit(f"the last life of {argv} ended with {status}")


if __name__ == "__main__":
    main()
