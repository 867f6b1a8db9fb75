"""The Hub's score files: task ids, the strict check, merging, and the dataset of a score."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries
from hypothesis import given, settings
from hypothesis import strategies as st

from bend_hf.data.sources import DatasetRef
from bend_hf.errors import ConfigError, RecordError
from bend_hf.publishing.eval_results import (
    check_eval_results,
    check_eval_text,
    check_eval_yaml,
    eval_result_files,
    eval_task_ids,
    eval_yaml,
    merged,
    to_yaml,
)
from bend_hf.publishing.publishable import match_dataset, parse_datasets
from bend_hf.publishing.results import group_records
from bend_hf.tasks import TASKS, TaskSpec
from bend_hf.types import PROTOCOLS, Json
from tests.records import COMMIT, record

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def _entry(**changes: Any) -> dict[str, Any]:
    dataset = {"id": "bend/gene_finding", "task_id": "gene_finding_cnn_bend-2024", "revision": COMMIT}
    return {"dataset": dataset, "value": 0.5, "date": "2026-01-31T12:00:00Z", **changes}


def _dataset(**changes: Any) -> dict[str, Any]:
    return _entry(dataset={**_entry()["dataset"], **changes})


def test_every_task_has_a_task_id_for_each_protocol() -> None:
    for task in TASKS:
        boards = eval_task_ids(task.group)
        for protocol in PROTOCOLS:
            assert any(name.startswith(task.key) and name.endswith(protocol) for name in boards)


@pytest.mark.parametrize("group", sorted({task.group for task in TASKS}))
def test_eval_yaml_passes_our_check_and_names_splits_that_are_built(group: str) -> None:
    body = yaml.safe_load(eval_yaml(group))
    check_eval_yaml(body, group)
    assert {task["split"] for task in body["tasks"]} == {"test"}
    configs = {
        "gene_finding": {"default"},
        "variant_effects": {"expression", "disease"},
        "enhancer_annotation": {"fold_1"},
    }
    assert {task["config"] for task in body["tasks"]} == configs.get(group, {"default"})


def test_a_group_that_is_not_of_bend_has_no_eval_yaml() -> None:
    with pytest.raises(RecordError, match="no task of BEND belongs to a dataset 'mine'"):
        eval_yaml("mine")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "expected"),
        ({"name": "a", "description": "b", "evaluation_framework": "c"}, "expected"),
        ({"name": "", "description": "b", "evaluation_framework": "c", "tasks": [{}]}, "name is ''; expected text"),
        (
            {"name": "a", "description": "b", "evaluation_framework": "c", "tasks": []},
            "expected a list of at least one task",
        ),
        (
            {"name": "a", "description": "b", "evaluation_framework": "c", "tasks": [{"id": "x"}]},
            "id, config and split",
        ),
        (
            {
                "name": "a",
                "description": "b",
                "evaluation_framework": "c",
                "tasks": [{"id": "x", "config": "default", "split": "te st"}],
            },
            "expected names of letters",
        ),
        (
            {
                "name": "a",
                "description": "b",
                "evaluation_framework": "c",
                "tasks": [{"id": "x", "config": "default", "split": "test"}] * 2,
            },
            r"\['x'\] are repeated",
        ),
    ],
)
def test_an_invalid_eval_yaml_raises(body: object, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        check_eval_yaml(body, "eval.yaml")


def test_written_entries_are_read_back_by_huggingface_hub() -> None:
    made = record("gene_finding", value=0.61)
    files = eval_result_files(group_records([made]), source_url="https://example.org/x")
    [(name, text)] = files.items()
    assert name == ".eval_results/bend_gene_finding_cnn.yaml"
    [entry] = parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("bend/gene_finding", "gene_finding_cnn_bend-2024", 0.61)
    assert (entry.dataset_revision, entry.date) == (COMMIT, "2026-01-31T12:00:00Z")
    assert entry.source_url == "https://example.org/x"


def test_a_valid_entry_passes() -> None:
    check_eval_results([_entry(), _dataset(task_id="gene_finding_cnn_bend-hf-1")], "x", now=NOW)
    check_eval_results([_entry(date="2026-01-31", source={"url": "https://a.b", "name": "n"})], "x", now=NOW)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "expected a list of at least one entry"),
        ([], "expected a list of at least one entry"),
        (["a"], "entry 1 is 'a'; expected an object"),
        ([{"dataset": {}}], r"lacks \['value'\]"),
        ([_entry(note="x")], r"unknown keys \['note'\]"),
        ([_dataset(split="test")], r"unknown keys \['split'\]"),
        ([_dataset(id="gene_finding")], "expected owner/name"),
        ([_dataset(revision="main")], "expected a commit of 40"),
        ([_dataset(revision=None)], "expected a commit of 40"),
        ([_dataset(task_id="gene_finding")], "is not a task id of BEND"),
        ([_entry(value=float("nan"))], "expected a finite number"),
        ([_entry(value=float("inf"))], "expected a finite number"),
        ([_entry(value=80.0)], "expected a finite number from -1 to 1"),
        ([_entry(value="0.8")], "expected a finite number"),
        ([_entry(value=True)], "expected a finite number"),
        ([_entry(date=None)], "expected ISO 8601"),
        ([_entry(date="31.1.2026")], "expected ISO 8601"),
        ([_entry(date="2026-02-30")], "not a calendar day"),
        ([_entry(date="2027-01-01")], "is in the future"),
        ([_entry(source={"name": "x"})], r"lacks \['url'\]"),
        ([_entry(source={"url": "ftp://x"})], "expected http"),
        ([_entry(), _entry()], "is repeated"),
    ],
)
def test_each_error_of_an_entry_is_named(body: object, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        check_eval_results(body, "file", now=NOW)


def test_text_that_is_not_yaml_raises() -> None:
    with pytest.raises(RecordError, match="is not YAML"):
        check_eval_text("a: [", "file")


def test_merging_keeps_other_task_ids_and_replaces_the_same() -> None:
    old = to_yaml([_entry(), _dataset(task_id="gene_finding_linear_bend-2024")], "f")
    new = to_yaml([_entry(value=0.7), _dataset(task_id="gene_finding_cnn_bend-hf-1")], "f")
    together = yaml.safe_load(merged(old, new, "f"))
    assert {item["dataset"]["task_id"]: item["value"] for item in together} == {
        "gene_finding_cnn_bend-2024": 0.7,
        "gene_finding_cnn_bend-hf-1": 0.5,
        "gene_finding_linear_bend-2024": 0.5,
    }
    assert merged(merged(old, new, "f"), new, "f") == merged(old, new, "f")


OTHER_ENTRIES = (
    "- dataset:\n    id: bend/gene_finding\n    task_id: gene_finding_cnn_bend-hf-1\n  value: 0.4\n",
    "- dataset:\n    id: cais/hle\n    task_id: hle\n    revision: 0123456789abcdef\n  value: 20.9  # percent\n",
    "- dataset: {id: a/b, task_id: c}\n  value: 1e3\n  verifyToken: abc\n  further: [1, 2]\n# a note\n",
    "- value: -3\n  dataset:\n    task_id: 'c'\n    id: \"a/d\"\n  notes: |\n    two\n    lines\n\n",
)


@settings(deadline=None, max_examples=60)
@given(
    chosen=st.lists(st.sampled_from(OTHER_ENTRIES), unique=True),
    ours_at=st.none() | st.integers(0, 4),
    indent=st.sampled_from(["", "  "]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    head=st.sampled_from(["", "# scores of this model\n", "---\n"]),
)
def test_entries_of_others_keep_their_bytes(
    chosen: list[str], ours_at: int | None, indent: str, line_end: str, head: str
) -> None:
    new = to_yaml([_entry(value=0.7)], "f")
    ours = "- dataset:\n    id: bend/gene_finding\n    task_id: gene_finding_cnn_bend-2024\n  value: 0.1\n"
    entries = [*chosen] if ours_at is None else [*chosen[:ours_at], ours, *chosen[ours_at:]]
    written = ["".join(f"{indent}{line}" for line in entry.splitlines(keepends=True)) for entry in entries]
    old = (head + "".join(written)).replace("\n", line_end)
    text = merged(old, new, "f")
    for entry, indented in zip(entries, written, strict=True):
        assert (indented.replace("\n", line_end) in text) == (entry is not ours)
    expected = [entry for one in chosen for entry in yaml.safe_load(one)] + yaml.safe_load(new)
    assert sorted(yaml.safe_load(text), key=repr) == sorted(expected, key=repr)
    assert merged(text, new, "f") == text


@pytest.mark.parametrize(
    "old",
    ['[{"dataset": {"id": "a/b", "task_id": "c"}, "value": 3}]', "- &x {dataset: {id: a/b, task_id: c}, value: 3}"],
)
def test_entries_in_another_style_keep_their_values(old: str) -> None:
    together = yaml.safe_load(merged(old, to_yaml([_entry()], "f"), "f"))
    assert {item["dataset"]["task_id"]: item["value"] for item in together} == {
        "c": 3,
        "gene_finding_cnn_bend-2024": 0.5,
    }


@pytest.mark.parametrize(
    "old", ["score: 3", "- 3", "- dataset: x\n  value: 1", "- dataset: {id: a/b}\n  value: 1", "- [", "{" * 5000]
)
def test_merging_into_a_file_of_another_form_raises(old: str) -> None:
    with pytest.raises(RecordError, match="is not a list of evaluation results"):
        merged(old, to_yaml([_entry()], "f"), "f")


def test_two_results_of_one_task_id_raise() -> None:
    first = record("gene_finding")
    other = record("gene_finding", config={**first.config, "epochs": 3})
    with pytest.raises(RecordError, match="is repeated"):
        eval_result_files(group_records([first, other]))


# The dataset of a record.


def _facts(made: dict[str, Json]) -> Any:
    return lambda dataset, task: made


def test_a_folder_score_matches_the_dataset_with_the_same_files() -> None:
    made = record("gene_finding", origin="folder")
    named = {"gene_finding": DatasetRef(repo="me/gene_finding", revision=COMMIT)}
    [said] = match_dataset([made], named, _facts(dict(made.data)))
    assert (said.data["origin"], said.data["repo"], said.data["revision"]) == ("hub", "me/gene_finding", COMMIT)


def test_a_dataset_of_other_files_raises() -> None:
    made = record("gene_finding", origin="folder")
    other = {**made.data, "files": {"bed": {"sha256": "f" * 64}}}
    named = {"gene_finding": DatasetRef(repo="me/gene_finding", revision=COMMIT)}
    with pytest.raises(RecordError, match="was not scored on me/gene_finding at 0123456789ab: files differ"):
        match_dataset([made], named, _facts(other))


@pytest.mark.parametrize("origin", ["sample", "files"])
def test_a_score_on_the_sample_or_user_files_is_not_matched(origin: str) -> None:
    made = record("gene_finding", origin=origin)
    named = {"gene_finding": DatasetRef(repo="me/gene_finding", revision=COMMIT)}
    assert match_dataset([made], named, _facts(dict(made.data))) == [made]


def test_a_missing_dataset_raises_and_names_the_flag() -> None:
    with pytest.raises(RecordError, match=r"Give --dataset gene_finding=OWNER/NAME@COMMIT"):
        eval_result_files(group_records([record("gene_finding", origin="folder")]))


@pytest.mark.parametrize("text", ["gene_finding", "gene_finding=me/x", "nothing=me/x@" + COMMIT, "=me/x@" + COMMIT])
def test_a_malformed_dataset_flag_raises(text: str) -> None:
    with pytest.raises(ConfigError, match="expected GROUP=OWNER/NAME@COMMIT"):
        parse_datasets([text])


def test_facts_are_read_for_the_given_groups_only() -> None:
    def never(dataset: DatasetRef, task: TaskSpec) -> dict[str, Json]:
        raise AssertionError(dataset.repo)

    made = record("gene_finding", origin="folder")
    assert match_dataset([made], {"variant_effects": DatasetRef(repo="me/v", revision=COMMIT)}, never) == [made]
