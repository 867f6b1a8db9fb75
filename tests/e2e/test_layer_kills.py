"""Caches of several layers that several processes write at once, of which one is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.layer_lives import LAYERS, MOMENTS

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How the processes of each group ended, and what they left."""
    command = [sys.executable, "-m", "tests.e2e.layer_lives", str(tmp_path_factory.mktemp("layers"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_small_caches_have_several_shards(groups: dict[str, Any]) -> None:
    assert groups["alone"]["ended"] == [0]
    assert len(groups["alone"]["bytes"]) == len(LAYERS)
    assert all(len(of_layer) > 2 for of_layer in groups["alone"]["bytes"])


@pytest.mark.parametrize("moment", MOMENTS)
def test_another_process_finishes_the_layers_of_one_that_is_killed(moment: str, groups: dict[str, Any]) -> None:
    assert groups[moment]["ended"] == [-9, 0]
    assert groups[moment]["bytes"] == groups["alone"]["bytes"]
    assert groups[moment]["left"] == []


def test_processes_that_fill_the_same_layers_embed_each_shard_once(groups: dict[str, Any]) -> None:
    assert groups["three"]["ended"] == [0, 0, 0]
    assert groups["three"]["embedded"] == groups["alone"]["embedded"]
    assert groups["three"]["bytes"] == groups["alone"]["bytes"]
    assert groups["three"]["left"] == []
