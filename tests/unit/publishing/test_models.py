"""Records of one model are one row wherever its files lay, and two models never share a row or a name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bend_hf.errors import RecordError
from bend_hf.evaluation.record import ResultRecord
from bend_hf.publishing.card_folder import CardRecords
from bend_hf.publishing.leaderboard import leaderboards
from bend_hf.publishing.model_card import model_card
from bend_hf.publishing.models import model_id, models_of, records_of_model
from bend_hf.publishing.results import group_records
from tests.records import record


def of(path: str, weights: str, *, seed: int = 0, by_key: bool = True, **model: object) -> ResultRecord:
    """A record of a checkpoint in a folder, opened by the key of its family or by its path."""
    made = record(seed=seed)
    facts = {
        **made.model,
        "checkpoint": path,
        "revision": None,
        "model": "dnabert2" if by_key else path,
        "weights_sha256": weights * 64,
        "configuration_sha256": "0" * 64,
        "code_sha256": None,
        **model,
    }
    return replace(made, model=facts, config={**made.config, "checkpoint": path if by_key else None, "model": path})


@pytest.mark.parametrize("by_key", [True, False])
def test_seeds_of_one_checkpoint_under_several_paths_are_one_row(by_key: bool) -> None:
    made = [of(f"{folder}/tuned", "a", seed=seed, by_key=by_key) for seed, folder in enumerate(["/data/x", ".", "y"])]
    made.append(of("/copies/renamed", "a", seed=3, by_key=by_key))
    [group] = group_records(made)
    assert group.seeds == (0, 1, 2, 3)
    assert group.model == ("dnabert2, own weights tuned" if by_key else "./tuned")  # the shortest of its names
    assert records_of_model(made, group.model) == made


def test_a_checkpoint_that_was_replaced_under_its_path_is_another_row_with_another_name() -> None:
    made = [of("runs/best", "a"), of("runs/best", "b", seed=1)]
    [board] = leaderboards(made)
    assert [row.name for row in board.rows] == [
        "dnabert2, own weights best, weights aaaaaaa",
        "dnabert2, own weights best, weights bbbbbbb",
    ]
    assert records_of_model(made, "dnabert2, own weights best, weights bbbbbbb") == made[1:]
    with pytest.raises(RecordError, match="the records are of 2 models"):
        model_card(made)


@pytest.mark.parametrize("name", ["configuration_sha256", "code_sha256"])
def test_another_configuration_or_code_under_one_path_is_another_row(name: str) -> None:
    made = [of("best", "a"), of("best", "a", seed=1, **{name: "e" * 64})]
    word, first = name.partition("_")[0], "0000000" if name.startswith("configuration") else "not recorded"
    names = [group.model for group in group_records(made)]
    assert set(names) == {f"dnabert2, own weights best, {word} {end}" for end in (first, "eeeeeee")}


def test_a_public_copy_in_a_folder_is_the_model_itself() -> None:
    facts = {"weights_sha256": "a" * 64, "configuration_sha256": "0" * 64, "code_sha256": None}
    from_hub = replace(record(), model={**record().model, **facts})
    [group] = group_records([from_hub, of("/mirror/DNABERT-2-117M", "a", seed=1)])
    assert (group.model, group.seeds) == ("dnabert2", (0, 1))


def test_what_the_registry_says_of_a_model_and_later_settings_separate_nothing() -> None:
    later = of("best", "a", seed=1, license="MIT", paper="https://example.org")
    later = replace(later, config={**later.config, "overlap_tokens": 0, "patience": None})
    assert len(group_records([of("best", "a"), later])) == 1
    other = replace(later, config={**later.config, "overlap_tokens": 8})
    assert len(group_records([of("best", "a"), other])) == 2


def test_a_record_without_hashes_joins_the_model_of_its_commit_and_no_folder() -> None:
    facts = {"weights_sha256": "a" * 64, "configuration_sha256": "0" * 64, "code_sha256": None}
    known = replace(record(seed=1), model={**record().model, **facts})
    assert [group.seeds for group in group_records([record(), known])] == [(0, 1)]
    branch = replace(record(), model={**record().model, "revision": "main"})
    moved = replace(known, model={**known.model, "revision": "main"})
    assert len(group_records([branch, moved])) == 2
    bare = of("best", "a")
    bare = replace(bare, model={name: value for name, value in bare.model.items() if not name.endswith("sha256")})
    assert [group.model for group in group_records([bare, of("best", "a", seed=1)])] == [
        "dnabert2, own weights best, weights aaaaaaa",
        "dnabert2, own weights best, weights not recorded",
    ]


def test_a_card_takes_no_scores_of_another_checkpoint_with_the_same_name() -> None:
    earlier, now = (CardRecords(records=(of("/x/best", sign),)) for sign in "ab")
    moved = CardRecords(records=(of("/y/best", "a"),))
    assert moved.with_earlier(earlier, "me/repo").records == moved.records
    with pytest.raises(RecordError, match=r"the card of '.*best, weights aaaaaaa', and this one is of '.*bbbbbbb'"):
        now.with_earlier(earlier, "me/repo")


_RECORDS = st.lists(
    st.builds(
        of,
        st.sampled_from(["a/best", "b/best", "b/last"]),
        st.sampled_from("ab"),
        seed=st.integers(0, 2),
        by_key=st.booleans(),
        layer=st.sampled_from([-1, 3]),
        revision=st.sampled_from([None, "f" * 40]),
    ),
    max_size=8,
)


@given(_RECORDS)
def test_models_have_names_of_their_own_whatever_else_is_listed(made: list[ResultRecord]) -> None:
    models = models_of(made)
    assert len({one.label for one in models.values()}) == len({one.key for one in models.values()})
    content = {
        model_id(one): (one.model["weights_sha256"], one.model["layer"], one.model["model"] == "dnabert2")
        for one in made
    }
    assert len(set(content.values())) == len({one.key for one in models.values()})
