"""The report on both strands: labels exchanged, windows turned back, and the same predictions where nothing differs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

from bend_hf.config import RunConfig
from bend_hf.data.other_strand import on_other_strand, reverse_complements
from bend_hf.data.sequences import reverse_complement
from bend_hf.errors import InputError
from bend_hf.evaluation.predictions import LOG_PROBABILITY, Predictions, read_predictions
from bend_hf.evaluation.strands import BothStrands, agreement, turned_back
from bend_hf.publishing.notebook import evaluate
from bend_hf.runs.outcome import Outcome, outcome_table
from bend_hf.runs.run import run
from bend_hf.runs.strand_report import AVERAGE, OTHER_STRAND
from bend_hf.runs.verify import verify_run
from bend_hf.tasks._labels import strand_partners
from bend_hf.tasks.gene_finding import CLASSES
from tests.tiny import write_data

RNG = np.random.default_rng(0)


class Strong:
    """Embeds whether a nucleotide is G or C, which is the same on both strands."""

    def embed(self, sequences: list[str]) -> list[Any]:
        return [np.array([[one in "GC", 1.0] for one in text], np.float32) for text in sequences]


def of_classes(predicted: list[int], log_probabilities: list[list[float]] | None = None) -> Predictions:
    n = len(predicted)
    columns = {}
    if log_probabilities is not None:
        flat = pa.array(np.array(log_probabilities, np.float32).reshape(-1))
        offsets = pa.array(np.array([0, 2, n]) * 3)
        columns = {LOG_PROBABILITY: pa.LargeListArray.from_arrays(offsets, flat)}
    return Predictions(
        item=np.arange(2),
        windows=np.array([0, 2, n]),
        target=np.zeros(n, np.int16),
        score=None,
        predicted=np.array(predicted, np.int16),
        label_names=("cds+", "cds-", "none"),
        columns=columns,
    )


def test_labels_of_genes_are_exchanged_with_those_of_the_other_strand() -> None:
    partners = strand_partners(CLASSES)
    assert [CLASSES[one] for one in partners] == [
        "cds-", "donor-", "intron-", "acceptor-", "cds+", "donor+", "intron+", "acceptor+", "non_coding",
    ]  # fmt: skip


def test_labels_without_a_partner_are_their_own() -> None:
    assert strand_partners(("a+", "b-", "c", "+", "-", "")) == (0, 1, 2, 4, 3, 5)


def test_windows_are_turned_back_item_by_item() -> None:
    logs = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0], [9.0, 10.0, 11.0], [12.0, 13.0, 14.0]]
    turned = turned_back(of_classes([0, 2, 1, 2, 0], logs), (1, 0, 2))
    assert turned.predicted is not None
    assert turned.predicted.tolist() == [2, 1, 1, 2, 0]
    assert turned.columns[LOG_PROBABILITY].to_pylist() == [
        [4.0, 3.0, 5.0, 1.0, 0.0, 2.0],
        [13.0, 12.0, 14.0, 10.0, 9.0, 11.0, 7.0, 6.0, 8.0],
    ]


def test_the_agreement_of_classes_by_hand() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    q = np.array([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.1, 0.3, 0.6]])
    both = BothStrands(
        forward=of_classes(p.argmax(axis=1).tolist(), np.log(p).tolist()),
        reverse=of_classes(q.argmax(axis=1).tolist(), np.log(q).tolist()),
    )
    found = agreement(both, "class")
    expected = [np.corrcoef(p[:, c], q[:, c])[0, 1] if q[:, c].std() > 1e-9 else None for c in range(3)]
    each = found["per_label"]["correlation"]  # type: ignore[index,call-overload]  # an object
    assert found["flip_rate"] == pytest.approx(1 / 3)
    assert found["per_label"]["flip_rate"] == pytest.approx([1 / 3, 1 / 3, 0.0])  # type: ignore[index,call-overload]
    assert each[0] == pytest.approx(expected[0], abs=1e-6)
    assert each[2] == pytest.approx(expected[2], abs=1e-6)
    assert both.average().values.tolist() == (p + q).argmax(axis=1).tolist()


@pytest.mark.parametrize(("sides", "rate"), [("0.5", 0.25), ("0", 0.0), ("median", 0.5)])
def test_a_flip_is_a_change_of_sides(sides: Any, rate: float) -> None:
    def of(values: list[float]) -> Predictions:
        return Predictions(
            item=np.arange(4),
            windows=np.arange(5),
            target=np.array([0, 1, 0, 1], np.int16),
            score=np.array(values, np.float32),
            predicted=None,
            label_names=("a", "b"),
        )

    both = BothStrands(forward=of([0.1, 0.2, 0.6, 0.9]), reverse=of([0.1, 0.4, 0.3, 0.8]))
    found = agreement(both, sides)
    assert found["flip_rate"] == pytest.approx(rate)
    assert found["correlation"] == pytest.approx(np.corrcoef(both.forward.values, both.reverse.values)[0, 1])
    assert both.average().values == pytest.approx([0.1, 0.3, 0.45, 0.85])


def test_sequences_of_any_length_are_complemented_together() -> None:
    texts = ["".join(RNG.choice(list("ACGTNacgtu"), size)) for size in (0, 1, 7, 8, 300)]
    expected = [reverse_complement(text) for text in texts]
    assert reverse_complements(pa.array(["x", *texts]).slice(1)).to_pylist() == expected
    assert reverse_complements(pa.chunked_array([texts[:2], texts[2:]])).to_pylist() == expected


def test_bins_of_both_strands_cover_the_same_nucleotides() -> None:
    assert reverse_complements(pa.array(["AACCGGGT", "AC"]), multiple_of_bp=3).to_pylist() == ["CCGGTT", ""]


def test_a_letter_that_is_no_nucleotide_is_named() -> None:
    with pytest.raises(InputError, match="'!' is not a nucleotide"):
        reverse_complements(pa.array(["AC!T"]))


def test_only_the_sequences_of_a_dataset_change() -> None:
    dataset = Dataset.from_dict({"item": [3, 4], "sequence": ["AAC", "TG"], "labels": [[1, 2], [0]]}).select([1, 0])
    assert on_other_strand(dataset).to_list() == [
        {"item": 4, "sequence": "CA", "labels": [0]},
        {"item": 3, "sequence": "GTT", "labels": [1, 2]},
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    tasks = ("gene_finding", "cpg_methylation", "variant_effects_expression")
    return str(write_data(tmp_path_factory.mktemp("data"), tasks, n=40))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, data: str) -> dict[str, Outcome]:
    """Runs of a model that is blind to the strand."""
    common: dict[str, Any] = {"data": data, "strand_report": True, "out": tmp_path_factory.mktemp("out")}
    trained = evaluate(Strong(), ["gene_finding", "cpg_methylation"], head="linear", epochs=2, **common)
    scored = evaluate(Strong(), "variant_effects_expression", **common)
    return {one.record.task: one for one in (*trained.outcomes, *scored.outcomes)}


def test_a_model_that_is_blind_to_the_strand_agrees_with_itself(outcomes: dict[str, Outcome]) -> None:
    for task in ("cpg_methylation", "variant_effects_expression"):
        record = outcomes[task].record
        assert record.strands is not None
        assert record.strands["flip_rate"] == 0
        scores: Any = record.strands["scores"]
        for name in ("forward", "reverse", "average"):
            assert scores[name][record.main_metric]["value"] == pytest.approx(record.value, abs=1e-6)
    assert outcomes["cpg_methylation"].record.strands["correlation"] == pytest.approx(1, abs=1e-6)  # type: ignore[index]


def test_genes_flip_where_a_label_names_a_strand(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["gene_finding"]
    forward = read_predictions(outcome.path.with_suffix(".parquet"))
    other = read_predictions(outcome.path.with_name(f"{outcome.path.stem}.{OTHER_STRAND}_probe.parquet"))
    partners = np.array(strand_partners(CLASSES))
    assert forward.predicted is not None
    # the embedding of a nucleotide and of its complement are equal, so that only the names of the strands change
    assert other.values.tolist() == partners[forward.predicted].tolist()
    strands: Any = outcome.record.strands
    assert strands["flip_rate"] == pytest.approx((partners[forward.predicted] != forward.predicted).mean())
    assert strands["exchanged_labels"] == [f"{one}+, {one}-" for one in ("cds", "donor", "intron", "acceptor")]


def test_reports_are_verified_and_said(outcomes: dict[str, Outcome]) -> None:
    for outcome in outcomes.values():
        assert verify_run(outcome.path).problems == ()
    assert "cpg_methylation, strong, seed 0: both strands: correlation 1.0000, 0.0 % flip" in outcome_table(
        list(outcomes.values())
    ).lower().replace("'", "")


def test_a_changed_average_is_found(outcomes: dict[str, Outcome], tmp_path: Path) -> None:
    import shutil

    from bend_hf.runs.recomputed import Checked, _wrong_strands

    path = outcomes["cpg_methylation"].path
    shutil.copytree(path.parent, tmp_path, dirs_exist_ok=True)
    stem = tmp_path / path.stem
    shutil.copy(f"{stem}.parquet", f"{stem}.{OTHER_STRAND}_probe.parquet")
    average = read_predictions(Path(f"{stem}.{AVERAGE}_probe.parquet"))
    changed = Predictions(
        **{**{name: getattr(average, name) for name in average.__dataclass_fields__}, "score": average.values * 0.5}
    )
    Path(f"{stem}.{AVERAGE}_probe.parquet").unlink()
    from bend_hf.evaluation.predictions import write_predictions

    write_predictions(changed, Path(f"{stem}.{AVERAGE}_probe.parquet"))
    checked = Checked(
        path=Path(f"{stem}.json"),
        record=outcomes["cpg_methylation"].record,
        predictions=read_predictions(Path(f"{stem}.parquet")),
        unchecked=[],
    )
    assert "the average of both strands is not the mean of their predictions" in list(_wrong_strands(checked))


def test_a_run_without_a_report_is_repeated_once(data: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def again(**settings: Any) -> Outcome:
        config = RunConfig(
            task=("cpg_methylation",), data=data, model="onehot", head="linear", epochs=1, out=tmp_path, **settings
        )
        return run(config)[0]

    assert again().record.strands is None
    with caplog.at_level(logging.INFO, "bend_hf"):
        reported = again(strand_report=True)
    assert "has no strand report, so the run is repeated" in caplog.text
    assert reported.record.strands is not None
    assert not reported.was_there
    assert again(strand_report=True).was_there
    assert again().was_there
