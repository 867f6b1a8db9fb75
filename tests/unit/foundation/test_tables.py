"""Tables line up in a terminal and are valid Markdown in a card."""

from __future__ import annotations

from pathlib import Path

import pytest

from bend_hf.errors import RecordError
from bend_hf.tables import escaped, markdown_table, n_bytes, number, printable, render, text_table, whole
from bend_hf.types import Json

HEADER = ("task", "score")
ROWS = [("gene_finding", "0.5"), ("x", "undefined")]


def test_text_columns_line_up_under_a_rule() -> None:
    assert text_table(HEADER, ROWS).splitlines() == [
        "task          score",
        "-----------------------",
        "gene_finding  0.5",
        "x             undefined",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert text_table(HEADER, []) == "task  score\n-----------"
    assert markdown_table(HEADER, []) == "| task | score |\n| --- | --- |"


def test_markdown_is_as_short_as_its_cells() -> None:
    assert markdown_table(HEADER, ROWS).splitlines()[1:3] == ["| --- | --- |", "| gene_finding | 0.5 |"]


def test_padded_markdown_has_lines_of_one_length() -> None:
    lines = markdown_table(HEADER, ROWS, padded=True).splitlines()
    assert lines[1] == "| ------------ | --------- |"
    assert {len(line) for line in lines} == {len(lines[0])}


def test_a_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        text_table(HEADER, [("a",)])


@pytest.mark.parametrize("value", [None, True, "0.5", float("nan")])
def test_what_is_not_a_number_is_undefined(value: Json) -> None:
    assert number(value) == "undefined"


def test_numbers_have_four_decimals_and_counts_commas() -> None:
    assert (number(1), number(0.5), number(-0.00004)) == ("1.0000", "0.5000", "-0.0000")
    assert (whole(1234567), whole(None), whole(1.5)) == ("1,234,567", "not recorded", "not recorded")


@pytest.mark.parametrize(
    ("size", "text"),
    [(999, "999 bytes"), (1500, "1.5 kB"), (2_500_000, "2.5 MB"), (2.5e12, "2,500.0 GB"), (None, "not recorded")],
)
def test_sizes_have_the_unit_that_fits(size: Json, text: str) -> None:
    assert n_bytes(size) == text


def test_escaped_text_cannot_break_a_table() -> None:
    assert escaped("a|b\nc `d` [e](f) <g>") == "a&#124;b c &#96;d&#96; &#91;e&#93;(f) &lt;g&gt;"
    assert escaped("a\n|`*[x]<b>\\") == "a &#124;&#96;&#42;&#91;x&#93;&lt;b&gt;&#92;"


def test_a_template_with_a_missing_field_raises(tmp_path: Path) -> None:
    template = tmp_path / "t.md.jinja"
    template.write_text("{{ nothing }}")
    with pytest.raises(RecordError, match=r"t\.md\.jinja uses a field that is not given"):
        render(template, {})


@pytest.mark.parametrize("sign", ["\x1b", "\x00", "\x07", "\x9b", "\u202e", "\u2028", "\r", "\x7f", "\udcff"])
def test_signs_that_steer_a_terminal_are_shown_as_escapes(sign: str) -> None:
    for text in (text_table(("a",), [(f"x{sign}y",)]), markdown_table(("a",), [(escaped(f"x{sign}y"),)])):
        assert sign not in text
        text.encode()
    assert printable(f"x{sign}y") == f"x{sign.encode('unicode_escape').decode()}y"
    assert printable("a\tb\nc \u00e9") == "a\tb\nc \u00e9"


def test_errors_and_log_lines_show_control_signs_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    from bend_hf.cli._main import main

    assert main(["variants", "a\x1b[31mb.bed", "--genome", "g.fa"]) == 1
    text = capsys.readouterr().err
    assert "\x1b" not in text
    assert r"a\x1b[31mb.bed" in text
