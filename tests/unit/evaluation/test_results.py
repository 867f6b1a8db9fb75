"""Result records: written once and whole, read in every version, and held to their published schema."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from bend_hf.errors import RecordError
from bend_hf.evaluation.record import ResultRecord, find_records, read_record, write_record
from bend_hf.evaluation.record_schema import SCHEMA_VERSION, check, schema, upgraded, violations
from tests.records import record, write


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


def test_a_record_that_breaks_its_schema_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"protocol is 'bend-1999'; expected one of \['bend-2024', 'bend-hf-1'\]"):
        write_record(replace(record(), protocol="bend-1999"), tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_schema_and_dataclass_name_the_same_fields() -> None:
    known = schema()["properties"]
    assert isinstance(known, dict)
    assert set(known) == {item.name for item in fields(ResultRecord)} | {"schema_version"}
    assert set(known) == set(schema()["required"])  # type: ignore[arg-type]


def test_schema_version_is_the_one_that_is_written(tmp_path: Path) -> None:
    assert json.loads(_written(tmp_path).read_text())["schema_version"] == SCHEMA_VERSION
    assert schema()["properties"]["schema_version"] == {"const": SCHEMA_VERSION}  # type: ignore[index,call-overload]


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


def test_version_1_without_predictions_has_no_moment(tmp_path: Path) -> None:
    assert read_record(_edited(_version_1(_written(tmp_path)), predictions={})).created_at is None


@pytest.mark.parametrize(
    ("version", "what_to_do"),
    [(99, "install a newer one"), (0, "run it again"), (None, "run it again"), (True, "run it again"), ("2", "run")],
)
def test_unknown_version_says_what_to_do(tmp_path: Path, version: object, what_to_do: str) -> None:
    with pytest.raises(RecordError, match=what_to_do):
        read_record(_edited(_written(tmp_path), schema_version=version))


def test_text_that_is_no_json_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(RecordError, match="is no result record"):
        read_record(path)


def test_a_list_is_no_record() -> None:
    with pytest.raises(ValueError, match="has schema version None"):
        upgraded([1, 2])


def test_a_field_that_was_cut_out_is_named(tmp_path: Path) -> None:
    path = _written(tmp_path)
    body = json.loads(path.read_text())
    del body["coverage"]
    path.write_text(json.dumps(body))
    with pytest.raises(RecordError, match=r"the record lacks 'coverage'; the file was cut or edited, run it again"):
        read_record(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"created_at": "yesterday"}, "created_at is 'yesterday'; expected the form"),
        (
            {"coverage": {"scored": -1, "items": 3, "item_sha256": "c" * 64}},
            "coverage.scored is -1; expected at least 0",
        ),
        ({"metrics": {"mcc": {"value": True}}}, "metrics.mcc.value is True; expected number or null"),
        ({"metrics": {"mcc": {"value": 1, "interval": {"low": 0}}}}, "metrics.mcc.interval lacks 'high'"),
        ({"folds": [{"fold": 1, "items": 2}]}, r"folds\[0\] lacks 'metrics'"),
        ({"surprise": 1}, "the record has 'surprise', which the schema does not know"),
        ({"data": {**record().data, "files": {"bed": {"sha256": "short"}}}}, "data.files.bed.sha256 is 'short'"),
    ],
)
def test_each_kind_of_break_is_named(change: dict[str, Any], said: str) -> None:
    import re

    found = violations({**record().as_json(), **change})
    assert len(found) >= 1
    assert any(re.search(said, line) for line in found), found


def test_a_schema_keyword_that_is_not_checked_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\['maxLength'\], which this checker does not know"):
        list(check("a", {"maxLength": 3}, {}, "x"))


def test_nan_is_written_as_null(tmp_path: Path) -> None:
    path = _written(tmp_path, record(value=float("nan"), interval=None))
    assert json.loads(path.read_text())["metrics"]["auroc"]["value"] is None
    assert read_record(path).value is None


def test_probe_names_head_training_and_zero_shot() -> None:
    trained = record()
    assert trained.probe == "cnn"
    assert replace(trained, config={**trained.config, "tune": "all"}).probe == "cnn_all"
    assert record("variant_effects_disease").probe == "zero_shot"


def test_folders_are_searched_and_other_json_is_passed_over(tmp_path: Path) -> None:
    folder = write(tmp_path / "deep" / "er", record(), record(seed=1))
    (tmp_path / "sha256.json").write_text("{}")
    assert [path.parent for path in find_records([tmp_path])] == [folder, folder]


def test_a_damaged_record_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, record())
    (tmp_path / "gene_finding__onehot__seed0__20260131T120000.json").write_text('{"schema_')
    with pytest.raises(RecordError, match="is no result record"):
        [read_record(path) for path in find_records([tmp_path])]


def test_a_folder_without_records_says_who_writes_them(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="'bend-hf train' writes them"):
        find_records([tmp_path])


def test_a_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="nowhere is not there"):
        find_records([tmp_path / "nowhere"])
