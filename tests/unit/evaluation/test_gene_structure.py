"""Gene structure: cases worked by hand, published gene finders on BEND's rows, intervals and resamples."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bend_hf.errors import ConfigError
from bend_hf.evaluation.gene_structure import StructureCounts, structure_counts, structure_of
from bend_hf.evaluation.metrics import Rows, load_metric, score
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.uncertainty.bootstrap import Bootstrap, draws_of
from bend_hf.evaluation.uncertainty.comparison import compare
from bend_hf.evaluation.uncertainty.intervals import intervals_of, with_intervals
from tests.shared_data import SHARED
from tests.unit.evaluation.test_bootstrap import classes

LETTERS = {"C": 0, "d": 1, "i": 2, "a": 3, "c": 4, "D": 5, "I": 6, "A": 7, ".": 8, "?": -100}
PUBLISHED = SHARED / "data" / "bend_gene_finding_test"


def labels(*rows: str) -> NDArray[np.int16]:
    return np.array([LETTERS[letter] for letter in "".join(rows)], np.int16)


def found(said: Sequence[str], true: Sequence[str], sequence: str | None = None) -> dict[str, Any]:
    lengths = [len(row) for row in true]
    result: dict[str, Any] = load_metric("gene_structure").compute(
        predictions=labels(*said), references=labels(*true), lengths=lengths, sequence=sequence
    )
    return result


def counts(result: dict[str, Any], name: str) -> tuple[int, int, int]:
    """True, predicted and right ones."""
    at = result["names"].index(name)
    return result["true"][at], result["predicted"][at], result["right"][at]


def test_an_exon_is_right_if_both_ends_are() -> None:
    true = ["..CCCdiiaCC.."]
    assert counts(found(true, true), "exon") == (2, 2, 2)
    one_short = found(["..CCCdiia.C.."], true)
    assert counts(one_short, "exon") == (2, 2, 1)
    assert one_short["exon_f1"] == 0.5
    assert one_short["sensitivity"][0] == one_short["precision"][0] == 0.5


def test_an_exon_of_the_other_strand_is_another_exon() -> None:
    result = found(["..ccc.."], ["..CCC.."])
    assert counts(result, "exon") == (1, 1, 0)
    assert result["exon_f1"] == 0.0


def test_donors_of_the_minus_strand_are_on_the_right_of_their_intron() -> None:
    # the acceptor, on the left, is right; the donor, on the right, is 3 bp off
    result = found([".cAIIIIIIDccccc."], [".cAIIIIIIIIIDcc."])
    assert counts(result, "splice_site") == (2, 2, 1)
    assert counts(result, "splice_site_5bp") == (2, 2, 2)
    assert structure_of(labels(".cAIIDcc."), np.array([9])).donors.tolist() == [2 * 5 + 1]


def test_a_donor_in_place_of_an_acceptor_is_no_pair() -> None:
    plus, minus = ".CCdiiaCC.", ".ccAIIDcc."
    assert counts(found([minus], [plus]), "splice_site_5bp") == (2, 2, 0)


def test_sites_pair_once() -> None:
    # both predicted donors lie within 5 bp of the one true donor
    result = found([".CdiCdiiiiiiiiiiiiaC."], [".CCCCdiiiiiiiiiiiiaC."])
    assert counts(result, "splice_site_5bp") == (2, 4, 2)


@pytest.mark.parametrize(("off_bp", "right"), [(5, 2), (6, 1)])
def test_sites_up_to_5_bp_apart_pair(off_bp: int, right: int) -> None:
    true = "." + "C" * 20 + "d" + "i" * 20 + "aC."
    said = "." + "C" * (20 - off_bp) + "d" + "i" * (20 + off_bp) + "aC."
    assert counts(found([said], [true]), "splice_site_5bp") == (2, 2, right)


def test_an_exon_at_the_end_of_a_row_does_not_go_on_in_the_next() -> None:
    true, said = ["..CC", "CC.."], ["..CC", "C..."]
    result = found(said, true)
    assert counts(result, "exon") == (2, 2, 1)
    assert (result["rows"], result["rows_right"]) == (2, 1)
    assert counts(result, "row") == (2, 2, 1)
    assert result["whole_genes"] == 0  # where they begin or end is not known


def test_the_cut_end_of_an_intron_is_no_splice_site() -> None:
    true = ["iiaCC.", ".CCdii"]
    assert counts(found(true, true), "splice_site") == (2, 2, 2)


def test_two_genes_of_one_row_are_two() -> None:
    structure = structure_of(labels(".CCCdiaCCC.....ccc.CC"), np.array([21]))
    assert structure.transcripts.start_bp.tolist() == [1, 15, 19]
    assert structure.transcripts.end_bp.tolist() == [10, 18, 21]
    assert structure.transcripts.strand.tolist() == [1, -1, 1]
    assert structure.transcript_of_exon.tolist() == [0, 0, 1, 2]
    assert structure.is_whole.tolist() == [True, True, False]
    assert structure.introns.start_bp.tolist() == [4]


def test_genes_that_touch_on_two_strands_are_two() -> None:
    assert len(structure_of(labels(".CCccc."), np.array([7])).transcripts) == 2


def test_an_empty_prediction_has_no_precision() -> None:
    result = found(["......."], ["..CCC.."])
    assert counts(result, "exon") == (1, 0, 0)
    assert result["exon_f1"] == 0.0
    assert result["sensitivity"][0] == 0.0
    assert math.isnan(result["precision"][0])
    assert math.isnan(result["f1"][1])  # no splice site anywhere
    nothing = found(["...."], ["...."])
    assert math.isnan(nothing["exon_f1"])
    assert (nothing["rows_right"], counts(nothing, "row")) == (1, (0, 0, 0))


def test_introns_alone_are_no_gene() -> None:
    assert found([".diia."], [".CCCC."])["whole_genes"] == 0


def test_frames_are_those_of_whole_genes() -> None:
    said = [".CCdiaCCCC.", ".ccc.CCCC.c"]  # 6, 3 and 4 coding nucleotides; the last gene is cut
    result = found(said, said)
    assert (result["whole_genes"], result["frame_errors"]) == (3, 1)


@pytest.mark.parametrize(
    ("said", "sequence", "with_stop"),
    [
        (".CCCCCC.", "GATGTAAG", 0),  # ATG TAA: the last codon may be a stop
        (".CCCCCC.", "GTAAATGG", 1),
        (".CCCCCC.", "gtgaatgg", 1),
        (".CCCCCC.", "GTNAATGG", 0),
        (".CCdiaCCCC.", "GTAGTAGAGGG", 1),  # TA|A GGG over the intron
        (".CCdiaCCCC.", "GTCGTAGAGGG", 0),
        (".cccccc.", "GCATTTAG", 1),  # reverse complement: TAA ATG
        (".cccccc.", "GTTACATG", 0),  # ATG TAA
        (".ccAIDcccc.", "CTTCTCCAATC", 0),
        (".cccAIDccc.", "CCCCCTATTAC", 1),  # TAA CCC read from the right
        (".CCCCCC", "GTAAATG", 0),  # its end is not known
        (".CCCCCCC.", "GATGTAAGC", 1),  # out of frame, TAA is not the last codon
    ],
)
def test_stop_codons_before_the_last_codon_are_counted(said: str, sequence: str, with_stop: int) -> None:
    assert found([said], [said], sequence)["genes_with_stop"] == with_stop


def test_stops_are_those_of_their_own_gene() -> None:
    said = [".CCCCCC.cccccc.", ".CCCCCC."]
    result = found(said, said, "GATGCCCGCATTTAGGTAAATGG")
    assert (result["genes_read"], result["genes_with_stop"]) == (3, 2)


def test_exons_are_counted_by_length() -> None:
    true = ["." + "C" * 49 + "." + "C" * 50 + "." + "c" * 500 + "."]
    said = ["." + "C" * 49 + "." + "C" * 49 + ".." + "c" * 500 + "."]
    result = found(said, true)
    assert counts(result, "exon_1_to_49bp") == (1, 2, 1)
    assert counts(result, "exon_50_to_99bp") == (1, 0, 0)
    assert counts(result, "exon_from_500bp") == (1, 1, 1)


def test_intervals_end_at_labels_that_are_not_scored() -> None:
    result = found([".CCCCC..", "CC"], [".CC??C..", "??"])
    assert counts(result, "exon") == (2, 2, 2)
    assert (result["rows"], result["rows_right"]) == (1, 1)
    assert result["whole_genes"] == 0


def by_loop(said: str, true: str) -> tuple[int, int, int]:
    """True, predicted and right exons of a row, one nucleotide after the other."""

    def exons(row: str) -> set[tuple[int, int, str]]:
        spans, start = set(), 0
        for at in range(1, len(row) + 1):
            if at == len(row) or row[at] != row[start]:
                spans |= {(start, at, row[start])} if row[start] in "Cc" else set()
                start = at
        return spans

    return len(exons(true)), len(exons(said)), len(exons(said) & exons(true))


def random_rows(n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    letters = np.array(list("CdiacDIA."))
    return ["".join(np.repeat(letters[rng.integers(0, 9, 12)], rng.integers(1, 4, 12))) for _ in range(n)]


def test_counts_are_those_of_a_loop_over_nucleotides() -> None:
    true = random_rows(40, 0)
    rng = np.random.default_rng(1)
    said = ["".join(np.where(rng.random(len(row)) < 0.1, ".", list(row))) for row in true]
    lengths = [len(row) for row in true]
    made = classes(labels(*said).tolist(), labels(*true).tolist(), lengths)
    made = replace(made, label_names=tuple("123456789"))
    of_row = structure_counts(made)[:, :3]
    assert of_row.tolist() == [list(by_loop(one, other)) for one, other in zip(said, true, strict=True)]
    assert 0 < of_row[:, 2].sum() < of_row[:, 1].sum()


def test_a_class_that_gene_finding_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prediction 9 of nucleotide 1.*expected class numbers from 0 to 8"):
        score("gene_structure", [8, 9], [8, 8])
    made = replace(classes([9, 8], [8, 8], [2]), label_names=tuple("0123456789"))
    with pytest.raises(ConfigError, match="takes the classes 0 to 8 of gene finding, but the predictions hold 9"):
        intervals_of(made, ["gene_structure"])


@pytest.mark.parametrize("lengths", [[2, 2], [-1, 4], [1.5, 1.5]])
def test_lengths_that_do_not_fit_are_refused(lengths: list[Any]) -> None:
    with pytest.raises(ValueError, match="expected one whole number from 0 on per row"):
        load_metric("gene_structure").compute(predictions=[8, 8, 8], references=[8, 8, 8], lengths=lengths)
    with pytest.raises(ValueError, match="sequence has 2 letters; expected one for each of 3"):
        load_metric("gene_structure").compute(predictions=[8, 8, 8], references=[8, 8, 8], sequence="AC")


def genes(n: int, seed: int = 0, wrong: float = 0.5) -> Predictions:
    """Rows of one gene of two exons; the first exon of some is one nucleotide short."""
    rng = np.random.default_rng(seed)
    true = labels("..CCCdiiaCCCCCC..")
    said = np.tile(true, (n, 1))
    said[rng.random(n) < wrong, 2] = 8
    made = classes(said.ravel().tolist(), np.tile(true, n).tolist(), [len(true)] * n)
    return replace(made, label_names=tuple("123456789"))


def test_the_interval_is_that_of_independent_rows() -> None:
    made = genes(200)
    share = 1 - (made.values.reshape(200, -1)[:, 2] == 8).mean() / 2
    found = intervals_of(made, ["gene_structure"])["gene_structure"]
    assert found.estimate.value == pytest.approx(share)
    # F1 is one minus half the fraction of short rows, so its error is half that of a fraction
    error = math.sqrt(found.estimate.variance)
    assert error == pytest.approx(math.sqrt((2 * share - 1) * (2 - 2 * share) / 200) / 2, rel=0.02)
    assert found.low < share < found.high
    assert len(found.per_label) == 9
    assert found.per_label[0] == (found.low, found.high)


def test_a_record_holds_the_interval_next_to_that_of_mcc() -> None:
    made = genes(30)
    rows = Rows(lengths=np.diff(made.windows))
    metrics = {
        name: {"value": score(name, made.values, made.target, rows=rows).value} for name in ("mcc", "gene_structure")
    }
    intervals = {name: entry["interval"] for name, entry in with_intervals(metrics, made).items()}  # type: ignore[index,call-overload]
    assert intervals["gene_structure"]["n_clusters"] == intervals["mcc"]["n_clusters"] == 30
    assert intervals["gene_structure"]["low"] < metrics["gene_structure"]["value"]
    assert json.dumps(intervals)


def test_resamples_are_those_of_mcc() -> None:
    made = genes(40)
    together = draws_of(made, ["mcc", "gene_structure"], Bootstrap(resamples=50, seed=3))
    alone = draws_of(made, ["gene_structure"], Bootstrap(resamples=50, seed=3))["gene_structure"]
    assert (together["gene_structure"].values == alone.values).all()
    assert together["gene_structure"].n_clusters == together["mcc"].n_clusters
    # a resample with more short exons has a lower value in both
    assert np.corrcoef(together["mcc"].values, together["gene_structure"].values)[0, 1] > 0.99
    assert together["gene_structure"].values.std() > 0


def test_a_resample_is_the_metric_of_the_repeated_rows() -> None:
    made = genes(5, wrong=0.6)
    weights = np.array([2.0, 0, 1, 0, 2])[:, None]
    repeated = made.take(np.array([0, 0, 2, 4, 4]))
    value = score("gene_structure", repeated.values, repeated.target, rows=Rows(lengths=np.diff(repeated.windows)))
    assert StructureCounts.of(made, np.arange(5), 5).exon_f1(weights).tolist() == [value.value]


@pytest.mark.parametrize("method", ["paired", "bootstrap"])
def test_models_are_compared_by_exons(method: Any) -> None:
    better, worse = genes(60, wrong=0.2), genes(60, wrong=0.8)
    (one,) = compare({"worse": worse, "better": better}, "gene_structure", Bootstrap(resamples=200), method=method)
    assert (one.first, one.second) == ("better", "worse")
    assert one.low > 0
    assert one.p < 0.05


def read_published(name: str) -> tuple[NDArray[np.int64], list[int]]:
    """Classes of all rows of a file, with introns that hold their splice sites, and the length of each row."""
    with np.load(PUBLISHED / f"{name}.npz") as arrays:
        rows = sorted({key.partition("_")[0] for key in arrays.files}, key=int)
        plus = [arrays[f"{row}_fow"].astype(np.int64) for row in rows]
        minus = [arrays[f"{row}_rev"][::-1].astype(np.int64) for row in rows]
    forward, reverse = np.concatenate(plus), np.concatenate(minus)
    of_plus, of_minus = np.array([8, 8, 0, 2]), np.array([8, 8, 4, 6])  # codes 1 non-coding, 2 coding, 3 intron
    return np.where(forward > 1, of_plus[forward], of_minus[reverse]), [len(row) for row in plus]


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the predictions of published gene finders are not in ../shared")
@pytest.mark.parametrize(
    ("tool", "sensitivity", "precision", "f1", "rows_right"),
    [
        ("augustus", 0.600, 0.642, 0.620, 10),
        ("tiberius", 0.641, 0.742, 0.688, 35),
        ("segmentnt", 0.159, 0.043, 0.068, 0),
    ],
)
def test_published_gene_finders_have_the_exons_that_are_known_of_them(
    tool: str, sensitivity: float, precision: float, f1: float, rows_right: int
) -> None:
    (true, lengths), (said, _) = read_published("ground_truth"), read_published(tool)
    result = load_metric("gene_structure").compute(predictions=said, references=true, lengths=lengths)
    shown = [round(value, 3) for value in (result["sensitivity"][0], result["precision"][0], result["exon_f1"])]
    assert shown == [sensitivity, precision, f1]
    assert (result["rows"], result["rows_right"]) == (597, rows_right)
    assert result["true"][0] == 2958
