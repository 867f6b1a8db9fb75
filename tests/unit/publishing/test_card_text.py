"""Merging cards: nothing that others wrote is lost, and a score of ours is there once, with its newest value."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from bend_hf.errors import RecordError
from bend_hf.publishing.card_text import BEGIN, END, marked, merge_card, split_card
from bend_hf.publishing.yaml_text import with_keys
from bend_hf.types import Json

NAMES = st.sampled_from(["license", "library_name", "tags", "datasets", "thumbnail", "language", "widget"])
VALUES = st.sampled_from(["mit", "a: b # c", 3, True, None, ["dna"], ["dna", "BEND"], [], {"inner": [1, {"x": "y"}]}])
METADATA: st.SearchStrategy[dict[str, Any]] = st.dictionaries(NAMES, VALUES, max_size=5)
TEXTS = ["", "# Mine\n\nText.\n", "---\nA rule.\n\n| a | b |\n|---|---|\n", "Zeile\r\nnoch eine\r\n", "{{ x }} é"]
OWN_TEXT = st.sampled_from(TEXTS)
SCORES = st.dictionaries(st.sampled_from(["gene_finding", "cpg", "other"]), st.floats(0, 1).map(lambda x: round(x, 3)))


def _index(owner: str, scores: dict[str, float], name: str = "m") -> list[Json]:
    results: list[Json] = [
        {
            "task": {"type": "other"},
            "dataset": {"name": key, "type": f"{owner}/{key}"},
            "metrics": [{"type": "mcc", "value": value, "name": "mcc, protocol bend-2024, cnn"}],
        }
        for key, value in scores.items()
    ]
    return [{"name": name, "results": results}] if results else []


def _card(metadata: dict[str, Json], body: str) -> str:
    head = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True) if metadata else ""
    return f"---\n{head}---\n{body}" if head else body


def _ours(scores: dict[str, float]) -> str:
    index = {"model-index": _index("bend", scores, "m on BEND")} if scores else {}
    metadata = {"license": "apache-2.0", "library_name": "bend_hf", "tags": ["biology", "BEND"], **index}
    return _card(metadata, "\n" + marked(f"# m on BEND\n\n{scores}"))


def _found(card: str) -> dict[str, float]:
    metadata = yaml.safe_load(split_card(card, "it").metadata)
    listed = [
        (result["dataset"]["type"], metric["value"])
        for model in metadata.get("model-index") or []
        for result in model["results"]
        for metric in result["metrics"]
    ]
    assert len(listed) == len(dict(listed))
    return dict(listed)


@settings(deadline=None, max_examples=25)
@given(metadata=METADATA, own=OWN_TEXT, theirs=SCORES, first=SCORES, second=SCORES)
def test_nothing_of_others_is_lost_and_our_newest_scores_are_there(
    metadata: dict[str, Any], own: str, theirs: dict[str, float], first: dict[str, float], second: dict[str, float]
) -> None:
    index = {"model-index": _index("them", theirs)} if theirs else {}
    there = _card({**metadata, **index}, own)
    once = merge_card(_ours(first), there, None, "it")
    twice = merge_card(_ours(second), once, _ours(first), "it")
    for card, scores in ((once, first), (twice, second)):
        assert _found(card) == {
            **{f"them/{key}": value for key, value in theirs.items()},
            **{f"bend/{key}": value for key, value in scores.items()},
        }
        parts = split_card(card, "it")
        assert parts.own_text == split_card(there, "it").own_text
        assert parts.section == marked(f"# m on BEND\n\n{scores}").rstrip()
        assert not parts.was_edited
        kept = yaml.safe_load(parts.metadata)
        for key, value in metadata.items():
            if isinstance(value, list) and key == "tags":
                assert set(map(str, value)) <= set(map(str, kept[key]))
            elif value is not None and key != "tags":
                assert kept[key] == value
        ModelCard(card)
    assert merge_card(_ours(second), twice, _ours(second), "it") == twice


def test_metadata_that_we_wrote_follow_and_those_that_were_changed_there_stay() -> None:
    first, second = (_card({"license": a, "tags": b}, "\n" + marked("x")) for a, b in (("mit", ["a"]), ("bsd", ["b"])))
    assert yaml.safe_load(split_card(merge_card(second, first, first, "it"), "it").metadata) == {
        "license": "bsd",
        "tags": ["b"],
    }
    edited = first.replace("license: mit", "license: gpl  # mine").replace("- a", "- a\n- mine")
    merged = merge_card(second, edited, first, "it")
    assert "license: gpl  # mine\n" in merged
    assert yaml.safe_load(split_card(merged, "it").metadata)["tags"] == ["mine", "b"]


def test_a_result_with_metrics_of_others_keeps_them() -> None:
    index: list[Any] = _index("bend", {"gene_finding": 0.1})
    index[0]["results"][0]["metrics"].append({"type": "f1", "value": 0.5, "name": "by hand"})
    merged = merge_card(_ours({"gene_finding": 0.7}), _card({"model-index": index}, ""), None, "it")
    (model,) = yaml.safe_load(split_card(merged, "it").metadata)["model-index"]
    metrics = [metric for result in model["results"] for metric in result["metrics"]]
    assert sorted((one["type"], one["value"]) for one in metrics) == [("f1", 0.5), ("mcc", 0.7)]


@pytest.mark.parametrize("mark", [BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"])
def test_damaged_marks_are_refused(mark: str) -> None:
    with pytest.raises(RecordError, match="expected one pair"):
        merge_card(_ours({}), f"text\n{mark}\n", None, "it")


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("- a", "the metadata of it hold list; expected names with values"),
        ("a: [", "the metadata of it are not YAML"),
        ("model-index: 3", "model-index of it is not a list of models"),
        ("model-index: [{name: x}]", "model-index of it is not a list of models"),
        ("model-index: [{name: x, results: [3]}]", "model-index of it is not a list of models"),
    ],
)
def test_metadata_of_another_form_are_refused(metadata: str, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        merge_card(_ours({"cpg": 0.5}), f"---\n{metadata}\n---\nx", None, "it")


def test_text_that_was_written_between_the_marks_is_not_lost() -> None:
    there = _ours({"cpg": 0.1})
    for edited in (there.replace("# m on BEND\n", "# m on BEND\n\nMine.\n"), there.replace("{'cpg': 0.1}", "0.2")):
        assert edited != there
        with pytest.raises(
            RecordError, match="it was edited between the marks of bend_hf, and that text would be lost"
        ):
            merge_card(_ours({"cpg": 0.3}), edited, there, "it")
    for same in (there, there.replace("\n", "\r\n"), re.sub(r"<!-- bend_hf: wrote .*\n", "", there)):
        assert _found(merge_card(_ours({"cpg": 0.3}), same, there, "it")) == {"bend/cpg": 0.3}
    body = split_card(there, "it").section
    assert body is not None
    emptied = there.replace(body, f"{BEGIN}\n{END}") + "\nMine.\n"
    assert merge_card(_ours({"cpg": 0.3}), emptied, there, "it").endswith("\nMine.\n")


def test_the_repository_in_an_example_is_no_edit() -> None:
    text = marked('load_head("OWNER/NAME/heads/a")')
    assert not split_card(text.replace("OWNER/NAME", "me/model"), "it").was_edited
    assert split_card(text.replace("load_head", "load_it"), "it").was_edited
    assert not split_card(text.replace(" -->", " -->  "), "it").was_edited


def test_two_texts_of_the_user_are_not_mixed() -> None:
    there, new = (_card({}, text + marked("x")) for text in ("Mine.\n\n", "Mine, later.\n\n"))
    with pytest.raises(RecordError, match="different text outside the marks"):
        merge_card(new, there, None, "it")
    assert "Mine.\n" in merge_card(there, there, None, "it")


EARLIER = "---\nlibrary_name: bend_hf\n{index}---\n\n# m on BEND\n\nold numbers\n"


def test_a_card_of_an_earlier_release_is_replaced_if_no_score_is_lost() -> None:
    index = yaml.safe_dump({"model-index": _index("bend", {"cpg": 0.1})})
    merged = merge_card(_ours({"cpg": 0.2}), EARLIER.format(index=index), None, "it")
    assert "old numbers" not in merged
    assert _found(merged) == {"bend/cpg": 0.2}
    with pytest.raises(RecordError, match="holds scores that the new card lacks, such as mcc, protocol bend"):
        merge_card(_ours({"other": 0.2}), EARLIER.format(index=index), None, "it")


@settings(deadline=None)
@given(before=METADATA, wanted=METADATA, comment=st.booleans())
def test_entries_of_yaml_are_set_and_the_others_keep_their_bytes(
    before: dict[str, Any], wanted: dict[str, Any], comment: bool
) -> None:
    lines = [yaml.safe_dump({key: value}, allow_unicode=True) for key, value in before.items()]
    text = "".join(f"# about {index}\n{line}" if comment else line for index, line in enumerate(lines))
    made = with_keys(text, wanted, "it")
    assert (yaml.safe_load(made) or {}) == wanted
    for (key, value), line in zip(before.items(), lines, strict=True):
        if key in wanted and wanted[key] == value and type(wanted[key]) is type(value):
            assert line in made
