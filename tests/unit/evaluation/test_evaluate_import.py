"""Scoring imports neither the evaluators of ``evaluate`` nor what they need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMPLETE = """
import sys
from bend_hf.evaluation.evaluate_import import load_evaluate
library = load_evaluate()
import evaluate
assert library is evaluate and load_evaluate() is evaluate
assert "evaluate.evaluator" not in sys.modules and not hasattr(evaluate, "no_such_name")
assert evaluate.Evaluator.__module__.startswith("evaluate.evaluator")
assert callable(evaluate.evaluator) and evaluate.EvaluationSuite.__name__ == "EvaluationSuite"
from evaluate import Evaluator
print("complete")
"""


def run(code: str, cwd: Path | None = None) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scoring_imports_no_pipelines_and_no_torch() -> None:
    code = (
        "import sys, datasets\n"
        "before = set(sys.modules)\n"  # older versions of datasets import torch
        "from bend_hf.evaluation.metrics import score\n"
        "print(score('mcc', [0, 1, 1, 0], [0, 1, 1, 0]).value)\n"
        "print(sorted({'transformers', 'torch', 'scipy.stats', 'evaluate.evaluator'} & set(sys.modules) - before))"
    )
    assert run(code).split("\n")[:2] == ["1.0", "[]"]


def test_names_that_were_left_out_are_imported_at_their_first_use(tmp_path: Path) -> None:
    package = tmp_path / "evaluate"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from .evaluation_suite import EvaluationSuite\nfrom .evaluator import Evaluator, evaluator\n"
    )
    (package / "evaluation_suite.py").write_text("class EvaluationSuite: pass\n")
    (package / "evaluator.py").write_text("class Evaluator: pass\ndef evaluator(): pass\n")
    assert run(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{COMPLETE}") == "complete\n"


@pytest.mark.slow  # imports transformers.pipelines: 9 s of processor time
def test_the_library_stays_complete() -> None:
    assert run(COMPLETE) == "complete\n"
