"""A record is believed only as far as its metrics, its interval and its predictions agree."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, matthews_corrcoef, roc_auc_score

from bend_hf.cli._main import main
from bend_hf.errors import RecordError
from bend_hf.evaluation import evidence, remembered
from bend_hf.evaluation.chance import with_chance
from bend_hf.evaluation.evidence import prediction_entries, read_verified
from bend_hf.evaluation.metrics import Score, metric_names, metric_range
from bend_hf.evaluation.predictions import Predictions, concatenate, write_predictions
from bend_hf.evaluation.record import ResultRecord, jsonable, member, write_record
from bend_hf.evaluation.uncertainty.bootstrap import Bootstrap, draws_of, with_fold
from bend_hf.runs.outcome import FoldResult, summarize
from bend_hf.types import Json
from tests.records import record, write


def percentiles(predictions: Predictions, metric: str, resamples: int) -> dict[str, Json]:
    """An interval as records of version 0.1.0 hold it."""
    values = draws_of(predictions, [metric], Bootstrap(resamples=resamples, seed=3, clusters="item"))[metric].values
    low, high = np.nanquantile(values, [0.025, 0.975]).tolist()
    drawn: dict[str, Json] = {"resamples": resamples, "seed": 3, "clusters": "item"}
    return {"low": low, "high": high, "level": 0.95, "method": "bootstrap over items", **drawn}


def predictions_of(kind: str, n: int, seed: int, fold: int | None = None) -> Predictions:
    """Random predictions: one score per item, several labels per item, or classes of several windows per item."""
    rng = np.random.default_rng(seed)
    shape = {"score": (n,), "labels": (n, 3), "classes": (2 * n,)}[kind]
    target = rng.integers(0, 2, shape).astype(np.int16)
    target[:2] = np.array([0, 1]).reshape(-1, *(1,) * (len(shape) - 1))
    target[2:][rng.random(shape)[2:] < 0.1] = -100
    values = target * rng.integers(0, 2) + rng.normal(size=shape)
    made = Predictions(
        item=np.arange(n) + 1000 * (fold or 0),
        windows=np.arange(n + 1) * (2 if kind == "classes" else 1),
        target=target,
        score=None if kind == "classes" else values.astype(np.float32),
        predicted=(values > 0.5).astype(np.int16) if kind == "classes" else None,
        label_names=("a", "b", "c") if kind == "labels" else ("a", "b"),
    )
    return with_fold(made, fold)


def scores_by_scikit_learn(made: Predictions, metric: str) -> Score:
    """The value of a metric by another library; over labels the mean of those with both classes."""
    measure = {"mcc": matthews_corrcoef, "auroc": roc_auc_score, "auprc": average_precision_score}[metric]
    values, target = made.values.reshape(len(made.target), -1), made.target.reshape(len(made.target), -1)
    per_label = []
    for column, true in zip(values.T, target.T, strict=True):
        scored = (true != -100) & np.isfinite(column)
        both = len(set(true[scored].tolist())) > 1
        per_label.append(float(measure(true[scored], column[scored])) if both else float("nan"))
    defined = [value for value in per_label if value == value]
    mean = sum(defined) / len(defined) if defined else float("nan")
    return Score(metric=metric, value=mean, detail={"per_label": jsonable(per_label)} if len(per_label) > 1 else {})


def write_run(folder: Path, folds: list[Predictions], *, has_folds: bool = False, resamples: int = 20) -> Path:
    """Write a record and its predictions as a run does."""
    folder.mkdir(parents=True, exist_ok=True)
    joined = concatenate(folds)
    metrics = ["mcc"] if joined.score is None else ["auroc", "auprc"]
    results = [
        FoldResult(
            fold=index + 1 if has_folds else None,
            predictions=one,
            scores=tuple(scores_by_scikit_learn(one, metric) for metric in metrics),
        )
        for index, one in enumerate(folds)
    ]
    found = summarize(results)
    if joined.n_answered == len(joined):
        found = {name: {**entry, "interval": percentiles(joined, name, resamples)} for name, entry in found.items()}  # type: ignore[dict-item]  # objects
    made = record(
        metrics=with_chance(found, joined),
        main_metric=metrics[0],
        folds=[
            {
                "fold": one.fold,
                "items": len(one.predictions),
                "metrics": {metric.metric: {"value": jsonable(metric.value), "detail": {}} for metric in one.scores},
            }
            for one in results
            if one.fold is not None
        ],
        coverage={
            "scored": joined.n_answered,
            "items": len(joined),
            "item_sha256": joined.item_sha256,
            "identity": "content",
        },
        predictions={
            "file": "run__seed0.parquet",
            "sha256": write_predictions(joined, folder / "run__seed0.parquet"),
            "items": len(joined),
        },
    )
    write_record(made, folder / "run__seed0.json")
    return folder / "run__seed0.json"


def edit(path: Path, change: Callable[[Any], None]) -> Path:
    """Change a record. Its own hash goes, as in records of earlier releases, so that the other checks must find it."""
    body = json.loads(path.read_text())
    body.pop("sha256", None)
    change(body)
    path.write_text(json.dumps(body))
    return path


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["score", "labels", "classes"]),
    n=st.integers(4, 30),
    seed=st.integers(0, 99),
    n_folds=st.sampled_from([0, 0, 3]),
    off=st.sampled_from([-0.2, 1e-4, 0.3]),
)
def test_a_run_is_believed_as_written_and_no_other_number_is(
    kind: str, n: int, seed: int, n_folds: int, off: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    folds = [predictions_of(kind, n, seed + fold, fold + 1) for fold in range(n_folds)]
    path = write_run(folder, folds or [predictions_of(kind, n, seed)], has_folds=bool(folds))
    text = path.read_text()
    believed = read_verified(path)
    for metric in believed.metrics:
        edit(path, lambda body, metric=metric: change_by(body["metrics"][metric], off))
        with pytest.raises(RecordError, match=rf"metrics\.{metric}\.value is"):
            read_verified(path)
        path.write_text(text)
        for index in range(n_folds):
            edit(path, lambda body, i=index, metric=metric: change_by(body["folds"][i]["metrics"][metric], off))
            with pytest.raises(RecordError, match=rf"metrics(\.{metric}\.value of fold|.*expected a number from)"):
                read_verified(path)
            path.write_text(text)
    assert read_verified(path) == believed


def change_by(entry: dict[str, Any], off: float) -> None:
    entry["value"] += off


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs", [predictions_of("labels", 40, 5)])


def set_value(value: object) -> Callable[[Any], None]:
    return lambda body: body["metrics"]["auroc"].update(value=value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_value(7.5), "metrics.auroc.value is 7.5; expected a number from 0 to 1"),
        (set_value(-0.1), "metrics.auroc.value is -0.1; expected a number from 0 to 1"),
        (set_value(0.51234), "metrics.auroc.value is 0.51234, but run__seed0.parquet gives"),
        (
            lambda body: body["metrics"]["auroc"]["interval"].update(low=0.9, high=0.95),
            "gives another",
        ),
        (lambda body: body["metrics"]["auroc"]["interval"].update(low=0.9, high=0.1), "expected the lower end first"),
        (lambda body: body["metrics"]["auprc"]["interval"].update(high=1.5), "auprc.interval.high is 1.5"),
        (lambda body: body["metrics"]["auroc"]["detail"]["per_label"].__setitem__(0, 0.999), "per_label holds 0.999"),
        (lambda body: body.update(controls={"gc": {"metrics": {"auroc": {"value": 3}}}}), "controls.gc.metrics.auroc"),
        (
            lambda body: body["coverage"].update(items=41, scored=41),
            "holds 40 items",
        ),
        (lambda body: body["coverage"].update(scored=99), "coverage.scored is 99; expected at most the 40"),
        (
            lambda body: body["coverage"].update(scored=12),
            "coverage.scored is 12, but run__seed0.parquet has 40 scores",
        ),
        (lambda body: body["metrics"]["auprc"]["chance"].update(value=0.9), "metrics.auprc.chance.value is 0.9, but"),
        (lambda body: body["metrics"]["auroc"].update(below_chance=True), "metrics.auroc.below_chance is True, but"),
        (lambda body: body["coverage"].update(item_sha256="e" * 64), "holds other items than"),
        (lambda body: body["predictions"].update(sha256="e" * 64), "but the record states eeeeeeeeeeee"),
    ],
)
def test_an_edited_record_is_refused_wherever_records_are_read(
    change: Callable[[Any], None], said: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(run, change)
    file, out = str(run.with_suffix(".parquet")), str(tmp_path / "out")
    for argv in (
        ["report", str(run.parent), "--out", out, "--no-plots"],
        ["card", str(run), "--out", out],
        ["push", "results", "--from", str(run.parent), "--namespace", "me", "--dry-run"],
        ["compare", file, file],
    ):
        assert main(argv) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def rewritten(rows: slice) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        table = pq.read_table(file)
        pq.write_table(table.take(np.arange(len(table))[rows]), file, compression="zstd")

    return change


@pytest.mark.parametrize("own_sha256", [True, False])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (flipped, r"has the sha256|is not a prediction file|cannot be"),
        (cut, r"has the sha256|is not a prediction file"),
        (rewritten(slice(None, None, -1)), r"has the sha256"),
        (rewritten(slice(0, -1)), r"has the sha256|coverage.items is 40, but run__seed0.parquet holds 39 items"),
        (Path.unlink, r"is missing|is not a prediction file"),
    ],
    ids=["flipped", "cut", "reordered", "rows deleted", "deleted"],
)
def test_predictions_that_were_changed_are_refused_wherever_records_are_read(
    change: Callable[[Path], None],
    said: str,
    own_sha256: bool,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, out = run.with_suffix(".parquet"), str(tmp_path / "out")
    shutil.copytree(run.parent, tmp_path / "other")
    change(file)
    if not own_sha256 and file.is_file():
        if said == "has the sha256":
            pytest.skip("the same rows in another order, if the record names them, are the same evidence")
        edit(run, lambda body: body["predictions"].update(sha256=hashlib.sha256(file.read_bytes()).hexdigest()))
    push = ["push", "results", "--from", str(run.parent), "--dry-run"]
    commands = [[*push, "--namespace", "me"], [*push, "--repo", "me/model", "--create-pr"]]
    commands.append(["compare", str(file), str(tmp_path / "other" / file.name)])
    if change is not Path.unlink:
        commands += [["report", str(run.parent), "--out", out, "--no-plots"], ["card", str(run), "--out", out]]
    for argv in commands:
        assert main(argv) == 1
        assert re.search(said, text := capsys.readouterr().err), text
        assert "Traceback" not in text
    assert not (tmp_path / "out").exists()


def test_a_report_says_which_records_lack_their_predictions(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run.with_suffix(".parquet").unlink()
    assert main(["report", str(run.parent), "--out", str(tmp_path / "out"), "--no-plots"]) == 0
    assert "run__seed0.parquet is missing (1 such files), so the scores of these records are checked" in caplog.text


def test_predictions_that_were_exchanged_are_refused(run: Path) -> None:
    file = run.with_suffix(".parquet")
    file.unlink()
    write_predictions(predictions_of("labels", 40, 6), file)
    with pytest.raises(RecordError, match=r"run__seed0.parquet has the sha256 \w{12}, but the record states"):
        read_verified(run)


def test_a_record_without_its_predictions_is_held_to_its_interval(run: Path) -> None:
    run.with_suffix(".parquet").unlink()
    read_verified(run)
    with pytest.raises(RecordError, match=r"metrics.auroc.value is 0.999, outside its interval of"):
        read_verified(edit(run, set_value(0.999)))


def test_an_interval_that_does_not_hold_its_value_is_believed_if_the_predictions_give_it(tmp_path: Path) -> None:
    """A percentile interval need not hold the value, and such a run stays readable: here it is of one resample."""
    path = write_run(tmp_path, [predictions_of("score", 30, 1)], resamples=1)
    entry = read_verified(path).metrics["auroc"]
    assert isinstance(entry, dict)
    assert isinstance(entry["interval"], dict)
    assert entry["value"] != pytest.approx(entry["interval"]["low"])


def test_records_that_counted_rows_are_read_with_the_number_of_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = predictions_of("score", 30, 1)
    assert made.score is not None
    made.score[10:14] = np.nan
    path = write_run(tmp_path, [made])
    assert read_verified(path).coverage["scored"] == 26
    edit(path, lambda body: body["coverage"].update(scored=30))
    with pytest.raises(RecordError, match=r"coverage\.scored is 30, but run__seed0\.parquet has 26 scores"):
        read_verified(path)
    edit(path, lambda body: body["coverage"].pop("identity"))  # earlier releases took row numbers
    edit(path, lambda body: body["coverage"].update(item_sha256=made.row_sha256))
    assert read_verified(path).coverage["scored"] == 26
    assert "26 of 30 items have a score" in caplog.text


def test_every_metric_of_the_package_declares_its_range() -> None:
    for name in metric_names(plugins=False):
        low, high = metric_range(name) or (0.0, 0.0)
        assert (low, high) in ((0.0, 1.0), (-1.0, 1.0))
    assert metric_range("mine") is None


def test_a_record_of_an_own_metric_is_read_without_running_the_metric(run: Path) -> None:
    def own(body: Any) -> None:
        body["metrics"]["mine"] = {"value": 12.5, "detail": {}}

    believed: ResultRecord = read_verified(edit(run, own))
    assert believed.metrics["mine"] == {"value": 12.5, "detail": {}}


def test_a_record_that_agrees_is_not_compared_again_until_its_files_or_the_code_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path / "cache"))
    path = write_run(tmp_path / "a", [predictions_of("score", 20, 0)])
    first = read_verified(path)
    copy = tmp_path / "copy"
    shutil.copytree(path.parent, copy)
    with monkeypatch.context() as patch:
        patch.setattr(evidence, "read_predictions", _unread)
        assert read_verified(path) == first
        assert read_verified(copy / path.name) == first  # the content counts, not the place
        edit(path, lambda body: body["metrics"]["auroc"].update(value=0.123))
        with pytest.raises(AssertionError, match="were read"):
            read_verified(path)
        patch.setattr(remembered, "_code_sha256", lambda: "other")
        with pytest.raises(AssertionError, match="were read"):
            read_verified(copy / path.name)
    with pytest.raises(RecordError, match=r"metrics.auroc.value is 0.123"):
        read_verified(path)
    with pytest.raises(RecordError, match=r"metrics.auroc.value is 0.123"):  # a fault is not remembered as agreement
        read_verified(path)
    other = write_run(tmp_path / "b", [predictions_of("score", 20, 1)])
    shutil.copy(other.with_suffix(".parquet"), copy / "run__seed0.parquet")
    with pytest.raises(RecordError, match="but the record states"):
        read_verified(copy / path.name)


def _unread(path: Path) -> Predictions:
    raise AssertionError(f"{path} were read")


def test_records_are_checked_where_nothing_can_be_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path / "file" / "cache"))
    path = write_run(tmp_path / "a", [predictions_of("score", 20, 0)])
    assert read_verified(path) == read_verified(path)


def test_the_predictions_of_further_heads_are_part_of_the_evidence(tmp_path: Path) -> None:
    path = write_run(tmp_path, [predictions_of("score", 20, 0)])
    digest = write_predictions(predictions_of("score", 20, 1), tmp_path / "run__seed0.linear_probe.parquet")
    entry = {"file": "run__seed0.linear_probe.parquet", "sha256": digest, "items": 20}
    edit(path, lambda body: body["predictions"].update(further={"linear": entry}))
    made = read_verified(path)
    assert [member(one, "file") for one in prediction_entries(made)] == [path.stem + ".parquet", entry["file"]]
    (tmp_path / "run__seed0.linear_probe.parquet").unlink()
    assert read_verified(path) == made  # as without the predictions of the score
    write_predictions(predictions_of("score", 20, 2), tmp_path / "run__seed0.linear_probe.parquet")
    with pytest.raises(RecordError, match=r"linear_probe.parquet has the sha256 .*, but the record states"):
        read_verified(path)
    edit(path, lambda body: body["predictions"]["further"]["linear"].update(file="../x.parquet"))
    with pytest.raises(RecordError, match=r"predictions.further.linear.file is '../x.parquet'; expected the name of"):
        read_verified(path)


def test_equal_parts_of_records_are_one_object(tmp_path: Path) -> None:
    write(tmp_path, *(record(seed=seed) for seed in range(3)))
    first, *others = evidence.read_all_verified(sorted(tmp_path.glob("*.json")))
    for other in others:
        assert other.model is first.model
        assert other.created_with is first.created_with
        assert other.config != first.config  # the seed
        assert other.config["task"] is first.config["task"]
