"""Gene structure in the tables of a report and of a card."""

from __future__ import annotations

from dataclasses import replace

from bend_hf.publishing.gene_tables import HEADER, gene_row, structure_table
from bend_hf.publishing.leaderboard import leaderboards
from bend_hf.publishing.model_card import model_card
from bend_hf.publishing.report.page import page
from bend_hf.publishing.report.tables import as_markdown
from bend_hf.tables import number
from bend_hf.types import Json
from tests.records import record

GENES: Json = {
    "value": 0.5,
    "detail": {
        "names": ["exon", "splice_site"],
        "sensitivity": [0.25, 0.75],
        "precision": [0.5, None],
        "f1": [0.5, 0.125],
        "true": [12, 20],
        "predicted": [6, 0],
        "right": [3, 15],
        "rows": 1000,
        "rows_right": 7,
        "whole_genes": 9,
        "frame_errors": 4,
        "genes_read": 9,
        "genes_with_stop": 2,
    },
    "interval": {
        "low": 0.375,
        "high": 0.625,
        "level": 0.95,
        "method": "w",
        "per_label": [[0.375, 0.625], [None, None]],
    },
}


def test_a_report_shows_genes_of_models_and_controls() -> None:
    one = record("gene_finding", "onehot")
    one = replace(
        one,
        metrics={**one.metrics, "gene_structure": GENES},
        controls={"kmer": {"metrics": {"mcc": {"value": 0.1}, "gene_structure": GENES}}},
    )
    cells = (number(one.value), "0.2500", "0.5000", "0.5000", "0.3750 to 0.6250", "0.1250", "7 of 1,000", "4 of 9")
    assert gene_row("a", one.metrics) == ("a", *cells)
    (board,) = leaderboards([one])
    assert board.genes == [("onehot", *cells), ("k-mers", "0.1000", *cells[1:])]
    text = as_markdown([board])
    assert f"| {' | '.join(HEADER)} |\n" in text
    assert f"| onehot | {' | '.join(cells)} |\n" in text
    html = page([board], {})
    assert "<h3>Gene structure</h3>" in html
    assert '<td class="num">7 of 1,000</td>' in html


def test_a_report_shows_both_scores_of_a_grammar() -> None:
    one = record("gene_finding", "onehot")
    detail: Json = {"argmax": {"mcc": {"value": 0.25, "detail": {}}, "gene_structure": GENES}}
    one = replace(one, metrics={"mcc": {**one.metrics["mcc"], "detail": detail}, "gene_structure": GENES})  # type: ignore[dict-item]  # an object
    (board,) = leaderboards([one])
    assert [row[:2] for row in board.genes] == [
        ("onehot", number(one.value)),
        ("onehot, most probable classes", "0.2500"),
    ]


def test_a_report_of_records_without_genes_has_no_such_table() -> None:
    boards = leaderboards([record("gene_finding", "onehot")])
    assert "Gene structure" not in as_markdown(boards)
    assert "Gene structure" not in page(boards, {})


def test_a_card_shows_what_is_compared_with_intervals() -> None:
    one = record("gene_finding", "onehot")
    one = replace(one, metrics={**one.metrics, "gene_structure": GENES})
    table = structure_table(one)
    assert "| splice site | 0.7500 | undefined | 0.1250 | none | 20 | 0 | 15 |" in table
    assert "| exon | 0.2500 | 0.5000 | 0.5000 | 0.3750 to 0.6250 | 12 | 6 | 3 |" in table
    assert table.endswith(
        "Rows right: 7 of 1,000; genes out of frame: 4 of 9; genes with a stop codon in frame: 2 of 9."
    )
    assert table in model_card([one])
    assert structure_table(record("gene_finding", "onehot")) == ""
