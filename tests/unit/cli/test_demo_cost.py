"""What the demo says that it takes is what ``benchmarks/demo.py`` measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.demo import said
from bend_hf.cli.demo import COST

MEASURED = json.loads((Path(__file__).resolve().parents[3] / "benchmarks/results/demo.json").read_text("utf-8"))


@pytest.mark.parametrize("quick", [False, True])
def test_the_demo_says_what_was_measured(quick: bool) -> None:
    assert COST[quick] == said(MEASURED["quick"] if quick else MEASURED, n_cores=MEASURED["cores"])
