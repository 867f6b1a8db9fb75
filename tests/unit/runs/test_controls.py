"""Control rows: their features against plain counting, what they learn, and their records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from accelerate import Accelerator
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from bend_hf.cli._main import main
from bend_hf.config import RunConfig
from bend_hf.data.dataset import TaskData, open_task
from bend_hf.data.sequences import reverse_complement
from bend_hf.data.sources import find_source
from bend_hf.embedders import OneHotEmbedder
from bend_hf.errors import InputError, RegistryError
from bend_hf.evaluation.predictions import read_predictions
from bend_hf.evaluation.record import ResultRecord, read_record
from bend_hf.evaluation.uncertainty.bootstrap import folds_of
from bend_hf.runs.checks import check_fit
from bend_hf.runs.controls import CONTROLS, _features
from bend_hf.runs.controls._features import BIN_FLANK, NUCLEOTIDE_FLANK_BP, Windows, kmer_features
from bend_hf.runs.controls._linear import choose_c, fit_linear
from bend_hf.runs.controls._variants import cpg_changes, gc_around
from bend_hf.runs.controls.composition import CPG, GC
from bend_hf.runs.outcome import Outcome, RunResults
from bend_hf.runs.run import (
    ModelRun,
    PreparedTask,
    Run,
    compute,
    control_run,
    controls_entry,
    controls_of,
    model_run,
    open_embedder,
    run_task,
)
from bend_hf.tasks import TASKS
from bend_hf.tasks._labels import BinClasses, LabelKind, MultiLabel, NucleotideClasses
from tests.tiny import write_data

NO_MODEL = "no model is to be run"
TASK_NAMES = ("gene_finding", "enhancer_annotation", "cpg_methylation", "variant_effects_disease")
ALONE = ("cpg", "gc", "kmer", "prevalence")
TWO = MultiLabel(names=("a", "b"))


def prepared(config: RunConfig, data: TaskData) -> PreparedTask:
    return PreparedTask(config=config, data=data, accelerator=Accelerator(cpu=True))


def run_control(config: RunConfig, data: TaskData, key: str) -> Outcome:
    return run_task(control_run(prepared(config, data), CONTROLS.get(key)))


def run_controls(config: RunConfig, data: TaskData, keys: Sequence[str], **options: bool) -> list[Outcome]:
    return [run_task(run) for run in controls_of(prepared(config, data), keys, **options)]


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(run: Run, name: str) -> RunResults:
        if isinstance(run, ModelRun):
            raise AssertionError(NO_MODEL)
        return compute(run, name)

    monkeypatch.setattr("bend_hf.runs.run.compute", never)


def dataset_of(sequences: list[str], labels: list[list[int]]) -> Dataset:
    return Dataset.from_dict({"item": list(range(len(sequences))), "sequence": sequences, "labels": labels})


def all_features(windows: Windows) -> np.ndarray[Any, Any]:
    return np.concatenate([batch.features for batch in windows.batches()])


def shares(text: str, words: list[set[str]], k: int) -> list[float]:
    """Fractions of the k-mers that start in a text; its last k - 1 nucleotides only complete them."""
    found = [text[at : at + k] for at in range(len(text) - k + 1)]
    known = [word for word in found if set(word) <= set("ACGT")]
    return [sum(word in group for word in known) / max(len(known), 1) for group in words]


def groups(k: int) -> list[set[str]]:
    """K-mers with their reverse complements, in the order of the first of the two."""
    words = [""]
    for _ in range(k):
        words = [word + letter for word in words for letter in "ACGT"]
    first = [word for word in words if word <= reverse_complement(word)]
    return [{word, reverse_complement(word)} for word in first]


@pytest.mark.parametrize(("k", "n"), [(1, 2), (2, 10), (3, 32), (5, 512)])
def test_kmer_and_its_reverse_complement_are_one_feature(k: int, n: int) -> None:
    assert kmer_features(k, both_strands=True).n_features == n == len(groups(k))
    assert kmer_features(k, both_strands=False).n_features == 4**k


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text("ACGTacgtN", min_size=1, max_size=40), min_size=1, max_size=6), st.integers(1, 3))
def test_fractions_of_whole_sequences_are_those_of_plain_counting(sequences: list[str], k: int) -> None:
    windows = Windows(dataset_of(sequences, [[0]] * len(sequences)), TWO, kmer_features(k, both_strands=True))
    expected = [shares(text.upper(), groups(k), k) for text in sequences]
    np.testing.assert_allclose(all_features(windows), expected, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text("ACGTN", min_size=8, max_size=70), min_size=1, max_size=4))
def test_a_bin_is_seen_with_its_neighbors(sequences: list[str]) -> None:
    kind = BinClasses(names=("no", "yes"), bin_bp=8)
    counts = [len(text) // 8 for text in sequences]
    windows = Windows(dataset_of(sequences, [[0] * n for n in counts]), kind, kmer_features(2, both_strands=True))
    expected = []
    for text, n in zip(sequences, counts, strict=True):
        for number in range(n):
            low, high = max(number - BIN_FLANK, 0) * 8, (number + BIN_FLANK + 1) * 8
            expected.append(shares(text[low : high + 1], groups(2), 2))  # a word may end in the next bin
    np.testing.assert_allclose(all_features(windows), expected, atol=1e-6)


@settings(deadline=None, max_examples=10)
@given(st.lists(st.text("ACGTN", min_size=1, max_size=300), min_size=1, max_size=3))
def test_a_nucleotide_is_seen_from_left_and_right(sequences: list[str]) -> None:
    kind = NucleotideClasses(names=("x", "y"))
    windows = Windows(dataset_of(sequences, [[0] * len(text) for text in sequences]), kind, GC)
    expected = []
    for text in sequences:
        for at in range(len(text)):
            left, right = text[max(at - NUCLEOTIDE_FLANK_BP, 0) : at], text[at : at + NUCLEOTIDE_FLANK_BP]
            expected.append([shares(part, [{"C", "G"}], 1)[0] for part in (left, right)])
    np.testing.assert_allclose(all_features(windows), expected, atol=1e-6)


def test_size_of_batches_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("ACGT"), rng.integers(5, 60))) for _ in range(30)]
    dataset = dataset_of(sequences, [[0] * len(text) for text in sequences])
    kind, words = NucleotideClasses(names=("x", "y")), kmer_features(2, both_strands=False)
    whole = Windows(dataset, kind, words)
    n_whole = sum(1 for _ in whole.batches())
    features, target = whole.sample(100, seed=3)
    monkeypatch.setattr(_features, "_COUNTS_PER_BATCH", 1000)
    small = Windows(dataset, kind, words)
    assert sum(1 for _ in small.batches()) > n_whole == 1
    np.testing.assert_array_equal(all_features(small), all_features(whole))
    np.testing.assert_array_equal(small.sample(100, seed=3)[0], features)
    assert len(features) == len(target) == 100


def test_cpg_and_gc_of_a_sequence() -> None:
    dataset = dataset_of(["CGCGA", "NNNN", "ATAT"], [[0], [0], [1]])
    assert all_features(Windows(dataset, TWO, CPG)).ravel().tolist() == [0.5, 0.0, 0.0]
    np.testing.assert_allclose(all_features(Windows(dataset, TWO, GC)).ravel(), [0.8, 0.0, 0.0], rtol=1e-6)


def variants(sequences: list[str], offsets: list[int], alts: list[str]) -> Dataset:
    return Dataset.from_dict({"sequence": sequences, "variant_offset": offsets, "alt": alts})


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.text("ACGTn", min_size=1, max_size=6), st.integers(0, 5)), min_size=1), st.data())
def test_cpg_of_variants_is_that_of_plain_counting(drawn: list[tuple[str, int]], data: st.DataObject) -> None:
    sequences, offsets = [text for text, _ in drawn], [at % len(text) for text, at in drawn]
    alts = [data.draw(st.sampled_from("ACGT")) for _ in drawn]
    expected = []
    for text, at, alt in zip(sequences, offsets, alts, strict=True):
        changed = text[:at] + alt + text[at + 1 :]
        places = [
            {place for place in range(len(text) - 1) if one.upper()[place : place + 2] == "CG"}
            for one in (text, changed)
        ]
        expected.append(len(places[0] ^ places[1]))
    assert cpg_changes(variants(sequences, offsets, alts)).tolist() == expected


def test_gc_around_a_variant_stops_at_the_context_and_the_contig() -> None:
    spec = replace(TASKS.get("variant_effects_disease").variant, context_bp=2)  # type: ignore[type-var]
    found = gc_around(variants(["AAGCGAAAA", "GNTT"], [3, 0], ["A", "A"]), spec)
    assert found.tolist() == [3 / 5, 1 / 2]  # A G C G A; G N T, of which N is unknown


def test_fit_is_that_of_scaled_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((300, 4)) * [1, 10, 0.01, 1] + 5).astype(np.float32)
    x[:, 3] = 7  # constant
    y = (rng.random((300, 2)) < 0.4).astype(np.int16)
    y[:, 0] |= x[:, 0] > 5.5
    found = fit_linear(x, y, n_outputs=2, c=0.1).scores(x)
    scaled = StandardScaler().fit_transform(x[:, :3].astype(np.float64))
    for label in range(2):
        expected = LogisticRegression(C=0.1, max_iter=500).fit(scaled, y[:, label]).decision_function(scaled)
        np.testing.assert_allclose(found[:, label], expected, atol=2e-3)


def test_label_or_class_that_training_lacks_is_never_predicted() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 2)).astype(np.float32)
    y = np.stack([np.zeros(60), np.ones(60)], axis=1).astype(np.int16)
    scores = fit_linear(x, y, n_outputs=2, c=1.0).scores(x)
    assert (scores[:, 0] < 0).all()
    assert (scores[:, 1] > 0).all()
    for held in ([2], [0, 2], [0, 2, 3]):
        classes = np.array(held, np.int16)[np.digitize(x[:, 0], [-0.4, 0.4][: len(held) - 1])]
        said = fit_linear(x, classes, n_outputs=5, c=1.0).scores(x).argmax(axis=1)
        assert set(said) == set(held)
        assert (said == classes).mean() > 0.85


def test_c_is_the_best_on_validation_and_the_smallest_of_equals() -> None:
    values = {1e-4: 0.6, 1e-2: 0.9, 1.0: 0.9}
    asked: list[float] = []

    def fit(c: float) -> Any:
        asked.append(c)
        return c

    chosen = choose_c(fit, lambda c: values[c])  # type: ignore[index]  # a fit is its own C here
    assert (chosen.c, chosen.linear) == (1e-2, 1e-2)
    assert choose_c(fit, lambda c: float("nan")).c == 1e-4
    assert asked[:3] == [1e-4, 1e-2, 1.0]


def planted(task: str, signal: str) -> TaskData:
    """Sequences whose first label is positive where one half is rich in the signal; the other labels are noise."""
    spec = TASKS.get(task)
    rng = np.random.default_rng(1)
    parts = {}
    for split, n in (("train", 160), ("validation", 60), ("test", 60)):
        first = rng.integers(0, 2, n)
        shares = {"gc": [0.2, 0.3, 0.3, 0.2], "flat": [0.25] * 4}
        sequences = ["".join(rng.choice(list("ACGT"), 512, p=shares["gc" if yes else "flat"])) for yes in first]
        if signal == "word":
            sequences = ["".join(rng.choice(list("ACGT"), 512)) for _ in first]
            sequences = [
                text[: -10 * 6] + "GATTAC" * 10 if yes else text for text, yes in zip(sequences, first, strict=True)
            ]
        labels = [[*([0] if yes else []), *([1] if rng.random() < 0.5 else [])] for yes in first]
        named = Features(
            {
                "item": Value("int64"),
                "chromosome": Value("string"),
                "start": Value("int64"),
                "end": Value("int64"),
                "strand": Value("string"),
                "sequence": Value("large_string"),
                "labels": List(ClassLabel(names=["gc", "noise"])),
            }
        )
        columns = {
            "item": list(range(n)),
            "chromosome": ["chr1"] * n,
            "start": [512 * at for at in range(n)],
            "end": [512 * at + 512 for at in range(n)],
            "strand": ["+"] * n,
            "sequence": sequences,
            "labels": labels,
        }
        parts[split] = Dataset.from_dict(columns, features=named)
    facts: dict[str, Any] = {
        "origin": "files",
        "files": {},
        "items": {k: len(v) for k, v in parts.items()},
        "changes": {},
    }
    return TaskData(task=spec.with_label_names(("gc", "noise")), subsets=parts, facts=facts)


def first_label(record: ResultRecord) -> float:
    metric: Any = record.metrics["auroc"]
    value: float = metric["detail"]["per_label"][0]
    return value


def test_controls_find_what_was_planted(tmp_path: Path) -> None:
    config = RunConfig(task=("cpg_methylation",), out=tmp_path)
    data = planted("cpg_methylation", "gc")
    found = {key: first_label(run_control(config, data, key).record) for key in ALONE}
    assert found["gc"] > 0.95
    assert found["kmer"] > 0.9
    assert found["prevalence"] == 0.5


def test_kmers_find_what_composition_does_not(tmp_path: Path) -> None:
    config = RunConfig(task=("cpg_methylation",), out=tmp_path)
    data = planted("cpg_methylation", "word")
    run, gc = run_control(config, data, "kmer"), run_control(config, data, "gc")
    assert first_label(run.record) > 0.98 > 0.85 > first_label(gc.record)
    training: Any = run.record.training
    assert training["runs"][0]["c"] in (1e-4, 1e-2, 1.0)
    assert training["runs"][0]["windows"] == 160


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), TASK_NAMES, n=20)


@pytest.fixture(scope="module")
def opened(folder: Path) -> dict[str, TaskData]:
    return {
        name: open_task(find_source(TASKS.get(name), data=str(folder)), RunConfig(task=(name,), data=str(folder)))
        for name in TASK_NAMES
    }


@pytest.mark.parametrize("name", TASK_NAMES)
def test_each_control_writes_a_record_like_any_other(
    name: str, opened: dict[str, TaskData], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, caplog_level = opened[name], caplog.at_level("INFO")
    folds = (2,) if data.n_folds else ()
    config = RunConfig(task=(name,), out=tmp_path, fold=folds)
    with caplog_level:
        runs = run_controls(config, data, ALONE)
    assert [run.control for run in runs] == [key for key in ALONE if CONTROLS.get(key).why_not(data.task) is None]
    left_out = "is scored without training, so there is nothing to learn it from"
    assert (left_out in caplog.text) == (data.task.variant is not None)
    items = sum(len(data.splits(fold)["test"]) for fold in folds or (None,))
    for run in runs:
        assert read_record(run.path) == replace(run.record, created_with=read_record(run.path).created_with)
        assert run.record.model["family"] == "control"
        assert run.record.model["model"] == run.control
        assert run.record.coverage["scored"] == run.record.coverage["items"] == items
        entry: Any = run.record.metrics[data.task.metric]
        assert entry["value"] is not None
        assert entry["interval"]["method"].startswith("Wilson over ")
        if entry["interval"]["mark"] != "undefined":
            assert entry["interval"]["low"] <= entry["value"] <= entry["interval"]["high"]
        predictions = read_predictions(run.path.with_suffix(".parquet"))
        assert predictions.item_sha256 == run.record.coverage["item_sha256"]
        assert sorted(set(folds_of(predictions).tolist())) == sorted(folds or (0,))
        assert len(run.record.folds) == len(folds)
    assert len({run.record.coverage["item_sha256"] for run in runs}) == 1
    if name == "gene_finding":
        assert runs[-1].record.value == 0.0
    if name == "cpg_methylation":
        assert runs[-1].record.value == 0.5


def test_prevalence_is_that_of_training_and_the_same_for_all(opened: dict[str, TaskData], tmp_path: Path) -> None:
    data = opened["cpg_methylation"]
    run = run_control(RunConfig(task=("x",), out=tmp_path), data, "prevalence")
    scores = read_predictions(run.path.with_suffix(".parquet")).score
    assert scores is not None
    labels = data.splits(None)["train"]["labels"]
    expected = [np.mean([number in row for row in labels]) for number in range(7)]
    np.testing.assert_allclose(scores, np.tile(expected, (len(scores), 1)), atol=1e-6)


@pytest.mark.usefixtures("no_model")
def test_a_control_that_is_there_is_not_run_again(opened: dict[str, TaskData], tmp_path: Path) -> None:
    config, data = RunConfig(task=("cpg_methylation",), out=tmp_path), opened["cpg_methylation"]
    first, second = (run_control(config, data, "gc") for _ in range(2))
    assert first.path == second.path
    assert second.record.metrics == first.record.metrics
    assert run_control(replace(config, seed=1), data, "gc").path != first.path
    assert run_control(replace(config, model="dnabert2"), data, "gc").path == first.path


def test_a_model_that_was_run_is_its_own_control(
    opened: dict[str, TaskData], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = opened["cpg_methylation"]
    config = RunConfig(task=("cpg_methylation",), model="onehot", out=tmp_path, epochs=1, head="linear")
    earlier = run_task(model_run(prepared(config, data), open_embedder(config)))
    request.getfixturevalue("no_model")
    (found,) = run_controls(replace(config, model="resnet-supervised"), data, ["onehot"])
    assert (found.control, found.path) == ("onehot", earlier.path)
    assert found.record.metrics == read_record(earlier.path).metrics
    for other in (replace(config, head=None), replace(config, seed=1), replace(config, epochs=2)):
        with pytest.raises(AssertionError, match=NO_MODEL):
            run_controls(other, data, ["onehot"])


def test_one_hot_gets_the_head_of_the_run(opened: dict[str, TaskData], tmp_path: Path) -> None:
    data = opened["cpg_methylation"]
    config = RunConfig(
        task=("cpg_methylation",), out=tmp_path, model="dnabert2", layer=3, epochs=3, head="linear", seed=5
    )
    (run,) = controls_of(prepared(config, data), ["onehot"])
    assert isinstance(run, ModelRun)
    assert isinstance(run.embedder, OneHotEmbedder)
    assert (run.config.model, run.config.layer, run.config.epochs, run.config.seed) == ("onehot", -1, 3, 5)
    of_model = model_run(prepared(config, data), OneHotEmbedder())
    assert run.head == of_model.head
    assert run.head is not None


def test_one_hot_is_not_a_control_of_itself_and_is_never_fine_tuned(
    opened: dict[str, TaskData], tmp_path: Path
) -> None:
    data = opened["cpg_methylation"]
    config = RunConfig(task=("cpg_methylation",), out=tmp_path, model="onehot")
    assert list(controls_of(prepared(config, data), ["onehot"], with_model=True)) == []
    (run,) = controls_of(prepared(replace(config, model="dnabert2", tune="lora"), data), ["onehot"])
    assert run.config.tune == "head"


def test_random_weights_control_is_the_same_model_otherwise(tmp_path: Path) -> None:
    twin = CONTROLS.get("random_twin").model
    assert twin is not None
    config = RunConfig(task=("cpg_methylation",), out=tmp_path, model="dnabert2", checkpoint="here", layer=4, seed=5)
    assert twin(config) == replace(config, random_init=True)
    assert twin(replace(config, random_init=True)) is None
    for model in ("onehot", "resnet-supervised", "mine.py"):
        assert twin(RunConfig(task=("cpg_methylation",), model=model)) is None


def test_the_random_weights_control_has_its_own_name_in_files(opened: dict[str, TaskData], tmp_path: Path) -> None:
    data = opened["cpg_methylation"]
    config = RunConfig(task=("cpg_methylation",), out=tmp_path, model="bend-mini")
    (twin,) = controls_of(prepared(config, data), ["random_twin"])
    assert twin.label == "bend-mini-random"
    assert model_run(prepared(config, data), open_embedder(config)).label == "bend-mini"


def test_what_a_model_keeps_of_its_controls(opened: dict[str, TaskData], tmp_path: Path) -> None:
    config, data = RunConfig(task=("cpg_methylation",), out=tmp_path), opened["cpg_methylation"]
    entries: Any = controls_entry(run_controls(config, data, ["gc", "prevalence"]))
    assert sorted(entries) == ["gc", "prevalence"]
    assert entries["prevalence"]["metrics"]["auroc"]["value"] == 0.5
    assert entries["gc"]["description"].startswith("Logistic regression on the fraction of G and C")


def test_split_without_items_is_refused(opened: dict[str, TaskData]) -> None:
    data = opened["cpg_methylation"]
    parts = {name: part for name, part in data.subsets.items() if name != "validation"}
    with pytest.raises(InputError, match="no item in its split 'validation'"):
        check_fit(RunConfig(task=("x",)), replace(data, subsets=parts))


def test_an_unknown_control_is_refused_with_the_nearest_name(opened: dict[str, TaskData], tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="unknown control 'kmers'; did you mean 'kmer'"):
        run_controls(RunConfig(task=("x",), out=tmp_path), opened["cpg_methylation"], ["kmers"])


def test_the_command_runs_them_and_names_their_records(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    command = f"controls --task cpg_methylation --data {folder} --out {out} --epochs 1 --only gc prevalence"
    assert main(command.split()) == 0
    text = capsys.readouterr().out
    assert text.split()[:5] == ["task", "control", "metric", "score", "items"]
    records = [Path(line.removeprefix("record: ")) for line in text.splitlines() if line.startswith("record: ")]
    assert [read_record(path).model["model"] for path in records] == ["gc", "prevalence"]


def test_variants_are_scored_with_their_places(opened: dict[str, TaskData], tmp_path: Path) -> None:
    data = opened["variant_effects_disease"]
    run = run_control(RunConfig(task=("x",), out=tmp_path), data, "cpg")
    predictions = read_predictions(run.path.with_suffix(".parquet"))
    assert set(predictions.columns) == {"chromosome", "start", "end", "strand", "ref", "alt"}
    assert isinstance(predictions.columns["ref"], pa.Array)
    assert run.record.training is None
    assert run.record.probe == "zero_shot"


def test_labels_of_all_kinds_are_cut_into_cells() -> None:
    text = "ACGTACGTAC"
    kinds: list[tuple[LabelKind, int]] = [
        (TWO, 1),
        (BinClasses(names=("no", "yes"), bin_bp=4), 2),
        (NucleotideClasses(names=("x", "y")), 10),
    ]
    for kind, n in kinds:
        windows = Windows(dataset_of([text], [[0] * n]), kind, GC)
        assert len(windows) == n == len(all_features(windows))
        assert all_features(windows).shape[1] == windows.n_features
