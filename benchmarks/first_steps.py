"""Run the commands of the README in an empty folder and keep what they print.

    python -m benchmarks.first_steps

A block of bash in README.md that is followed by ``<!-- begin output NAME -->`` is run, in order. Writes
``benchmarks/results/first_steps.json``, from which ``python -m benchmarks._docs`` fills the outputs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = re.compile(r"^```bash\n((?:(?!```).)*)```\n\n<!-- begin output ([a-z-]+) -->", re.DOTALL | re.MULTILINE)


def commands() -> dict[str, str]:
    """Return the blocks whose output the README shows, by name."""
    return {name: body for body, name in COMMANDS.findall((ROOT / "README.md").read_text(encoding="utf-8"))}


def main() -> None:
    """Run them all in one folder, without a network and with empty caches."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    printed = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HF_HOME": f"{folder}/hf",
            "XDG_CACHE_HOME": f"{folder}/cache",
            "HF_HUB_OFFLINE": "1",
        }
        for name, body in commands().items():
            done = subprocess.run(
                ["/bin/bash", "-euo", "pipefail", "-c", body],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            printed[name] = done.stdout
            print(f"$ {body}{done.stdout}")
    target = ROOT / "benchmarks" / "results" / "first_steps.json"
    target.write_text(json.dumps(printed, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
