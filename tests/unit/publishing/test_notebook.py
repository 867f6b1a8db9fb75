"""One call evaluates a model of any kind, and its results show, compare and name themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import bend_hf
from bend_hf.config import RunConfig
from bend_hf.embedders import load_embedder
from bend_hf.errors import BendError, ConfigError, RecordError
from bend_hf.publishing.notebook import Results, as_embedder, evaluate
from bend_hf.publishing.publishable import reasons_not_to_publish
from tests.tiny import write_data

TASK = "cpg_methylation"


class Purines:
    """A model in memory."""

    def embed(self, sequences: Sequence[str]) -> list[np.ndarray]:
        return [np.array([[letter in "AG", letter in "GC"] for letter in text], float) for text in sequences]


def pyrimidines(sequences: Sequence[str]) -> list[np.ndarray]:
    return [np.array([[letter in "CT"] for letter in text], float) for text in sequences]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), (TASK, "enhancer_annotation"), n=24)


def call(model: object, data: Path, out: Path, **settings: object) -> Results:
    return evaluate(
        model,  # type: ignore[arg-type]  # any kind of model
        TASK,
        **{"data": str(data), "epochs": 1, "batch_size": 8, "out": out, **settings},  # type: ignore[arg-type]  # mixed
    )


def test_models_of_every_kind_are_evaluated(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "my_model.py"
    file.write_text(
        "def embed(sequences):\n    return [[[x in 'AG', x in 'GC'] for x in text] for text in sequences]\n"
    )
    models = {
        "onehot": "onehot",
        "my_model": file,
        "Purines": Purines(),
        "pyrimidines": pyrimidines,
        "onehot ": load_embedder("onehot"),
    }
    found = {name: call(model, data, tmp_path / name.strip()) for name, model in models.items()}
    assert [results.records[0].model["model"] for results in found.values()] == [name.strip() for name in models]
    assert found["onehot"].scores == found["onehot "].scores
    assert found["my_model"].scores == found["Purines"].scores  # the same embeddings


@pytest.mark.parametrize(
    ("model", "message"), [(Purines, r"give an object of it: Purines\(\)"), (5, "a int is not a model")]
)
def test_what_is_no_model_is_refused(model: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        as_embedder(model)  # type: ignore[arg-type]  # what is tested


def test_a_finished_run_is_not_repeated_unless_forced(data: Path, tmp_path: Path) -> None:
    first, second = call("onehot", data, tmp_path), call("onehot", data, tmp_path)
    assert second.outcomes[0].path == first.outcomes[0].path
    forced = call("onehot", data, tmp_path, force=True)
    assert forced.outcomes[0].path != first.outcomes[0].path
    assert forced.scores == first.scores


def test_a_limit_is_recorded_and_never_published(data: Path, tmp_path: Path) -> None:
    results = call("onehot", data, tmp_path, limit=3)
    (record,) = results.records
    assert record.coverage["items"] == 3
    assert record.data["items"] == {"train": 3, "validation": 3, "test": 3}
    assert "partial coverage: at most 3 items of each split were used" in reasons_not_to_publish(record)
    assert call("onehot", data, tmp_path).records[0].coverage["items"] > 3  # another run, not the limited one


def test_seeds_and_controls_are_rows_of_the_table(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    results = call(Purines(), data, tmp_path, seeds=(0, 1), controls=True)
    table = results.to_dataframe()
    models = table[~table["control"]]
    assert models["seed"].tolist() == [0, 1]
    assert results.scores == {TASK: pytest.approx(models["value"].mean())}
    controls = table[table["control"]]["model"].tolist()
    assert {"CpG content", "k-mers", "Prevalence"} <= set(controls)
    assert "Random weights" not in controls  # an object cannot be made anew with random weights
    assert controls.count("CpG content") == 1
    assert "cpg_methylation, Purines: auroc" in repr(results)
    assert results._repr_html_().count("<tr>") == 1 + len(table)


def test_the_html_table_is_escaped(data: Path, tmp_path: Path) -> None:
    model = Purines()
    model.__name__ = "<b>"  # type: ignore[attr-defined]  # a name that would change the page
    html = call(model, data, tmp_path)._repr_html_()
    assert "<td>&lt;b&gt;</td>" in html
    assert "<b>" not in html


@pytest.mark.slow
def test_results_are_compared_task_by_task(data: Path, tmp_path: Path) -> None:
    ours, theirs = call(Purines(), data, tmp_path), call("onehot", data, tmp_path)
    (found,) = ours.compare(theirs)
    assert {found.first, found.second} == {"Purines", "onehot"}
    assert found.value_first >= found.value_second
    other = evaluate("onehot", "enhancer_annotation", data=str(data), epochs=1, fold=1, out=tmp_path)
    with pytest.raises(ConfigError, match="no task in common: cpg_methylation, and enhancer_annotation"):
        ours.compare(other)


def test_all_trainings_of_both_models_are_compared(data: Path, tmp_path: Path) -> None:
    ours, theirs = call(Purines(), data, tmp_path, seeds=(0, 1)), call("onehot", data, tmp_path)
    (found,) = ours.compare(theirs)
    values = {found.first: found.value_first, found.second: found.value_second}
    assert dict(zip((found.first, found.second), found.n_trainings, strict=True)) == {"Purines": 2, "onehot": 1}
    assert values == {"Purines": pytest.approx(ours.scores[TASK]), "onehot": pytest.approx(theirs.scores[TASK])}


def test_predictions_are_those_of_a_task_and_a_seed(data: Path, tmp_path: Path) -> None:
    results = call("onehot", data, tmp_path, seeds=[0, 3])
    assert len(results.predictions()) == results.records[0].coverage["items"]
    assert not np.array_equal(results.predictions(seed=0).values, results.predictions(TASK, seed=3).values)
    with pytest.raises(ConfigError, match="no run of task 'gene_finding'"):
        results.predictions("gene_finding")


def test_results_are_drawn(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = call("onehot", data, tmp_path, controls=True).plot(title="a title")
    assert figure.axes[0].get_title() == "a title"
    assert "onehot" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_results_that_must_not_be_published_are_not_sent(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="1 of 1 records may not be published"):
        call("onehot", data, tmp_path).push_to_hub("me")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 1}, "evaluate has no setting 'epoch'; did you mean 'epochs'"),
        ({"seeds": ()}, "seeds is empty"),
        ({"limit": 0}, "--limit is 0; it must be above 0"),
        ({"device": "cuda:99"}, "--device cuda:99 does not exist here; expected one of cpu"),
    ],
)
def test_a_bad_setting_is_refused(settings: dict[str, object], message: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(BendError, match=message):
        call("dnabert6", data, tmp_path, **settings)


def test_single_values_and_texts_are_taken_where_tuples_and_paths_are_meant() -> None:
    config = bend_hf.RunConfig(task=TASK, out="results", fold=[1, 2], tracker="wandb", bed=None)  # type: ignore[arg-type]  # what is tested
    assert config == RunConfig(task=(TASK,), out=Path("results"), fold=(1, 2), tracker=("wandb",))
