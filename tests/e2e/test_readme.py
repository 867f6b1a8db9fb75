"""The README says what is so: its tables are up to date and its blocks run, in order, in one empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks._docs import render

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Not run here, each with its reason.
LEFT_OUT = {
    "make demo": "makes a virtual environment; the demo itself is run by test_as_typed.py",
    "make test": "is what runs this test",
    "make download-data": "needs the network; the download is tested against a loopback server",
    "accelerate launch -m bend_hf.train --task gene_finding --model dnabert2": "needs the weights of DNABERT-2",
}


def blocks() -> list[tuple[str, str]]:
    """Language and body of every block of bash or Python."""
    return re.findall(r"^```(bash|python)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_tables_are_what_the_declarations_and_benchmarks_say() -> None:
    assert render(README) == README, "run make docs"


def test_every_reason_for_leaving_a_line_out_is_in_use() -> None:
    lines = [line for _, body in blocks() for line in body.splitlines()]
    assert not [start for start in LEFT_OUT if not any(line.startswith(start) for line in lines)]


def test_blocks_run_in_order(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    rng = np.random.default_rng(0)
    rows = [f"chr1\t{i * 64}\t{i * 64 + 64}\t{i % 3}\t{('train', 'valid', 'test')[i % 3]}" for i in range(30)]
    (tmp_path / "my_task.bed").write_text("\n".join(["chromosome\tstart\tend\tlabel\tsplit", *rows]) + "\n")
    letters = rng.choice(np.frombuffer(b"ACGT", np.uint8), 64 * 30).tobytes().decode()
    (tmp_path / "my_genome.fa").write_text(f">chr1\n{letters}\n")
    for language, body in blocks():
        if language == "python":
            name = (re.match(r"# save as (\S+)", body) or ["", "block.py"])[1]
            (tmp_path / name).write_text(body)
            command = [sys.executable, name]
        else:
            kept = [line for line in body.splitlines() if not line.startswith(tuple(LEFT_OUT))]
            command = ["bash", "-euo", "pipefail", "-c", "\n".join(kept) or "true"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"
