"""Reports: CSV, Markdown, the web page and plots, from the same leaderboards."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bend_hf.errors import BendError
from bend_hf.evaluation.record import ResultRecord
from bend_hf.publishing.figures import drawing
from bend_hf.publishing.leaderboard import leaderboards
from bend_hf.publishing.report import write_report
from bend_hf.publishing.report.page import _axis_end, page
from bend_hf.publishing.report.plots import plot_files
from bend_hf.publishing.report.tables import as_csv, as_markdown
from tests.records import record, several, write


def _with(made: ResultRecord, part: str, **changes: object) -> ResultRecord:
    return replace(made, **{part: {**getattr(made, part), **changes}})  # type: ignore[arg-type]


def test_csv_holds_each_row_and_control_in_full() -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(leaderboards(several())))))
    assert len(lines) == 24 + 12
    assert {line["score"] for line in lines if line["family"] != "control"} == {repr(made.value) for made in several()}


@pytest.mark.parametrize("sign", ["=", "+", "-", "@"])
def test_no_cell_is_a_formula(sign: str) -> None:
    text = as_csv(leaderboards([record(model=f"{sign}HYPERLINK(1)")]))
    assert next(csv.DictReader(io.StringIO(text)))["model"] == f"'{sign}HYPERLINK(1)"


def test_control_signs_of_names_are_escapes_in_the_csv() -> None:
    text = as_csv(leaderboards([record(model="a\x1b[31m\u202eb\r\nc")]))
    assert "a\\x1b[31m\\u202eb\\r\\nc" in text
    assert "\x1b" not in text


def test_markdown_escapes_names() -> None:
    assert "a&#124;b&lt;i&gt;" in as_markdown(leaderboards([record(model="a|b<i>")]))


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append((tag, dict(attrs)))


def _tags(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(text)
    return parser.opened


HOSTILE = "\"><img src=x onerror=alert(1)><script>alert(2)</script>'{{ 7*7 }}"


@pytest.mark.parametrize("sign", ["\x00", "\x08", "\x1b", "\x9b", "\u200f", "\u202e", "\u2066"])
def test_control_signs_and_marks_of_direction_are_not_in_the_page(sign: str) -> None:
    made = _with(record(model=f"a{sign}b", family=f"c{sign}d"), "data", origin=f"e{sign}f")
    html = page(leaderboards([made]), {})
    assert sign not in html
    assert "a\ufffdb" in html


def test_text_of_records_cannot_become_markup_in_the_page() -> None:
    made = record(model=HOSTILE, family=HOSTILE, controls={HOSTILE: 0.3}, created_with={"git_commit": "-dirty"})
    made = _with(made, "data", repo=HOSTILE)
    tags = _tags(page(leaderboards([made]), {}))
    assert [tag for tag, _ in tags].count("script") == 1
    assert "img" not in [tag for tag, _ in tags]
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on") and name != "onsubmit"]


def test_the_page_fetches_nothing() -> None:
    text = page(leaderboards(several()), {"plots/a.svg": b"<svg/>"})
    addresses = [v for _, attrs in _tags(text) for k, v in attrs.items() if k in ("src", "href")]
    assert all(value and value.startswith(("#", "data:")) for value in addresses), addresses
    assert not re.search(r"https?://", text)


def test_every_table_of_the_page_is_of_one_protocol() -> None:
    text = page(leaderboards(several()), {})
    for section in re.findall(r"<section .*?</section>", text, re.DOTALL):
        protocol = re.search(r'data-protocol="([^"]*)"', section)
        assert protocol is not None
        other = {"bend-2024": "bend-hf-1", "bend-hf-1": "bend-2024"}[protocol[1]]
        assert other not in section


def test_page_marks_ties_draws_intervals_and_controls() -> None:
    text = page(leaderboards(several()), {})
    tied = [row for board in leaderboards(several()) for row in board.rows if row.tied]
    assert text.count('class="dot tied"') == len(tied) == 4
    drawn = [made for made in several() if made.metrics[made.main_metric]["interval"]]  # type: ignore[index,call-overload]
    assert text.count('class="range"') == len(drawn)
    assert "k-mer logistic regression" in text


def test_plots_are_png_and_svg_of_each_kind() -> None:
    pytest.importorskip("matplotlib")
    made = [
        record(model=model, protocol=protocol, controls={"GC content": 0.6} if protocol == "bend-hf-1" else None)
        for protocol in ("bend-2024", "bend-hf-1")
        for model in ("dnabert2", "hyenadna-tiny-1k")
    ]
    files = plot_files(leaderboards(made), lambda text: None)
    kinds = {re.sub(r"_.*", "", path.removeprefix("plots/").rsplit(".", 1)[0]) for path in files}
    assert kinds == {"heatmap", "forest", "score"}
    assert {path for path in files if "score_" in path} == {
        f"plots/score_{what}_{protocol}.{ending}"
        for what in ("parameters", "cost")
        for protocol in ("bend-2024", "bend-hf-1")
        for ending in ("png", "svg")
    }
    assert all(content.startswith(b"\x89PNG") for path, content in files.items() if path.endswith("png"))
    for path, content in files.items():
        if path.endswith("svg"):
            ElementTree.fromstring(content)


DRAW_IN_A_NEW_PROCESS = """
import sys
from bend_hf.cli._main import main
assert main(["report", "records", "--out", "report"]) == 0
print("imported:", *sorted({"matplotlib", "torch", "datasets", "huggingface_hub"} & set(sys.modules)))
"""


def test_a_report_draws_in_other_processes_and_imports_little(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    tasks = ("cpg_methylation", "histone_modification", "chromatin_accessibility")
    made = [record(task, model) for task in tasks for model in ("dnabert2", "hyenadna-tiny-1k")]
    write(tmp_path / "records", *made)
    (tmp_path / "matplotlib.py").write_text("raise ImportError('a file of the working directory was imported')\n")
    done = subprocess.run(
        [sys.executable, "-P", "-c", DRAW_IN_A_NEW_PROCESS], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "imported:"
    with drawing():  # matplotlib is imported here
        expected = plot_files(leaderboards(made), print)
    assert {path: (tmp_path / "report" / path).read_bytes() for path in expected} == expected
    assert len(expected) == 2 * (3 + len(tasks)), "enough figures for two processes"


def test_a_process_that_cannot_draw_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BendError, match=r"draws the plots ended with 1: .*give --no-plots"):
        plot_files(leaderboards([record()]), print)


def test_one_model_has_no_plot_against_its_size_or_cost() -> None:
    pytest.importorskip("matplotlib")
    files = plot_files(leaderboards([record()]), print)
    assert "plots/heatmap_bend-2024.svg" in files
    assert not [path for path in files if path.startswith("plots/score_")]


def test_plots_of_hostile_names_and_no_scores_are_drawn() -> None:
    pytest.importorskip("matplotlib")
    made = [record(model="$\\frac{$<b>"), record(model="void", value=None, interval=None)]
    files = plot_files(leaderboards(made), lambda text: None)
    assert b"<b>" not in files["plots/heatmap_bend-2024.svg"]


def test_the_same_records_give_the_same_report(tmp_path: Path) -> None:
    folder = write(tmp_path / "records", *several()[:2])
    first = {p.name: p.read_bytes() for p in write_report([folder], tmp_path / "a")}
    second = {p.name: p.read_bytes() for p in write_report([folder], tmp_path / "b")}
    assert first == second
    assert {"README.md", "index.html", "scores.csv", "report.json"} < set(first)


def test_a_report_says_why_it_may_not_be_published(tmp_path: Path) -> None:
    folder = write(tmp_path / "records", record(origin="sample"))
    write_report([folder], tmp_path / "report", plots=False)
    body = json.loads((tmp_path / "report" / "report.json").read_text())
    assert body["refusals"] == ["scored on the bundled sample, whose labels are stand-ins and not BEND's"]
    assert "Why these are not BEND scores" in (tmp_path / "report" / "index.html").read_text()


def test_without_matplotlib_the_report_is_written_without_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bend_hf.publishing.report.plots.importlib.util.find_spec", lambda name: None)
    said: list[str] = []
    paths = write_report([write(tmp_path / "r", record())], tmp_path / "report", log=said.append)
    assert said == ["no plots: matplotlib is not installed; pip install 'bend-hf[plots]' brings it"]
    assert [path.name for path in paths] == ["README.md", "scores.csv", "index.html", "report.json"]


def test_the_axis_of_intervals_has_no_negative_zero() -> None:
    assert (_axis_end(-0.001), _axis_end(-0.01), _axis_end(0.5)) == ("0.00", "-0.01", "0.50")


def test_a_row_without_a_rank_is_explained() -> None:
    boards = leaderboards([record(value=None, interval=None)])
    assert "in place of a rank" in page(boards, {})
    assert "in place of a rank" in as_markdown(boards)
    assert "in place of a rank" not in page(leaderboards([record()]), {})
