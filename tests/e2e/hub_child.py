"""A process that runs commands for tests where huggingface_hub sees a loopback Hub and does not wait between tries.

A line of JSON comes in (words of ``bend-hf``, or code; folder; token), a line goes out (status, stdout, stderr): one
process for many commands, as importing the libraries takes longer than any of them.

    HF_ENDPOINT=http://127.0.0.1:1234 python tests/e2e/hub_child.py
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import traceback
from typing import Any


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Runs what is asked for."""
    from bend_hf.cli._main import main

    os.chdir(asked["folder"])
    os.environ.pop("HF_TOKEN", None)
    if asked["token"]:
        os.environ["HF_TOKEN"] = asked["token"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if asked["code"]:
                exec(asked["code"], {})
                status = 0
            else:
                status = main(asked["words"])
        except SystemExit as stop:
            status = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
            status = 70
    return {"status": status, "stdout": out.getvalue(), "stderr": err.getvalue()}


if __name__ == "__main__":
    time.sleep = lambda seconds: None
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints past Python must not stand between the lines of JSON
    for line in sys.stdin:
        pipe.write(json.dumps(answer(json.loads(line))) + "\n")
        pipe.flush()
