"""The files that fuzzing starts from are read, and what once broke a reader no longer does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.__main__ import mutated
from tests.fuzz.targets import FOUND, TARGETS, clean_up, read

CASES = sorted(path for path in FOUND.glob("*/*") if path.is_file())


@pytest.fixture(scope="module", autouse=True)
def _files_go_away() -> Iterator[None]:
    yield
    clean_up()


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_whole_files(name: str) -> None:
    found = {seed: read(name, content) for seed, content in TARGETS[name].seeds().items()}
    assert found
    assert set(found.values()) == {"read"}, found


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_once_broke_a_reader_is_read_or_refused(path: Path) -> None:
    assert read(path.parent.name, path.read_bytes()) in ("read", "refused")


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_files_are_read_or_refused(name: str) -> None:
    draw, seeds = random.Random(1), list(TARGETS[name].seeds().values())
    found = [read(name, mutated(draw.choice(seeds), draw)) for _ in range(100)]
    if name == "fai":  # an index that does not fit is made again
        assert set(found) == {"read"}
    else:  # the mutations reach what a reader checks
        assert set(found) == {"read", "refused"}
