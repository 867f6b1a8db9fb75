"""What is set against what, ranks and ties, and what a report writes of them."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bend_hf.errors import RecordError
from bend_hf.evaluation.record import ResultRecord
from bend_hf.publishing.leaderboard import leaderboards
from bend_hf.publishing.report import write_report
from bend_hf.publishing.report.page import page
from bend_hf.publishing.report.plots import plot_files
from bend_hf.publishing.report.tables import as_csv, as_markdown
from bend_hf.publishing.results import group_records, model_label, records_of_model
from tests.records import record, several, write


def _with(made: ResultRecord, part: str, **changes: object) -> ResultRecord:
    return replace(made, **{part: {**getattr(made, part), **changes}})  # type: ignore[arg-type]


# Entries.


def test_seeds_make_one_entry_with_their_mean_and_the_widest_interval() -> None:
    [entry] = group_records([record(value=0.8), record(value=0.84, seed=1, interval=(0.81, 0.9))])
    assert entry.seeds == (0, 1)
    assert entry.value == pytest.approx(0.82)
    assert (entry.low, entry.high) == (0.78, 0.9)


def test_of_two_runs_with_one_seed_the_later_counts() -> None:
    old = record(value=0.1, created_at="2026-01-01T00:00:00Z")
    [entry] = group_records([record(value=0.8), old])
    assert entry.value == 0.8


def test_a_seed_without_a_score_leaves_the_entry_without_one() -> None:
    [entry] = group_records([record(), record(value=None, seed=1, interval=None)])
    assert (entry.value, entry.low) == (None, None)


@pytest.mark.parametrize(
    "other",
    [
        record(protocol="bend-hf-1"),
        record("gene_finding"),
        record(model="onehot"),
        _with(record(), "config", epochs=3),
        _with(record(), "model", layer=6),
        _with(record(), "model", revision="f" * 40),
        _with(record(), "data", files={"bed": {"sha256": "e" * 64}}),
        _with(record(), "training", head={"kind": "LinearSpec"}),
    ],
)
def test_whatever_differs_but_the_seed_makes_another_entry(other: ResultRecord) -> None:
    assert len(group_records([record(), other])) == 2


@pytest.mark.parametrize("name", ["out", "data", "tracker"])
def test_where_files_lay_makes_no_other_entry(name: str) -> None:
    assert len(group_records([record(), _with(record(seed=1), "config", **{name: "elsewhere"})])) == 1


def test_a_model_is_called_by_what_sets_its_use_apart() -> None:
    made = _with(record(), "model", layer=6, dtype="float16", reverse_complement_average=True, random_init=True)
    assert model_label(made) == "dnabert2, random weights, layer 6, float16, both strands averaged"


def test_asking_for_a_model_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(RecordError, match="no record of this model; expected one of dnabert2, onehot"):
        records_of_model([record(), record(model="onehot")], "grover")


# Contests.


def test_two_protocols_never_share_a_contest() -> None:
    for board in leaderboards(several()):
        assert {row.result.protocol for row in board.rows} == {board.protocol}
    assert len(leaderboards(several())) == 6


def test_other_data_are_another_contest() -> None:
    found = leaderboards([record(), record(model="onehot", origin="sample"), record(model="grover")])
    assert sorted(len(board.rows) for board in found) == [1, 2]


def test_equal_scores_share_a_rank_and_the_next_is_counted_on() -> None:
    made = [record(model=m, value=v, interval=None) for m, v in (("a", 0.7), ("b", 0.9), ("c", 0.9), ("d", 0.5))]
    [board] = leaderboards(made)
    assert [(row.name, row.rank, row.tied) for row in board.rows] == [
        ("b", 1, True),
        ("c", 1, True),
        ("a", 3, False),
        ("d", 4, False),
    ]


def test_rows_whose_interval_overlaps_the_best_are_tied_with_it() -> None:
    made = [
        record(model="best", value=0.9, interval=(0.85, 0.95)),
        record(model="near", value=0.84, interval=(0.8, 0.86)),
        record(model="far", value=0.7, interval=(0.65, 0.75)),
        record(model="silent", value=0.89, interval=None),
    ]
    [board] = leaderboards(made)
    assert {row.name: row.tied for row in board.rows} == {"best": True, "near": True, "far": False, "silent": False}


def test_a_best_row_that_stands_alone_is_not_called_tied() -> None:
    [board] = leaderboards([record(), record(model="b", value=0.5, interval=(0.4, 0.6))])
    assert [row.tied for row in board.rows] == [False, False]


def test_partial_coverage_and_undefined_scores_have_no_rank() -> None:
    half = record(model="half", value=0.99, coverage={"scored": 10, "items": 1000, "item_sha256": "c" * 64})
    [board] = leaderboards([record(), half, record(model="void", value=None, interval=None)])
    assert [(row.name, row.rank) for row in board.rows] == [("dnabert2", 1), ("half", None), ("void", None)]


def test_rows_that_would_look_alike_say_what_differs() -> None:
    made = [
        record(),
        _with(record(value=0.7), "config", epochs=3),
        _with(record(), "training", head={"kind": "LinearSpec"}),
    ]
    [board] = leaderboards(made)
    assert {row.name for row in board.rows} == {"dnabert2, epochs 100", "dnabert2, epochs 3", "dnabert2, linear"}


def test_a_model_at_two_revisions_is_two_rows() -> None:
    [board] = leaderboards([record(), _with(record(), "model", revision="f" * 40)])
    assert {row.name for row in board.rows} == {"dnabert2, revision 7bce263", "dnabert2, revision fffffff"}


# Files.


def test_csv_holds_each_row_and_control_in_full() -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(leaderboards(several())))))
    assert len(lines) == 24 + 12
    assert {line["score"] for line in lines if line["family"] != "control"} == {repr(made.value) for made in several()}


@pytest.mark.parametrize("sign", ["=", "+", "-", "@"])
def test_no_cell_is_a_formula(sign: str) -> None:
    text = as_csv(leaderboards([record(model=f"{sign}HYPERLINK(1)")]))
    assert next(csv.DictReader(io.StringIO(text)))["model"] == f"'{sign}HYPERLINK(1)"


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


def test_what_records_hold_cannot_become_markup_in_the_page() -> None:
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
    made = [record(), record(protocol="bend-hf-1", controls={"GC content": 0.6})]
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


def test_plots_of_hostile_names_and_no_scores_are_drawn() -> None:
    pytest.importorskip("matplotlib")
    made = [record(model="$\\frac{$<b>"), record(model="void", value=None, interval=None)]
    files = plot_files(leaderboards(made), lambda text: None)
    assert b"<b>" not in files["plots/heatmap_bend-2024.svg"]


def test_a_report_is_the_same_twice(tmp_path: Path) -> None:
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


def test_missing_matplotlib_is_said_and_the_rest_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bend_hf.publishing.report.plots.importlib.util.find_spec", lambda name: None)
    said: list[str] = []
    paths = write_report([write(tmp_path / "r", record())], tmp_path / "report", log=said.append)
    assert said == ["no plots: matplotlib is not installed; run 'pip install bend-hf[plots]'"]
    assert [path.name for path in paths] == ["README.md", "scores.csv", "index.html", "report.json"]


def _control(**changes: object) -> ResultRecord:
    made = _with(record(model="kmer", value=0.66, family="control", n_parameters=84), "config", epochs=None)
    return _with(made, "data", **changes)


def test_records_of_controls_stand_beside_the_models_and_have_no_rank() -> None:
    [board] = leaderboards([record(), _control()])
    assert [row.name for row in board.rows] == ["dnabert2"]
    assert board.controls == {"k-mers": 0.66}
    assert board.reasons_not_to_publish == ()


def test_a_control_on_the_sample_keeps_a_report_from_being_published() -> None:
    [board] = leaderboards([_control(origin="sample")])
    assert (board.rows, list(board.controls)) == ((), ["k-mers"])
    assert "bundled sample" in board.reasons_not_to_publish[0]
    assert "control" in as_markdown([board])
    assert plot_files([board], print) == {}


def test_a_control_of_other_data_is_not_shown_beside_a_model() -> None:
    found = leaderboards([record(), _control(files={"bed": {"sha256": "e" * 64}})])
    assert sorted((len(board.rows), len(board.controls)) for board in found) == [(0, 1), (1, 0)]


def test_the_run_key_of_a_seed_makes_no_other_entry() -> None:
    made = [_with(record(seed=seed), "config", run_key=f"key{seed}") for seed in (0, 1)]
    assert len(group_records(made)) == 1
