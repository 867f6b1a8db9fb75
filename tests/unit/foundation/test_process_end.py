"""The command ends its process at once, after everything that must happen at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}
START = """
import atexit, sys, threading, time
class Bye:
    def __del__(self):
        print("freed one by one")
kept = Bye()
kept.itself = kept  # garbage that only the interpreter's own end finds
import bend_hf.__main__ as command
sys.argv = ["bend-hf", "tasks", "--json"]
atexit.register(print, "at exit")
"""


def end(code: str, *, stdout: object = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", START + code], check=False, text=True, stdout=stdout, env=BUFFERED)


def test_output_and_functions_at_exit_are_kept_and_nothing_is_freed() -> None:
    done = end("command.run()")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "at exit")
    assert "gene_finding" in done.stdout
    assert "freed one by one" not in done.stdout


def test_the_status_of_the_command_is_that_of_the_process() -> None:
    assert end("command.main = lambda: 3\ncommand.run()").returncode == 3


@pytest.mark.parametrize(
    "left",
    ["threading.Thread(target=time.sleep, args=(0.5,)).start()", "sys.setprofile(lambda *_: None)"],
    ids=["thread", "profiler"],
)
def test_the_interpreter_ends_by_itself_where_something_is_left_to_it(left: str) -> None:
    done = end(f"command.main = lambda: 0\n{left}\ntry: command.run()\nexcept SystemExit: print('left')")
    assert done.returncode == 0
    assert done.stdout.splitlines()[:2] == ["left", "at exit"]


def test_output_that_cannot_be_written_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        assert end("command.main = lambda: print('x') or 0\ncommand.run()", stdout=full).returncode == 120
