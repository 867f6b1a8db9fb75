"""Files that are no records, and records with values of any kind: left out or refused in one line, never a crash."""

from __future__ import annotations

import copy
import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bend_hf.errors import BendError, RecordError
from bend_hf.evaluation.record import ResultRecord, find_records, read_record
from bend_hf.evaluation.run_key import runs_of_key
from bend_hf.publishing.leaderboard import leaderboards
from bend_hf.publishing.model_card import model_card
from bend_hf.publishing.report import write_report
from bend_hf.publishing.report.tables import as_csv, as_markdown
from bend_hf.publishing.results import group_records
from bend_hf.publishing.uploads import plan_results, plan_scores
from tests.records import record, write

FOLD: dict[str, Any] = {"fold": 1, "items": 3, "metrics": {"mcc": {"value": 0.1}}}
RECORDS: tuple[dict[str, Any], ...] = (
    record(controls={"GC content": 0.5}).as_json(),
    record("gene_finding", folds=[FOLD], predictions={"file": "a.parquet"}, alignment={"rows": "one"}).as_json(),
)
FOREIGN = {
    "nested": "[" * 20_000 + "]" * 20_000,
    "nested in our keys": '{"schema_version": 2, "main_metric": ' + "[" * 500 + "]" * 500 + "}",
    "our keys with another meaning": json.dumps({"schema_version": "3.1", "main_metric": ["mcc"], "metrics": []}),
    "huge number": json.dumps({**RECORDS[0], "cost": {"seconds": 10**400}}),
    "number of too many digits": "1" * 5000,
    "infinite": json.dumps({**RECORDS[0], "cost": {"seconds": math.inf}}),
    "half a surrogate pair": json.dumps({**RECORDS[0], "task": "\ud800"}),
    "cut": "{",
    "list": "[1, 2]",
    "null": "null",
}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_foreign_json_is_left_out_of_a_report(tmp_path: Path, text: str) -> None:
    alone, mixed = write(tmp_path / "alone", record()), write(tmp_path / "mixed", record())
    (mixed / "tree.json").write_text(text)
    write_report([alone], tmp_path / "a", plots=False)
    write_report([mixed], tmp_path / "b", plots=False)
    assert (tmp_path / "a" / "scores.csv").read_bytes() == (tmp_path / "b" / "scores.csv").read_bytes()
    assert runs_of_key(mixed, "a" * 64) == runs_of_key(alone, "a" * 64) == []


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_a_file_named_as_a_record_is_refused_instead(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gene_finding__onehot__seed0__20260131T120000.json"
    path.write_text(text)
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_could_be_mistaken_is_named_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, record())
    (tmp_path / "tree.json").write_text(FOREIGN["our keys with another meaning"])
    (tmp_path / "config.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        assert len(find_records([tmp_path])) == 1
    (said,) = caplog.messages
    assert "tree.json is left out: it is not a result record (the schema version is '3.1'" in said


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, one in inner for found in _places(one, (*place, key)))]


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.sampled_from([0, 1, 2**63, 0.5, 1e308, math.nan, math.inf])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["../../a", "<b>", "a|b", "\ud800", "\x00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_a_record_with_any_value_anywhere_gives_text_or_a_reason(data: st.DataObject) -> None:
    body = copy.deepcopy(data.draw(st.sampled_from(RECORDS)))
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(_places(body)[1:]))
        inner: Any = body
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = data.draw(ANY_JSON)
    try:
        made = ResultRecord.from_json(body)
    except RecordError:
        return
    boards = leaderboards([made, record("cpg_methylation", "other", 0.7)])
    text = as_markdown(boards) + as_csv(boards)
    try:
        text += model_card([made], [made])
        group_records([made])
        plan_scores([made], "me/model", create_pr=True)
    except BendError:
        pass
    assert text.encode()
    assert all("/" not in board.key and ".." not in board.key for board in boards)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions": {"file": "../other.parquet"}}, "predictions.file is '../other.parquet'; expected the name"),
        ({"predictions": {"file": ""}}, "predictions.file is ''; expected the name of a file"),
        ({"config": {"seed": "1"}}, "config.seed is '1'; expected a whole number"),
        ({"config": {"seed": True}}, "config.seed is True; expected a whole number"),
        (
            {"coverage": {"scored": 4, "items": 3, "item_sha256": "c" * 64}},
            "coverage.scored is 4; expected at most the 3 items",
        ),
    ],
)
def test_a_value_that_would_give_a_wrong_row_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        ResultRecord.from_json({**RECORDS[0], **change})


def test_a_task_with_slashes_stays_in_the_folder(tmp_path: Path) -> None:
    made = ResultRecord.from_json({**RECORDS[0], "task": "../../up"})
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps(made.as_json()))
    written = write_report([folder], tmp_path / "deep" / "er" / "report", plots=False)
    assert all((tmp_path / "deep" / "er" / "report").resolve() in path.resolve().parents for path in written)
    with pytest.raises(RecordError, match="may not be published"):
        plan_results([folder], "me/results")
