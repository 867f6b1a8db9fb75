"""Every promise of docs/reliability.md names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (TESTS.parent / "docs/reliability.md").read_text().partition("<!-- begin")[0].splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| what happens"))
]


def test_every_line_has_three_cells_and_a_test() -> None:
    assert len(ROWS) > 30
    for row in ROWS:
        assert len(row) == 3, row
        assert all(cell.strip(" |") for cell in row), row
        assert re.findall(r"`[\w/]+\.py(?:::\w+)?`", row[2]), row


def test_every_named_test_exists() -> None:
    missing = []
    for row in ROWS:
        for file, _, name in (text.partition("::") for text in re.findall(r"`([\w/]+\.py(?:::\w+)?)`", row[2])):
            path = TESTS / file
            if not path.is_file() or (name and not re.search(rf"^def {name}\(", path.read_text(), re.MULTILINE)):
                missing.append(f"{file}::{name}")
    assert missing == []


def test_no_line_stands_twice() -> None:
    assert len({row[0] for row in ROWS}) == len(ROWS)
