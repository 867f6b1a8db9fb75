"""What a training imports until its first step: each of these packages takes a second or more of processor time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

UNUSED = {
    *("transformers", "matplotlib", "sklearn", "scipy.io", "scipy.stats", "scipy.optimize"),
    *("torch._dynamo", "torch.distributed.tensor", "evaluate.evaluator", "evaluate.evaluation_suite"),
}
UP_TO_THE_FIRST_STEP = f"""
import os, sys
from bend_hf.cli._main import main
from bend_hf.training import optimizer
def stop(*_):
    print("imported:", *sorted({UNUSED} & set(sys.modules)), flush=True)
    os._exit(0)
optimizer.AdamW.step = stop
main("train --task cpg_methylation --data sample --model onehot --epochs 1 --head linear".split())
"""


def test_training_takes_its_first_step_without_packages_that_it_does_not_need(tmp_path: Path) -> None:
    own = {"HF_HOME": str(tmp_path / "hf"), "BEND_HF_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", UP_TO_THE_FIRST_STEP],
        cwd=tmp_path,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "imported:"
