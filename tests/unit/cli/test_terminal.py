"""Tables in a terminal: they fit the screen, mark the best scores, and obey no control characters of names."""

from __future__ import annotations

import argparse
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bend_hf.cli._output import fitted_widths, show
from bend_hf.tables import Table, text_table
from tests.tiny import write_data

COLOR = re.compile(r"\x1b\[[0-9;]*m")
SCORES = Table(
    header=("task", "model", "score", "what is known of the model"),
    rows=[
        ("gene_finding", "dnabert2", "0.4300", "117 million weights, trained on many genomes"),
        ("gene_finding", "bend-mini", "0.4250", "1.5 million weights, trained on one chromosome"),
        ("gene_finding", "onehot", "0.2000", "no weights"),
    ],
    marks={0: "best", 1: "tied"},
)


def on_terminal(command: list[str], **environment: str) -> str:
    """What a command prints on a terminal."""
    ours, theirs = pty.openpty()
    try:
        inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        process = subprocess.Popen(
            command, stdout=theirs, stderr=subprocess.PIPE, env={**inherited, "TERM": "xterm-256color", **environment}
        )
        os.close(theirs)
        printed = b""
        while True:
            try:
                read = os.read(ours, 65_536)
            except OSError:  # the other end is closed
                break
            if not read:
                break
            printed += read
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err.decode()
    finally:
        os.close(ours)
    return printed.decode().replace("\r\n", "\n")


SHOW = "import argparse\nfrom tests.unit.cli.test_terminal import SCORES\nfrom bend_hf.cli._output import *\n"
IN_MAIN = SHOW + "parsed = argparse.Namespace()\nwith output_as_asked(parsed):\n    "


def python(code: str, **environment: str) -> str:
    return on_terminal([sys.executable, "-c", IN_MAIN + code], **{"COLUMNS": "60", **environment})


def test_a_table_fits_the_screen_and_colors_the_best_and_what_is_tied_with_it() -> None:
    text = python("show(parsed, ['before', SCORES], [])")
    lines = COLOR.sub("", text).splitlines()
    assert lines[0] == "before"
    assert max(map(len, lines)) <= 60
    assert lines[-1] == "best of its task; cannot be told from it"
    words = " ".join(" ".join(lines).split())
    assert all(word in words for row in SCORES.rows for word in row[:3])
    assert [("\x1b[1;32m" in line, "\x1b[36m" in line) for line in text.splitlines() if "gene_finding" in line] == [
        (True, False),
        (False, True),
        (False, False),
    ]


def test_columns_without_place_are_named() -> None:
    lines = COLOR.sub("", python("show(parsed, [SCORES], [])", COLUMNS="32")).splitlines()
    assert lines[-1] == "The screen is too narrow for what is known of the model; append '| cat' to see all."
    assert max(map(len, lines[:-1])) <= 40
    assert any("gene_finding" in line and "bend-mini" in line for line in lines)


def test_a_terminal_without_control_characters_gets_plain_text() -> None:
    assert python("show(parsed, [SCORES], [])", TERM="dumb").rstrip("\n") == str(SCORES)


def test_without_color_a_table_still_fits_the_screen() -> None:
    text = python("show(parsed, [SCORES], [])", NO_COLOR="1")
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 60
    assert text.count("gene_finding") == 3
    assert "best of its task" not in text


def test_a_pipe_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    show(argparse.Namespace(), [SCORES, "after"], [])
    assert capsys.readouterr().out == f"{text_table(SCORES.header, SCORES.rows)}\nafter\n"


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_no_name_reaches_a_terminal_as_a_command(environment: dict[str, str]) -> None:
    code = (
        r"name = 'a\x1b]0;title\x07\x1b[2J\x9b31m\u202eb\rc'; "
        "show(parsed, [Table(header=(name, 'score'), rows=[(name, '1.0'), ('d\\ne', '2.0')]), f'record: {name}'], []); "
        "print(name)"
    )
    text = COLOR.sub("", python(code, COLUMNS="200", **environment))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert text.count(r"a\x1b]0;title\x07\x1b[2J\x9b31m\u202eb\rc") == 4
    assert r"d\ne" in text


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(
    columns=st.lists(st.lists(st.text("ab ", max_size=30), min_size=2, max_size=2), min_size=1, max_size=8),
    width=st.integers(10, 200),
)
def test_the_columns_that_are_shown_fit_and_the_first_one_is_whole(columns: list[list[str]], width: int) -> None:
    widths = fitted_widths(columns, width)
    natural = [max(map(len, column)) for column in columns]
    assert 1 <= len(widths) <= len(columns)
    assert widths[0] == natural[0] or len(widths) > 1
    assert len(widths) == 1 or sum(widths) + 2 * (len(widths) - 1) <= width
    assert all(fitted <= wide for fitted, wide in zip(widths, natural, strict=False))
    if sum(natural) + 2 * (len(natural) - 1) <= width:
        assert widths == natural


def test_the_table_of_the_demo_fits_the_screen() -> None:
    code = (
        "from bend_hf.cli.demo import _print_overview; from bend_hf.publishing.overview import Overview, TaskScore; "
        "scores = [TaskScore(task='gene_finding', metric='mcc', model=f'model {n}', value=0.5, low=0.4, high=0.6) "
        "for n in range(3)]; _print_overview(parsed, Overview(scores=tuple(scores), sentences=('One is best. ' * 9,)))"
    )
    lines = COLOR.sub("", python(code)).splitlines()
    assert max(map(len, lines)) <= 60
    words = " ".join(" ".join(lines).split())
    assert words.count("0.500") == 3
    assert words.count("One is best.") == 9


@pytest.mark.slow
def test_a_grid_marks_the_best_model_of_a_task_in_a_terminal(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", ("cpg_methylation",), n=20)
    flags = f"cpg_methylation --data {data} --model onehot resnet-supervised --epochs 1 --batch-size 8".split()
    argv = [sys.executable, "-m", "bend_hf", "run", *flags, "--out", str(tmp_path / "out"), "-q"]
    text = on_terminal(argv, COLUMNS="100")
    rows = [line for line in text.splitlines() if "cpg_methylation" in line]
    assert len(rows) == 2
    assert sum("\x1b[1;32m" in row for row in rows) >= 1
    scores = {float(COLOR.sub("", row).split()[4]): row for row in rows}
    assert "\x1b[1;32m" in scores[max(scores)]
