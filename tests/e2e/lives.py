"""Runs trainings in one life after the other, each killed with SIGKILL where it is told; run by the resume tests.

    python -m tests.e2e.lives '[{"kills": [["step", 3], ["rename", 2]], "argv": ["--task", "gene_finding"]}]'

Every life is a fork of one process that has imported everything and computed nothing, so that a life costs no import.
The last life of each training is let live; it writes the hashes of the weights that each fold ended with into
``weights.txt`` in its ``--out``. ``"ranks": 2`` gives a life two processes, as torchrun starts them; ``"environment"``
holds variables of its own, ``"lives_ranks"`` the processes of each life where they differ, and ``"dropout": false``
trains Basset without it. ``"families"`` names a file; every model family is tried there instead of a training.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bend_hf.runs.outcome
import bend_hf.runs.run
import bend_hf.train
import bend_hf.training.checkpoints
import bend_hf.training.head_trainer
import bend_hf.training.heads.basset
import bend_hf.training.trainer
from tests.e2e.spread import note_differences
from tests.killing import before, die, import_all


def arm(where: str, number: int) -> None:
    """Makes this process kill itself at a place, when it comes there for the so-manieth time."""
    if where == "step":
        step = (
            bend_hf.training.head_trainer.HeadTrainer._step
        )  # so many are done, with their checkpoint, before the next
        bend_hf.training.head_trainer.HeadTrainer._step = before(step, number + 1, die)  # type: ignore[method-assign]
    elif where == "rename":  # a checkpoint is written but not yet in its place
        os.replace = before(os.replace, number, die)
    elif where == "epoch":
        bend_hf.training.trainer.trained_state = before(bend_hf.training.trainer.trained_state, number, die)
    elif where == "record":  # the predictions are written, the record is not
        bend_hf.runs.outcome.write_record = before(bend_hf.runs.outcome.write_record, number, die)
    else:
        raise ValueError(f"no such place: {where}")


def note_weights(out: Path) -> None:
    """Makes this process write down which weights each fold ends with."""
    fit = bend_hf.training.head_trainer.fit

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        fitted = fit(*args, **kwargs)
        if os.environ.get("RANK", "0") != "0":
            return fitted
        content = b"".join(name.encode() + value.numpy().tobytes() for name, value in sorted(fitted.state.items()))
        with (out / "weights.txt").open("a") as file:
            file.write(f"{hashlib.sha256(content).hexdigest()} {fitted.resumed_at}\n")
        return fitted

    bend_hf.training.head_trainer.fit = wrapped


def life(
    argv: list[str], prepare: Callable[[], None], *, ranks: int = 1, environment: dict[str, str] | None = None
) -> int:
    """One life, of one process or several; the wait status of the first that did not end well, else 0."""
    shared = {**(environment or {}), **({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()} if ranks > 1 else {})}
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            os.environ.update(shared)
            if ranks > 1:
                of = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
                os.environ.update({name: str(value) for name, value in of.items()})
            prepare()
            os._exit(bend_hf.train.main(argv))
        children.append(child)
    first_bad = 0
    while children:
        child, status = os.wait()
        children.remove(child)
        if status and not first_bad:
            first_bad = status
            for other in children:  # as torchrun does; without its peer a process waits for ever
                os.kill(other, signal.SIGKILL)
    return first_bad


def free_port() -> str:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def main() -> None:
    """All lives of all trainings."""
    import_all()
    for training in json.loads(sys.argv[1]):
        argv = training.get("argv", [])
        bend_hf.training.heads.basset.DROPOUT = 0.3 if training.get("dropout", True) else 0.0
        kills = training.get("kills", [])
        ranks = training.get("lives_ranks", [training.get("ranks", 1)] * (len(kills) + 1))
        of = {"environment": training.get("environment")}
        for (where, number), n in zip(kills, ranks[:-1], strict=True):
            status = life(argv, partial(arm, where, number), ranks=n, **of)
            if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
                raise SystemExit(f"a life that was to end at {where} {number} ended with {status}")
        last = note_differences if "families" in training else note_weights
        place = training["families"] if "families" in training else argv[argv.index("--out") + 1]
        status = life(argv, partial(last, Path(place)), ranks=ranks[-1], **of)
        if status:
            raise SystemExit(f"the last life of {argv} ended with {status}")


if __name__ == "__main__":
    main()
