"""Heads on few rows: nested subsets in proportion, the same heads as trained alone, and curves that are verified."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import Dataset

from bend_hf.config import RunConfig
from bend_hf.data.shots import ShotRows, in_proportion, strata_of
from bend_hf.embedders import load_embedder
from bend_hf.embedders.token_embeddings import OnTheFly, Targets
from bend_hf.errors import ConfigError
from bend_hf.evaluation.record import digest_of, member
from bend_hf.evaluation.shots import passes_text
from bend_hf.publishing.model_card import model_card
from bend_hf.publishing.report import write_report
from bend_hf.runs.few_shots import FewShotTraining, train_few
from bend_hf.runs.outcome import Outcome, outcome_table
from bend_hf.runs.run import run, with_curve_if_first
from bend_hf.runs.shot_curve import over_seeds, passing
from bend_hf.runs.shot_plot import curve_files
from bend_hf.runs.verify import Opened, verify_run
from bend_hf.tasks import Head
from bend_hf.tasks._labels import BinClasses, LabelKind, MultiLabel, NucleotideClasses, RealValues, SequenceClass
from bend_hf.training.batches import Split
from bend_hf.training.checkpoints import load_trained
from bend_hf.training.head_trainer import FitConfig, HeadData, fit
from bend_hf.training.heads import build_head
from bend_hf.training.losses import build_loss
from bend_hf.training.predict import predict
from bend_hf.training.recipe import Trial
from tests.tiny import write_data

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("given", [("1,10", "all"), ("all", "10", "1"), (1, 10, "all"), "1, 10,all"])
def test_numbers_of_shots_are_read_in_any_form(given: Any) -> None:
    assert RunConfig(task="gene_finding", shots=given).shots == ("1", "10", "all")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shots": "0"}, "--shots holds '0'; expected numbers above 0, or all"),
        ({"shots": "1,x"}, "--shots holds 'x'"),
        ({"shots": "1,01"}, "--shots is 1,01; give each number once"),
        ({"shots": "1", "tune": "lora"}, "--shots is 1, but --tune trains the embedder too"),
        ({"shots": "1", "decode": "grammar", "protocol": "bend-hf-1"}, "--shots is 1, but --decode grammar"),
    ],
)
def test_shots_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig(task="gene_finding", **given)


def of_classes(n: int) -> Dataset:
    return Dataset.from_dict({"item": range(n), "label": (RNG.random(n) < 0.1).astype(int).tolist()})


def of_labels(n: int) -> Dataset:
    return Dataset.from_dict(
        {"item": range(n), "labels": [np.flatnonzero(RNG.random(3) < [0.5, 0.2, 0.05]).tolist() for _ in range(n)]}
    )


def of_values(n: int) -> Dataset:
    return Dataset.from_dict({"item": range(n), "labels": [[float(x), np.nan] for x in RNG.normal(size=n)]})


def of_nucleotides(n: int) -> Dataset:
    return Dataset.from_dict({"item": range(n), "labels": [RNG.integers(0, 2 + i % 2, 9).tolist() for i in range(n)]})


KINDS: list[tuple[LabelKind, Dataset]] = [
    (SequenceClass(names=("a", "b")), of_classes(300)),
    (MultiLabel(names=("a", "b", "c")), of_labels(300)),
    (RealValues(names=("a", "b")), of_values(300)),
    (NucleotideClasses(names=("a", "b", "c")), of_nucleotides(300)),
    (BinClasses(names=("no", "yes"), bin_bp=8), of_nucleotides(300)),
]


@pytest.mark.parametrize(("kind", "dataset"), KINDS, ids=lambda one: type(one).__name__)
def test_subsets_are_nested_and_depend_on_the_seed_alone(kind: LabelKind, dataset: Dataset) -> None:
    drawn = {seed: ShotRows.of(dataset, kind, seed) for seed in (0, 1)}
    previous: set[int] = set()
    for shots in ("1", "10", "100", "all"):
        rows = set(drawn[0].rows(shots).tolist())
        assert previous <= rows
        previous = rows
        assert ShotRows.of(dataset, kind, 0).rows(shots).tolist() == sorted(rows)
    assert len(previous) == 300
    assert drawn[0].rows("10").tolist() != drawn[1].rows("10").tolist()
    if not isinstance(kind, SequenceClass):
        assert [len(drawn[0].rows(shots)) for shots in ("1", "10", "100")] == [1, 10, 100]


def test_each_class_gives_as_many_rows() -> None:
    dataset = of_classes(300)
    label = np.array(dataset["label"])
    for shots in (1, 10, 100):
        rows = ShotRows.of(dataset, SequenceClass(names=("a", "b")), 3).rows(str(shots))
        assert np.bincount(label[rows]).tolist() == [min(shots, int((label == c).sum())) for c in (0, 1)]


@pytest.mark.parametrize(("kind", "dataset"), KINDS[1:], ids=lambda one: type(one).__name__)
def test_every_start_of_the_order_holds_the_strata_in_proportion(kind: LabelKind, dataset: Dataset) -> None:
    strata = strata_of(dataset, kind)
    order = in_proportion(strata, seed=5)
    assert sorted(order.tolist()) == list(range(300))
    for stratum, size in zip(*np.unique(strata, return_counts=True), strict=True):
        held = np.cumsum(strata[order] == stratum)
        expected = np.arange(1, 301) * size / 300
        assert np.abs(held - expected).max() < 1 + len(np.unique(strata)) / 2


def test_a_row_belongs_to_its_rarest_label() -> None:
    rows = [[0], [0, 1], [], [0, 2], [1], [0]]
    dataset = Dataset.from_dict({"item": range(6), "labels": rows})
    strata = strata_of(dataset, MultiLabel(names=("a", "b", "c")))
    assert [np.flatnonzero(strata == one).tolist() for one in np.unique(strata)] == [[3], [1, 4], [0, 5], [2]]


def test_from_how_many_shots_a_model_passes() -> None:
    rising = [("1", -0.2, -0.3, -0.1), ("10", 0.1, -0.1, 0.3), ("100", 0.2, 0.1, 0.3)]
    assert passing(rising) == {"at": "10", "earliest": "10", "latest": "100"}
    assert passing([*rising, ("all", -0.1, -0.3, 0.1)]) == {"at": None, "earliest": "10", "latest": None}
    assert passing([("1", 0.1, np.nan, np.nan)]) == {"at": "1", "earliest": None, "latest": None}
    assert passes_text(passing(rising[:1])) == "does not pass the best control with the shots that were tried"


def test_the_interval_over_seeds_is_students() -> None:
    from scipy.stats import t

    values = [0.5, 0.6, 0.55, 0.7, 0.65]
    low, high = t.interval(0.95, 4, np.mean(values), np.std(values, ddof=1) / np.sqrt(5))
    found: Any = over_seeds(values, "mcc")
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert over_seeds(values[:1], "mcc") is None


def split_of(n: int, kind: LabelKind) -> Split:
    texts = ["".join(RNG.choice(list("ACGT"), 16)) for _ in range(n)]
    labels = [[int(text.count("G") > 3), int(text.count("A") > 5)] for text in texts]
    dataset = Dataset.from_dict(
        {
            "item": RNG.permutation(n).tolist(),
            "sequence": texts,
            "labels": [np.flatnonzero(one).tolist() for one in labels],
        }
    )
    return as_split(dataset, kind)


def as_split(dataset: Dataset, kind: LabelKind) -> Split:
    return Split(dataset=dataset, embeddings=OnTheFly(dataset, load_embedder("onehot")), targets=Targets(dataset, kind))


def test_a_head_on_few_rows_is_the_head_that_is_trained_on_them_alone(tmp_path: Path) -> None:
    kind = MultiLabel(names=("g", "a"))
    splits = {"train": split_of(60, kind), "validation": split_of(30, kind), "test": split_of(20, kind)}
    loss, accelerator = build_loss("bce"), Accelerator(cpu=True)

    def build(head: Head, seed: int) -> torch.nn.Module:
        set_seed(seed)
        return build_head(head, 5, 2)

    def config_of(trial: Trial, seed: int, n_rows: int) -> FitConfig:
        return FitConfig(epochs=3, batch_size=4, learning_rate=trial.learning_rate, weight_decay=0.01, seed=seed)

    def score_of(predictions: Any) -> float:
        return -float(((predictions.score - predictions.target) ** 2).mean())

    trials = [
        Trial(head=Head("cnn", hidden=4, pool_bp=16), learning_rate=rate, chosen={"r": rate}) for rate in (0.01, 0.1)
    ]
    found = train_few(
        FewShotTraining(
            label=kind,
            splits=splits,
            loss=loss,
            trials=trials,
            build=build,
            config_of=config_of,
            score=score_of,
            batch_size=8,
            accelerator=accelerator,
            checkpoints=tmp_path,
        ),
        ("6", "all"),
    )
    assert list(found.predictions) == ["6"]
    assert list(found.predictions["6"]) == [0, 1, 2, 3, 4]
    for place, seed in enumerate((0, 3)):
        drawn = {
            name: as_split(splits[name].dataset.select(ShotRows.of(splits[name].dataset, kind, seed).rows("6")), kind)
            for name in ("train", "validation")
        }
        best, expected = -np.inf, None
        for trial in trials:
            head = build(trial.head, seed)

            def validate(module: torch.nn.Module, split: Split = drawn["validation"]) -> float:
                return score_of(predict(module, split, accelerator, batch_size=8))

            data = HeadData(train=drawn["train"], loss=loss, validate=validate)
            fitted = fit(head, data, config_of(trial, seed, 6), accelerator)
            if fitted.best is not None and fitted.best > best:
                load_trained(head, fitted.state)
                best, expected = fitted.best, predict(head, splits["test"], accelerator, batch_size=8)
        assert expected is not None
        assert found.predictions["6"][seed].score == pytest.approx(expected.score, abs=1e-6), place


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_data(tmp_path_factory.mktemp("data"), ("gene_finding", "cpg_methylation"), n=40))


COMMON: dict[str, Any] = {"model": "bend-mini", "random_init": True, "head": "linear", "epochs": 2, "shots": "2,8,all"}


def few_controls(*, installed: bool) -> list[str]:
    """Two controls, for speed: one that learns from counts, and one that is a model."""
    return ["kmer", "onehot"]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, data: str) -> Outcome:
    """A run of a multi-label task with its curve."""
    out, cache = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bend_hf.runs.run.chosen_controls", few_controls)
        return run(RunConfig(task="cpg_methylation", data=data, out=out, cache=cache, **COMMON))[0]


def check_curve(outcome: Outcome, controls: set[str]) -> None:
    record = outcome.record
    shots: Any = record.shots
    assert [(one["shots"], one["rows"], len(one["seeds"])) for one in shots["points"]] == [
        ("2", 2, 5),
        ("8", 8, 5),
        ("all", 20, 1),
    ]
    assert shots["points"][-1]["value"] == pytest.approx(record.value)
    assert shots["points"][0]["validation_rows"] == 2
    assert len(set(shots["points"][0]["subsets"])) > 1
    assert record.controls.keys() == controls
    entries: Any = record.controls
    for entry in entries.values():
        assert [one["shots"] for one in entry["shots"]] == ["2", "8", "all"]
        assert [one["subsets"] for one in entry["shots"][:2]] == [one["subsets"] for one in shots["points"][:2]]
    assert [one["shots"] for one in shots["against_controls"]["points"]] == ["2", "8", "all"]
    for ending in ("png", "svg"):
        assert outcome.path.with_name(f"{outcome.path.stem}.shots.{ending}").stat().st_size > 5000


def test_a_record_holds_a_curve_and_the_full_score(outcome: Outcome) -> None:
    check_curve(outcome, {"kmer", "onehot"})


@pytest.mark.long  # all controls, and a class for each nucleotide: a minute on one core
def test_genes_and_all_controls_have_a_curve(data: str, tmp_path: Path) -> None:
    (one,) = run(RunConfig(task="gene_finding", data=data, out=tmp_path, cache=tmp_path / "cache", **COMMON))
    check_curve(one, {"cpg", "gc", "kmer", "onehot", "prevalence"})
    assert verify_run(one.path).problems == ()
    assert verify_run(one.path).unchecked == ()


def test_curves_are_verified_and_each_changed_number_is_found(outcome: Outcome, tmp_path: Path) -> None:
    path = outcome.path
    opened: Opened = {}
    verified = verify_run(path, opened=opened)
    assert (verified.problems, verified.unchecked) == ((), ())
    changes: dict[tuple[Any, ...], Any] = {
        ("points", 0, "values", 1): 0.123,
        ("points", 0, "over_items", "low"): 0.123,
        ("points", 0, "over_seeds", "high"): 0.999,
        ("points", 1, "subsets", 0): "0" * 64,
        ("points", 1, "rows"): 9,
        ("against_controls", "points", 0, "difference"): 0.5,
        ("against_controls", "passes", "latest"): "1",
    }
    shutil.copytree(path.parent, tmp_path, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
    body = json.loads((tmp_path / path.name).read_text())
    for place, value in changes.items():
        at = body["shots"]
        for name in place[:-1]:
            at = at[name]
        assert at[place[-1]] != value
        at[place[-1]] = value
    body["sha256"] = digest_of(body)
    (tmp_path / path.name).write_text(json.dumps(body))
    problems = verify_run(tmp_path / path.name, opened=opened).problems
    for place in changes:
        dotted = "shots" + "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in place)
        assert any(one.startswith(f"{dotted} ") for one in problems), dotted


def test_card_and_report_show_curves_apart_from_the_scores(outcome: Outcome, tmp_path: Path) -> None:
    record = outcome.record
    card = model_card([record])
    assert card.count("| task | metric | score |") == 1
    assert "## Few shots" in card
    assert "| control: kmer | 8 | 8 |" in card
    write_report([outcome.path], tmp_path, paired=False)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "**Few shots.**" in text
    assert "n shots are n rows." in text
    assert list((tmp_path / "plots").glob("shots_*.svg"))
    assert "<h3>Few shots</h3>" in (tmp_path / "index.html").read_text(encoding="utf-8")
    plain = replace(record, shots=None)
    assert "## Few shots" not in model_card([plain])


def test_the_command_says_the_curve_and_does_not_repeat_it(outcome: Outcome, data: str) -> None:
    text = outcome_table([outcome])
    assert "2 shots (2 rows): auroc" in text
    assert f"it {passes_text(member(outcome.record.shots, 'against_controls', 'passes'))}" in text
    config = RunConfig(task="cpg_methylation", data=data, out=outcome.path.parent, **{**COMMON, "shots": "8"})
    assert run(config)[0].was_there


def test_a_curve_that_was_not_drawn_is_drawn_when_the_command_is_repeated(
    outcome: Outcome, data: str, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="the figure needs matplotlib")
    out = tmp_path / "out"
    shutil.copytree(outcome.path.parent, out)
    drawn = curve_files(out / outcome.path.stem)
    before = [file.read_bytes() for file in drawn]
    drawn[1].unlink()
    assert run(RunConfig(task="cpg_methylation", data=data, out=out, **COMMON))[0].was_there
    assert [file.read_bytes() for file in drawn] == before


def test_one_curve_is_drawn_for_several_seeds() -> None:
    config = RunConfig(task="cpg_methylation", shots="2", seeds=(4, 5))
    assert [with_curve_if_first(config, place).shots for place in (0, 1)] == [("2",), ()]
