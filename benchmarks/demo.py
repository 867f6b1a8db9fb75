"""Time ``bend-hf demo`` in an empty folder with empty caches, and keep what it shows for the README.

    python -m benchmarks.demo

Writes to ``benchmarks/results``: ``demo.json`` (time, processor time, disk; measure it on a machine that does nothing
else), ``demo_overview.json`` (the scores, and the hash of the sample) and ``demo.png`` (its plot). Writes into
``bend_hf/cli/demo.py`` what the demo says that it takes.

>>> said({"seconds": 84.6, "most_gb": 0.78}, n_cores=2), said({"seconds": 200.0, "most_gb": 0.0021}, n_cores=4)
('about 80 seconds on 2 cores and less than 1 GB of disk', 'about 3 minutes on 4 cores and less than 0.005 GB of disk')
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bend_hf.files import asset_folder, json_sha256

RESULTS = Path(__file__).resolve().parent / "results"
COMMAND = RESULTS.parents[1] / "bend_hf" / "cli" / "demo.py"


def timed(folder: Path, flags: list[str]) -> dict[str, float]:
    """Run the demo in an empty folder, and measure it.

    Returns:
        Seconds, seconds of all cores together, and gigabytes: the most in the folder at a time, and what stays in the
        home folder.
    """
    folder.mkdir()
    home = folder / "home"
    environment = {**os.environ, "HOME": str(home), "HF_HUB_OFFLINE": "1"}
    for name in ("HF_HOME", "HF_DATASETS_CACHE", "BEND_HF_CACHE", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "bend_hf", "demo", *flags]
    most = 0
    with subprocess.Popen(command, cwd=folder, env=environment) as process:
        while process.poll() is None:
            most = max(most, size_of(folder))
            time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with status {process.returncode}")
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": seconds,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "most_gb": most / 1e9,
        "left_in_home_gb": size_of(home) / 1e9,
        "left_gb": size_of(folder) / 1e9,
    }


def size_of(folder: Path) -> int:
    """Add up the bytes below a folder; files may vanish meanwhile."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(root) / name).lstat().st_size
    return total


def sample_sha256() -> str:
    """Hash the sample without its card, compressed files by their content."""
    record = json.loads((asset_folder("sample") / "sha256.json").read_text(encoding="utf-8"))
    files = {name: record["contents"].get(name, digest) for name, digest in record["files"].items()}
    return json_sha256(files)


def write_overview(overview: dict[str, object]) -> None:
    """Write the scores with the hash of the sample that they belong to."""
    body = {**overview, "sample_sha256": sample_sha256()}
    (RESULTS / "demo_overview.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


def said(measured: Mapping[str, float], *, n_cores: int) -> str:
    """Return what the demo says that it takes: the time rounded, and the next of 1, 2 and 5 times a power of ten."""
    seconds, gb = measured["seconds"], measured["most_gb"]
    step = 5 if seconds < 60 else 10
    duration = f"{round(seconds / 60)} minutes" if seconds >= 150 else f"{step * round(seconds / step)} seconds"
    power = 10.0 ** math.floor(math.log10(gb))
    limit = next(factor * power for factor in (1, 2, 5, 10) if factor * power > gb)
    return f"about {duration} on {n_cores} cores and less than {limit:.1g} GB of disk"


def write_cost(body: Mapping[str, Any]) -> None:
    """Write what was measured into the command."""
    text = COMMAND.read_text(encoding="utf-8")
    for quick, measured in ((False, body), (True, body["quick"])):
        line = f'    {quick}: "{said(measured, n_cores=body["cores"])}",'
        text = re.sub(rf'^    {quick}: "about .*",$', line, text, count=1, flags=re.MULTILINE)
    COMMAND.write_text(text, encoding="utf-8")


def main() -> None:
    """Run the demo and write the results."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        whole = timed(Path(scratch) / "whole", [])
        quick = timed(Path(scratch) / "quick", ["--quick"])
        shown = Path(scratch) / "whole" / "demo_results"
        shutil.copyfile(shown / "side_by_side.png", RESULTS / "demo.png")
        overview = json.loads((shown / "side_by_side.json").read_text(encoding="utf-8"))
    body = {
        "name": "bend-hf demo, all seven tasks of the sample",
        **whole,
        "quick": quick,
        "cores": os.cpu_count(),
    }
    write_overview(overview)
    (RESULTS / "demo.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    write_cost(body)
    print(f"{whole['seconds']:.0f} s, quick {quick['seconds']:.0f} s on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
