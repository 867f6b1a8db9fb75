"""What a command imports and searches until its work begins: each of these packages takes processor time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

UNUSED = {
    *("transformers", "matplotlib", "sklearn", "scipy.io", "scipy.stats", "scipy.optimize"),
    *("torch._dynamo", "torch.distributed.tensor", "evaluate.evaluator", "evaluate.evaluation_suite"),
    *("bend_hf.cli.submit", "bend_hf.cli.variants", "bend_hf.runs.score_variants", "bend_hf.variants.score"),
    *("bend_hf.runs.few_shots", "bend_hf.runs.strand_report", "bend_hf.runs.decode_genes"),
    *("bend_hf.runs.controls._predict", "bend_hf.evaluation.audit.task_audit"),
}
UP_TO_THE_FIRST_STEP = f"""
import gc, os, sys
import bend_hf.__main__ as command
searches = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "bend_hf.training.trainer":
            sys.meta_path.remove(self)
            from bend_hf.training import optimizer
            optimizer.AdamW.step = stop
def stop(*_):
    print("imported:", *sorted({UNUSED} & set(sys.modules)), flush=True)
    print("searches:", len(searches), flush=True)
    os._exit(0)
sys.meta_path.insert(0, Watch())
gc.collect()
gc.callbacks.append(lambda phase, _: searches.append(phase))
sys.argv[1:] = "train --task cpg_methylation --data sample --model onehot --epochs 1 --head linear".split()
command.run()
"""
WHILE_IT_WORKS = """
import gc
import bend_hf.__main__ as command
def works():
    print(gc.get_threshold()[0] > 500_000)
    gc.collect()
    print(gc.get_threshold()[0] == 50_000, command._after_first_search in gc.callbacks)
    return 0
command.main = works
command.run()
"""


def run(code: str, tmp_path: Path) -> list[str]:
    own = {"HF_HOME": str(tmp_path / "hf"), "BEND_HF_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.splitlines()]


def test_training_takes_its_first_step_without_what_it_does_not_need(tmp_path: Path) -> None:
    assert run(UP_TO_THE_FIRST_STEP, tmp_path)[-2:] == ["imported:", "searches: 0"]


def test_garbage_is_searched_more_often_after_the_first_search(tmp_path: Path) -> None:
    assert run(WHILE_IT_WORKS, tmp_path) == ["True", "True False"]
