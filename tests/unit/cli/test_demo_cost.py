"""What the demo says that it takes is what ``benchmarks/demo.py`` measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bend_hf.cli.demo import COST

MEASURED = json.loads((Path(__file__).resolve().parents[3] / "benchmarks/results/demo.json").read_text("utf-8"))
SECONDS = {"minutes": 60, "seconds": 1}


@pytest.mark.parametrize("quick", [False, True])
def test_the_demo_says_what_was_measured(quick: bool) -> None:
    measured = MEASURED["quick"] if quick else MEASURED
    said = re.fullmatch(r"about (\d+) (\w+) on (\d+) cores and less than ([\d.]+) GB of disk", COST[quick])
    assert said is not None
    assert int(said[1]) * SECONDS[said[2]] == pytest.approx(measured["seconds"], rel=0.2)
    assert int(said[3]) == MEASURED["cores"]
    assert measured["most_gb"] < float(said[4]) < 2 * measured["most_gb"]
