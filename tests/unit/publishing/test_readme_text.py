"""Merging READMEs: what others wrote is kept byte by byte, and what bend_hf wrote follows its files."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bend_hf.errors import RecordError
from bend_hf.publishing.card_text import BEGIN, END, split_card
from bend_hf.publishing.readme_text import marked_readme, merge_readme

VALUES: st.SearchStrategy[Any] = st.sampled_from(["mit", 3, True, ["dna"], ["dna", "BEND"], {"inner": [1]}])
METADATA = st.dictionaries(st.sampled_from(["license", "tags", "title", "language"]), VALUES, max_size=4)
CONFIGS = st.dictionaries(st.sampled_from(["default", "fold_1", "own"]), st.integers(0, 2), max_size=3)
OWN = st.sampled_from(["", "Note.\r\n", "## Mine\n\n| a |\n|---|\n", "é {{ x }}\n"])


def readme(metadata: dict[str, Any], configs: dict[str, int], text: str = "# Data") -> str:
    """A README as bend_hf writes it."""
    content = json.loads(json.dumps(metadata))  # no object twice, which YAML would name
    for key in ("configs", "dataset_info") if configs else ():
        content[key] = [{"config_name": name, "n": n} for name, n in configs.items()]
    return marked_readme((f"---\n{yaml.safe_dump(content)}---\n" if content else "") + text + "\n")


def metadata_of(text: str) -> dict[str, Any]:
    """What the metadata say."""
    return yaml.safe_load(split_card(text, "it").metadata) or {}


@settings(deadline=None, max_examples=40)
@given(METADATA, METADATA, CONFIGS, CONFIGS, OWN, OWN)
def test_ours_follow_and_those_of_others_stay(
    first: dict[str, Any], second: dict[str, Any], before: dict[str, int], now: dict[str, int], head: str, tail: str
) -> None:
    one, two = readme(first, before), readme(second, now, "# Data, new")
    assert merge_readme(one, one, "it") == one
    assert marked_readme(one) == one
    plain = merge_readme(two, one, "it")
    assert metadata_of(plain) == metadata_of(two)  # nobody else wrote anything
    parts = split_card(one, "it")
    theirs = f"---\nwidget: [1]  # mine\n{parts.metadata}---\n{head}{parts.section}\n{tail}"
    merged = merge_readme(two, theirs, "it")
    found = split_card(merged, "it")
    assert found.own_text == split_card(theirs, "it").own_text
    assert found.section == split_card(two, "it").section
    assert "widget: [1]  # mine\n" in merged
    assert metadata_of(merged) == {"widget": [1], **metadata_of(two)}
    assert merge_readme(two, merged, "it") == merged


def test_a_configuration_of_others_is_kept_and_ours_replaced_by_name() -> None:
    there = readme({}, {"default": 1, "old": 1})
    first = "- config_name: default\n  n: 1"
    there = there.replace(first, f"- config_name: theirs\n  n: 9\n{first}\n  note: x", 1)
    configs = metadata_of(merge_readme(readme({}, {"default": 2}), there, "it"))["configs"]
    assert configs == [{"config_name": "theirs", "n": 9}, {"config_name": "default", "n": 2, "note": "x"}]


def test_metadata_that_others_changed_stay_changed() -> None:
    there = readme({"license": "mit", "title": "A"}, {}).replace("license: mit", "license: gpl")
    assert metadata_of(merge_readme(readme({"license": "bsd", "title": "B"}, {}), there, "it")) == {
        "license": "gpl",
        "title": "B",
    }


def test_a_readme_of_an_earlier_release_is_replaced_only_if_it_says_the_same() -> None:
    earlier = "---\ntags: [a]\n---\n\n# BEND results\n\nText.\n"
    ours = marked_readme(earlier)
    assert split_card(merge_readme(ours, earlier, "it"), "it").section == split_card(ours, "it").section
    with pytest.raises(RecordError, match="written by an earlier release, which set no marks"):
        merge_readme(ours, earlier + "Mine.\n", "it")


@pytest.mark.parametrize("edit", [f"{BEGIN}\n\nMine.", f"Mine.\n\n{END}"])
def test_text_that_others_wrote_between_the_marks_is_not_lost(edit: str) -> None:
    ours = readme({}, {})
    edited = ours.replace(BEGIN if edit.startswith(BEGIN) else END, edit)
    with pytest.raises(RecordError, match="was edited between the marks of bend_hf, and that text would be lost"):
        merge_readme(ours, edited, "it")
