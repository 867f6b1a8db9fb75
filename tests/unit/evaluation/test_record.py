"""Result records: written once and atomically, read in every version, and held to the published schema."""

from __future__ import annotations

import json
import multiprocessing
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bend_hf.errors import RecordError
from bend_hf.evaluation.record import (
    ResultRecord,
    find_records,
    free_stem,
    read_record,
    run_name,
    write_record,
)
from bend_hf.evaluation.record_schema import SCHEMA_VERSION, upgraded
from bend_hf.files import atomic_path
from tests.records import record, schema, schema_errors, write


def _written(tmp_path: Path, made: ResultRecord | None = None) -> Path:
    path = tmp_path / "run__seed0__20260131T120000.json"
    write_record(made or record(), path)
    return path


def _edited(path: Path, **changes: Any) -> Path:
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, **changes}))
    return path


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made = record(controls={"GC content": 0.6})
    assert read_record(_written(tmp_path, made)) == made


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    path = _written(tmp_path)
    before = path.read_bytes()
    with pytest.raises(RecordError, match="exists and is never overwritten; give another --out"):
        write_record(record(value=0.1), path)
    assert path.read_bytes() == before


def test_a_malformed_record_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"protocol is 'bend-1999'; expected bend-2024 or bend-hf-1"):
        write_record(replace(record(), protocol="bend-1999"), tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_written_records_keep_the_published_schema(tmp_path: Path) -> None:
    for made in (record(controls={"GC content": 0.6}), record("variant_effects_disease"), record(value=None)):
        assert schema_errors(json.loads(_written(tmp_path / made.task / str(made.value), made).read_text())) == []


def test_schema_and_dataclass_name_the_same_fields() -> None:
    assert set(schema()["properties"]) == {item.name for item in fields(ResultRecord)} | {"schema_version"}
    assert set(schema()["properties"]) == set(schema()["required"])


def test_the_schema_is_of_the_version_that_is_written(tmp_path: Path) -> None:
    assert json.loads(_written(tmp_path).read_text())["schema_version"] == SCHEMA_VERSION
    assert schema()["properties"]["schema_version"] == {"const": SCHEMA_VERSION}


def _version_1(path: Path) -> Path:
    body = json.loads(path.read_text())
    for name in ("created_at", "controls", "alignment"):
        del body[name]
    stem = "chromatin_accessibility__dnabert2__seed0__20251224T183005"
    body |= {"schema_version": 1, "predictions": {"file": f"{stem}.parquet", "sha256": "d" * 64, "items": 3}}
    path.write_text(json.dumps(body))
    return path


def test_version_1_is_read_with_its_moment_from_the_file_name(tmp_path: Path) -> None:
    read = read_record(_version_1(_written(tmp_path)))
    assert (read.value, read.controls, read.created_at) == (0.8, {}, "2025-12-24T18:30:05Z")


def test_the_license_of_earlier_records_is_read(tmp_path: Path) -> None:
    path = _written(tmp_path)
    model = json.loads(path.read_text())["model"]
    license_ = model.pop("license")
    assert read_record(_edited(path, model={**model, "licence": license_})).model == {**model, "license": license_}


def test_version_1_without_predictions_has_no_moment(tmp_path: Path) -> None:
    assert read_record(_edited(_version_1(_written(tmp_path)), predictions={})).created_at is None


@pytest.mark.parametrize(
    ("version", "what_to_do"),
    [
        (99, "upgrade bend_hf"),
        (0, "Repeat the run"),
        (None, "Repeat the run"),
        (True, "Repeat the run"),
        ("2", "Repeat"),
    ],
)
def test_an_unsupported_version_says_what_to_do(tmp_path: Path, version: object, what_to_do: str) -> None:
    with pytest.raises(RecordError, match=what_to_do):
        read_record(_edited(_written(tmp_path), schema_version=version))


def test_text_that_is_not_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(RecordError, match="is not a result record"):
        read_record(path)


def test_a_list_is_not_a_record() -> None:
    with pytest.raises(RecordError, match="the schema version is None"):
        upgraded([1, 2])


def test_a_field_that_was_cut_out_is_named(tmp_path: Path) -> None:
    path = _written(tmp_path)
    body = json.loads(path.read_text())
    del body["coverage"]
    path.write_text(json.dumps(body))
    with pytest.raises(RecordError, match=r"the record lacks 'coverage'. Repeat the run if the file was cut or edited"):
        read_record(path)


def _with_interval(**changes: object) -> dict[str, Any]:
    interval = {"low": 0.1, "high": 0.3, "level": 0.95, "method": "Wilson over 3 items", **changes}
    return {"mcc": {"value": 0.2, "interval": interval}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"created_at": "yesterday"}, "created_at is 'yesterday'; expected a time"),
        (
            {"coverage": {"scored": -1, "items": 3, "item_sha256": "c" * 64}},
            "coverage.scored is -1; expected a whole number from 0 on",
        ),
        ({"metrics": {"mcc": {"value": True}}}, "metrics.mcc.value is True; expected a number or null"),
        ({"metrics": {"mcc": {"value": 1, "interval": {"low": 0}}}}, "metrics.mcc.interval lacks 'high'"),
        ({"metrics": _with_interval(level=95)}, "metrics.mcc.interval.level is 95; expected a number between 0 and 1"),
        ({"metrics": _with_interval(level=0)}, "metrics.mcc.interval.level is 0; expected a number between 0 and 1"),
        ({"metrics": _with_interval(standard_error=-1)}, "interval.standard_error is -1; expected null or a number"),
        ({"metrics": _with_interval(degrees_of_freedom="3")}, "interval.degrees_of_freedom is '3'; expected null or"),
        ({"folds": [{"fold": 1, "items": 2}]}, r"folds\[0\].metrics is None; expected an object"),
        ({"controls": {"GC": {"metrics": {"mcc": 0.5}}}}, "controls.GC.metrics.mcc is 0.5; expected an object"),
        ({"surprise": 1}, "the record has an unknown field 'surprise'"),
        ({"data": {**record().data, "files": {"bed": {"sha256": "short"}}}}, "data.files.bed.sha256 is 'short'"),
        ({"data": {**record().data, "items": {"test": "3"}}}, "data.items.test is '3'; expected a whole number"),
        ({"model": {}}, "model.checkpoint is None; expected text"),
        ({"training": [1]}, r"training is \[1\]; expected an object or null"),
        ({"task": None}, "task is None; expected text"),
        ({"folds": {}}, "folds is {}; expected a list"),
    ],
)
def test_a_malformed_field_is_named_and_breaks_the_schema_too(change: dict[str, Any], message: str) -> None:
    body = {**record().as_json(), **change}
    with pytest.raises(RecordError, match=message):
        ResultRecord.from_json(body)
    assert schema_errors(body)


