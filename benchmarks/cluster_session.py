"""Submit a grid to two nodes of Slurm on this machine, kill a worker, and keep what the commands print.

    python -m benchmarks.cluster_session

The commands are those of docs/cluster.md, and README.md shows them too. Needs Slurm (see ``tests/slurm_cluster.py``)
and submitit; takes two minutes on two cores. Writes ``benchmarks/results/cluster_session.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.slurm_cluster import SlurmCluster, why_not

ROOT = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).with_name("results") / "cluster_session.json"
COMMANDS = re.compile(r"^bend-hf submit (?:run|--status) .*$", re.MULTILINE)


def main() -> None:
    """Run the commands in an empty folder."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    if reason := why_not():
        raise SystemExit(reason)
    submit, status = COMMANDS.findall((ROOT / "docs" / "cluster.md").read_text(encoding="utf-8"))[:2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "slurm").mkdir()
        cluster = SlurmCluster.start(folder / "slurm")
        try:
            printed = {"submitted": run(cluster, folder, submit)}
            os.kill(holder(folder / "cache"), signal.SIGKILL)
            time.sleep(1)
            printed["running"] = run(cluster, folder, status)
            cluster.wait(300)
            printed["ended"] = run(cluster, folder, status)
        finally:
            cluster.stop()
    RESULT.write_text(json.dumps(printed, indent=1) + "\n", encoding="utf-8")
    print(*printed.values(), sep="\n")


def run(cluster: SlurmCluster, folder: Path, command: str) -> str:
    """Run a command of bend-hf and return it with what it prints."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-m", "bend_hf", *command.split()[1:]]
    environment = {**cluster.environment(), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return f"$ {command}\n{done.stdout}"


def holder(cache: Path) -> int:
    """Wait until a worker fills a shard; return its process."""
    while True:
        for lock in cache.glob("*/*.lock"):
            with contextlib.suppress(OSError, ValueError):
                return int(json.loads(lock.read_text())["pid"])
        time.sleep(0.01)


if __name__ == "__main__":
    main()
