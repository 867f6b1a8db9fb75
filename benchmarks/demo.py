"""Runs the demo as a newcomer would and keeps what it prints, for the README.

    python benchmarks/demo.py

Writes ``benchmarks/results/demo.txt`` (the table and the paths), ``demo.png`` (the picture) and ``demo.json`` (how long
it took).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    """Times one run in an empty folder with empty caches."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "HF_HOME": f"{folder}/hf",
            "XDG_CACHE_HOME": f"{folder}/cache",
            "HF_HUB_OFFLINE": "1",
        }
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "bend_hf", "demo"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        seconds = time.perf_counter() - started
        shutil.copyfile(Path(folder) / "demo_results" / "side_by_side.png", RESULTS / "demo.png")
    (RESULTS / "demo.txt").write_text(done.stdout, encoding="utf-8")
    body = {"name": "bend-hf demo, all seven tasks of the sample", "seconds": seconds, "cores": os.cpu_count()}
    (RESULTS / "demo.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    print(done.stdout)
    print(f"{seconds:.0f} s on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
