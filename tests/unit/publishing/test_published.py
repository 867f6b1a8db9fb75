"""Scores that others report: each has its source, and they are shown apart from one's own."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from bend_hf.cli._main import main
from bend_hf.errors import ConfigError, RecordError
from bend_hf.publishing.leaderboard import leaderboards, with_published
from bend_hf.publishing.others import others_of
from bend_hf.publishing.published import published_scores, read_published
from bend_hf.publishing.report import write_report
from tests.records import record, write, write_with_predictions
from tests.shared_data import SHARED, needs_shared

SOURCE = '[sources.a]\ntitle = "A"\nurl = "https://example.org"\n'
SCORE = '[[scores]]\ntask = "gene_finding"\nmetric = "mcc"\nsource = "a"\nvalues = { "x" = "0.50" }\n'
RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "published_gene_finding.json"


@pytest.mark.parametrize("one", published_scores(), ids=lambda one: f"{one.task}-{one.model}")
def test_every_published_score_names_its_source(one: object) -> None:
    assert getattr(one, "source", "")
    assert re.match(r"https://\S+$", getattr(one, "url", ""))


def test_the_known_scores_are_those_of_the_sources() -> None:
    found = {(one.task, one.metric, one.model): one.text for one in published_scores()}
    assert found == {
        **{
            ("gene_finding", "mcc", model): value
            for model, value in {
                "HyenaDNA": "0.33",
                "DNABERT-2": "0.41",
                "GENA-LM (336M)": "0.50",
                "NT-MS": "0.66",
                "Evo 2 7B": "0.81",
                "GPN-MSA": "0.43",
                "GPN-Star": "0.45",
                "AUGUSTUS": "0.7956",
                "Tiberius": "0.7941",
                "SegmentNT": "0.6749",
            }.items()
        },
        ("variant_effects_expression", "auroc", "DNABERT"): "0.5966",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SCORE, "x on gene_finding has no source"),
        (SOURCE + SCORE.replace('source = "a"\n', ""), "x on gene_finding has no source"),
        (SOURCE.replace('title = "A"', 'title = ""') + SCORE, "x on gene_finding has no source"),
        (SOURCE.replace("https://example.org", "on my disk") + SCORE, "x on gene_finding has no source"),
        (SOURCE + SCORE.replace('"0.50"', "0.5"), "x on gene_finding is 0.5; expected text such as '0.50'"),
        (SOURCE + SCORE.replace("0.50", "1.50"), "x on gene_finding is '1.50'; expected text"),
        (SOURCE + SCORE.replace("0.50", "high"), "x on gene_finding is 'high'; expected text"),
        (SOURCE + SCORE.replace("gene_finding", "gene"), "the scores of task 'gene' by 'mcc'"),
        (SOURCE + SCORE.replace('"mcc"', '"auroc"'), "the scores of task 'gene_finding' by 'auroc'"),
    ],
)
def test_a_cell_without_source_or_of_another_form_is_refused(text: str, said: str) -> None:
    assert read_published(SOURCE + SCORE, "f")[0].value == 0.5
    with pytest.raises(RecordError, match=said):
        read_published(text, "f")


def test_a_report_shows_them_apart_and_ranks_nothing_with_them(tmp_path: Path) -> None:
    write(tmp_path / "results", record("gene_finding", value=0.5), record("cpg_methylation"))
    said: list[str] = []
    write_report(
        [tmp_path / "results"], tmp_path / "report", plots=False, others=others_of(["published"]), log=said.append
    )
    readme, page = ((tmp_path / "report" / name).read_text() for name in ("README.md", "index.html"))
    own, _, theirs = readme.partition("**Published by others.** Not computed by bend_hf and not ranked")
    assert "| 1 | dnabert2 |" in own
    assert "| AUGUSTUS | 0.7956 | [predictions of PredictProtein/benchmark" in theirs
    assert "(https://arxiv.org/abs/2610.11761)" in theirs
    assert '<a href="https://arxiv.org/abs/2610.11761" rel="noopener">arXiv:2610.11761, Table 1</a>' in page
    with (tmp_path / "report" / "scores.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["family"] == "published by others"]
    assert len(rows) == 10
    assert all(row["source"] and not row["rank"] and not row["p_against_best"] for row in rows)
    assert "cpg_methylation, bend-2024: no published score by auroc with a source is known" in said


def test_without_the_flag_nothing_of_others_is_shown(tmp_path: Path) -> None:
    write(tmp_path / "results", record("gene_finding"))
    write_report([tmp_path / "results"], tmp_path / "report", plots=False)
    assert "AUGUSTUS" not in "".join(path.read_text() for path in (tmp_path / "report").iterdir())


def test_compare_shows_them_below_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        write_with_predictions(tmp_path / name, record("variant_effects_expression", name), seed=seed)
        for name, seed in (("a", 1), ("b", 2))
    ]
    assert main(["compare", *map(str, files), "--with", "published"]) == 0
    own, _, theirs = capsys.readouterr().out.partition("Published by others. Not computed by bend_hf and not ranked")
    assert "DNABERT" not in own
    assert re.search(r"DNABERT +0\.5966 +BEND's own notebook", theirs)
    assert main(["compare", *map(str, files), "--with", "published", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("published_by_others") for line in lines] == [None, True]
    assert main(["compare", *map(str, files), "--with", "published", "--metric", "auprc"]) == 0
    assert "Published by others: none; no published score by auprc" in capsys.readouterr().out
    for file in files:
        file.with_suffix(".json").unlink()
    assert main(["compare", *map(str, files), "--with", "published"]) == 2
    assert "keep a record next to one of the files" in capsys.readouterr().err


@pytest.mark.parametrize("origin", ["sample", "files"])
def test_scores_on_other_data_get_none(origin: str) -> None:
    said: list[str] = []
    [board] = with_published(leaderboards([record("gene_finding", origin=origin)]), log=said.append)
    assert board.published == ()
    assert "published scores are on BEND's data, and these are on" in said[0]


def test_an_unknown_value_of_with_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--with 'publishd'.*did you mean 'published'"):
        others_of(["publishd"])


def test_the_gene_finders_have_the_values_that_the_script_wrote() -> None:
    computed = json.loads(RESULTS.read_text())["mcc"]
    found = {one.model: one.text for one in published_scores()}
    assert {model: found[model] for model in computed} == {model: f"{value:.4f}" for model, value in computed.items()}


@needs_shared
def test_the_gene_finders_are_scored_from_their_predictions() -> None:
    from benchmarks.published_gene_finding import measure

    assert measure(SHARED / "data" / "bend_gene_finding_test") == json.loads(RESULTS.read_text())
