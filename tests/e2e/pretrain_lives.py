"""Pretrains in one life after the other, each killed with SIGKILL where it is told; run by the resume tests.

    python -m tests.e2e.pretrain_lives '[{"kills": [["step", 3], ["rename", 2]], "argv": ["--model", "convnet"]}]'

As in ``tests.e2e.lives``, every life is a fork of one process that has imported everything and computed nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import bend_hf.training.pretraining.run
import bend_hf.training.pretraining.run_folder as saving
import bend_hf.training.pretraining.trainer as loop
from tests.killing import before, die, import_all


def die_in_the_middle_of_a_line(folder: saving.RunFolder, losses: list[saving.StepLoss], *_: Any) -> None:
    """Writes all losses but half of the last one, as a kill between two writes to the disk leaves them."""
    text = "".join(one.line() for one in losses)
    with folder.losses.open("a", encoding="utf-8") as file:
        file.write(text[:-9])
    die()


def arm(where: str, number: int) -> None:
    """Makes this process kill itself at a place, when it comes there for the so-manieth time."""
    if where == "step":
        loop.Pretrainer._step = before(loop.Pretrainer._step, number, die)  # type: ignore[method-assign]
    elif where == "rename":  # something is written but not yet in its place
        os.replace = before(os.replace, number, die)
    elif where == "losses":
        saving.RunFolder.append = before(  # type: ignore[method-assign]
            saving.RunFolder.append, number, die_in_the_middle_of_a_line
        )
    elif where == "validation":
        loop.validate = before(loop.validate, number, die)
    elif where == "summary":  # all is done but for saying so
        bend_hf.training.pretraining.run.summarize = before(bend_hf.training.pretraining.run.summarize, number, die)
    else:
        raise ValueError(f"no such place: {where}")


def life(argv: list[str], kill: tuple[str, int] | None) -> int:
    """One life; its wait status."""
    child = os.fork()
    if child == 0:
        if kill is not None:
            arm(*kill)
        os._exit(bend_hf.training.pretraining.run.main(argv))
    return os.waitpid(child, 0)[1]


def main() -> None:
    """All lives of all trainings."""
    import_all()
    for training in json.loads(sys.argv[1]):
        for where, number in training["kills"]:
            status = life(training["argv"], (where, number))
            if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
                raise SystemExit(f"a life that was to end at {where} {number} ended with {status}")
        status = life(training["argv"], None)
        if status:
            raise SystemExit(f"the last life of {training['argv']} ended with {status}")


if __name__ == "__main__":
    main()
