"""Time ``bend-hf demo`` in an empty folder with empty caches, and keep what it prints for the README.

    python -m benchmarks.demo

Writes ``benchmarks/results/demo.txt`` (what it printed), ``demo.png`` (its plot) and ``demo.json`` (the time).
"""

from __future__ import annotations

import argparse
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
    """Run the demo and write the results."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
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
    body = {"name": "bend-hf demo, all tasks of the sample", "seconds": seconds, "cores": os.cpu_count()}
    (RESULTS / "demo.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    print(done.stdout)
    print(f"{seconds:.0f} s on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