def test_nan_is_written_as_null(tmp_path: Path) -> None:
    path = _written(tmp_path, record(value=float("nan"), interval=None))
    assert json.loads(path.read_text())["metrics"]["auroc"]["value"] is None
    assert read_record(path).value is None


def test_probe_names_head_training_and_zero_shot() -> None:
    trained = record()
    assert trained.probe == "cnn"
    assert replace(trained, config={**trained.config, "tune": "all"}).probe == "cnn_all"
    assert record("variant_effects_disease").probe == "zero_shot"


def test_folders_are_searched_and_other_json_is_skipped(tmp_path: Path) -> None:
    folder = write(tmp_path / "deep" / "er", record(), record(seed=1))
    (tmp_path / "sha256.json").write_text("{}")
    assert [path.parent for path in find_records([tmp_path])] == [folder, folder]


def test_a_damaged_record_is_not_skipped(tmp_path: Path) -> None:
    write(tmp_path, record())
    (tmp_path / "gene_finding__onehot__seed0__20260131T120000.json").write_text('{"schema_')
    with pytest.raises(RecordError, match="is not a result record"):
        [read_record(path) for path in find_records([tmp_path])]


def test_a_folder_without_records_says_who_writes_them(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="'bend-hf train' writes them"):
        find_records([tmp_path])


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="nowhere does not exist"):
        find_records([tmp_path / "nowhere"])


def _take(arguments: tuple[Path, int]) -> str:
    folder, _ = arguments
    return free_stem(folder, "task__model__seed0").name


def test_processes_that_ask_at_once_for_one_name_get_a_name_each(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        names = pool.map(_take, [(tmp_path, number) for number in range(40)], chunksize=1)
    assert len(set(names)) == 40
    assert "task__model__seed0" in names


def test_a_name_that_holds_pattern_letters_is_taken_once(tmp_path: Path) -> None:
    assert [free_stem(tmp_path, "a[b]*").name for _ in range(2)] == ["a[b]*", "a[b]*-2"]


@pytest.mark.parametrize(
    "text", ["a" * 240, "\u00e9" * 200, "\U0001f9ec" * 100, "a\n\tb", "\udcff", "", " ", "../../x", ".", "-"]
)
def test_files_of_any_task_and_model_can_be_named(tmp_path: Path, text: str) -> None:
    name = run_name(text, text, 2**63, "20260101T000000")
    stem = free_stem(tmp_path, name)
    assert stem.parent == tmp_path
    with atomic_path(stem.with_name(f"{stem.name}-999.supervised.parquet")) as part:
        part.write_text("x")


@given(st.lists(st.text(min_size=61, max_size=80), min_size=2, max_size=4, unique=True))
def test_long_names_stay_apart(texts: list[str]) -> None:
    safe = {re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "x" for text in texts}
    assert len({run_name(text, "m", 0, "") for text in texts}) == len(safe)
