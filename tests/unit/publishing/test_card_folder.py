"""The folder of a card: what it holds, what is checked before a push, and the name of its repository."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from hypothesis import given
from hypothesis import strategies as st

from bend_hf.errors import ConfigError, RecordError
from bend_hf.publishing.card_folder import CardRecords, read_card, write_card
from bend_hf.publishing.hub import Upload
from bend_hf.publishing.model_card import model_card
from bend_hf.publishing.uploads import card_repo, plan_card, repo_name
from tests.records import record, several

SCORE_FILE = ".eval_results/bend_gene_finding_cnn.yaml"
REFUSED = ["me/a b", "me/", "/a", "a/b/c", "me/a--b", "me/x.git", "name", f"me/{'y' * 120}", "мы/x"]


def test_records_of_a_card_give_the_card_and_no_paths(tmp_path: Path) -> None:
    made = [one for one in several() if one.model["model"] == "dnabert2"]
    local = [replace(one, config={**one.config, "out": "/home/me/out", "genome": "/home/me/g.fa"}) for one in made]
    write_card(local, tmp_path)
    text = (tmp_path / "bend_records.json").read_text()
    assert "/home/me" not in text
    assert CardRecords.from_text(text, "it").card() == model_card(made) == (tmp_path / "README.md").read_text()


def test_a_new_card_in_the_same_folder_keeps_the_text_of_the_user_and_no_old_score(tmp_path: Path) -> None:
    write_card([record("gene_finding", value=0.61)], tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(readme.read_text() + "\nMy notes.\n")
    write_card([record("cpg_methylation", "other", 0.5)], tmp_path)
    assert readme.read_text().endswith("\nMy notes.\n")
    assert "0.61" not in readme.read_text()
    assert [path.name for path in (tmp_path / ".eval_results").iterdir()] == ["bend_cpg_methylation_cnn.yaml"]
    plan_card(tmp_path, "me/other")


def test_text_of_the_user_between_the_marks_is_not_written_over(tmp_path: Path) -> None:
    write_card([record("gene_finding", value=0.61)], tmp_path)
    readme = tmp_path / "README.md"
    mine = readme.read_text().replace("\n<!-- bend_hf: wrote", "\nMy notes.\n\n<!-- bend_hf: wrote")
    readme.write_text(mine)
    with pytest.raises(RecordError, match=r"README.md was edited between the marks of bend_hf"):
        write_card([record("gene_finding", value=0.62)], tmp_path)
    assert readme.read_text() == mine


def test_a_card_of_the_user_in_the_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# My model\n")
    write_card([record("gene_finding")], tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("---\nlicense: mit\n")
    assert "---\n# My model\n\n<!-- bend_hf: begin" in text


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("README.md", "| 0.6100 |", "| 0.9900 |", "differs from its records between the marks"),
        ("README.md", "value: 0.61", "value: 0.99", "states another mcc, protocol bend-2024, cnn of bend/gene_finding"),
        (
            ".eval_results/bend_gene_finding_cnn.yaml",
            "value: 0.61",
            "value: 0.99",
            "states other scores than the records",
        ),
        ("bend_records.json", '"value": 0.61', '"value": 0.62', "differs from its records"),
        ("bend_records.json", '"records"', '"other"', "does not hold the records of a card"),
    ],
)
def test_an_edited_score_is_not_pushed(tmp_path: Path, name: str, old: str, new: str, said: str) -> None:
    write_card([record("gene_finding", value=0.61)], tmp_path)
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new))
    with pytest.raises(RecordError, match=said):
        plan_card(tmp_path, "me/model")


def test_a_score_file_of_another_card_is_not_pushed(tmp_path: Path) -> None:
    write_card([record("gene_finding")], tmp_path)
    (tmp_path / ".eval_results" / "bend_cpg_methylation_cnn.yaml").write_text("[]")
    with pytest.raises(RecordError, match="holds scores that the card does not"):
        plan_card(tmp_path, "me/model")


def test_a_folder_of_an_earlier_release_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    with pytest.raises(ConfigError, match="write the card again with 'bend-hf card'"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("my*model[v1]", "my-model-v1-bend"),
        ("dnabert2, layer 6", "dnabert2-layer-6-bend"),
        ("InstaDeepAI/nt--v2..x", "InstaDeepAI-nt-v2.x-bend"),
        ("<b>&amp;", "b-amp-bend"),
    ],
)
def test_a_repository_is_named_after_the_model(tmp_path: Path, model: str, name: str) -> None:
    write_card([record("gene_finding", model)], tmp_path)
    assert card_repo(tmp_path) == name


@pytest.mark.parametrize("model", ["модель", "y" * 120, "***", "größe"])
def test_a_name_that_the_hub_refuses_asks_for_another(model: str) -> None:
    with pytest.raises(ConfigError, match="give --repo OWNER/NAME"):
        repo_name(model)


@given(st.text(min_size=1, max_size=110))
def test_every_name_is_one_that_the_hub_takes(model: str) -> None:
    try:
        name = repo_name(model)
    except ConfigError:
        return
    validate_repo_id(f"me/{name}")
    assert json.loads(json.dumps(name)) == name


@pytest.mark.parametrize("repo", REFUSED)
def test_a_repository_that_the_hub_refuses_is_refused_before_anything_is_sent(repo: str) -> None:
    with pytest.raises(ConfigError, match=r"the repository is|the Hub takes no repository name"):
        Upload(repo=repo, repo_type="model", files=(), message="m")
