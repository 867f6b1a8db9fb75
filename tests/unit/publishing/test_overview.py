"""The table and the picture of models and controls: digits, marks, intervals, chance, and the sentences below."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bend_hf.evaluation.predictions import Predictions
from bend_hf.publishing.overview import LEGEND, MIN_ITEMS, Overview, TaskScore
from tests.records import record

N = 400
TARGET = np.arange(N, dtype=np.int16) % 2
NOISE = np.random.default_rng(0).normal(size=(2, N)).astype(np.float32)
GOOD, GUESS = TARGET + 0.3 * NOISE[0], NOISE[1]


def predictions(score: np.ndarray) -> Predictions:
    return Predictions(
        item=np.arange(N),
        windows=np.arange(N + 1),
        target=TARGET,
        score=score.astype(np.float32),
        predicted=None,
        label_names=("no", "yes"),
    )


def overview(scores: dict[str, dict[str, tuple[float, np.ndarray]]], items: int = N) -> Overview:
    """An overview from value and scores by task and model; ``control: X`` is a control X."""
    results, found = [], {}
    for task, models in scores.items():
        for name, (value, score) in models.items():
            short = name.removeprefix("control: ")
            results.append((record(task=task, value=value, items=items), short, name != short))
            found[task, short] = predictions(score)
    return Overview.of(results, found)


BOTH = {
    "variant_effects_disease": {"control: twin": (0.51, GUESS), "mine": (0.99, GOOD)},
    "variant_effects_expression": {"control: twin": (0.5, GUESS), "mine": (0.5, GUESS)},
}


def lines(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


def test_models_come_before_controls_and_chance_before_both() -> None:
    header, _, *rows = lines(overview(BOTH).text())
    assert header == ["task", "metric", "chance", "mine", "control: twin"]
    assert rows[0][:3] == ["variant_effects_disease", "AUROC", "0.500"]


def test_score_and_bounds_have_the_same_digits() -> None:
    text = overview(BOTH).text().split("Each cell")[0]
    numbers = re.findall(r"\d\.\d+", text)
    assert len(numbers) == 2 + 4 * 3, "two chances, and four scores with two bounds each"
    assert {len(number) for number in numbers} == {5}


def test_a_negative_zero_is_a_zero() -> None:
    one = TaskScore(task="a", metric="mcc", model="m", value=-0.0001, low=-0.0002, high=0.0001)
    assert one.cell == "0.000 [0.000, 0.000]"


def test_the_best_is_marked_and_what_a_paired_test_cannot_tell_from_it() -> None:
    marks = {(one.task[16:], one.model): one.mark for one in overview(BOTH).scores}
    assert marks["disease", "mine"] == "best"
    assert marks["disease", "twin"] == ""
    assert {marks["expression", "mine"], marks["expression", "twin"]} == {"best", "tied"}


def test_a_task_on_which_the_model_does_not_beat_a_control_is_named() -> None:
    assert overview(BOTH).sentences == ("mine beats twin in 1 of 2 tasks, not in variant_effects_expression.",)
    alone = {name: BOTH[name] for name in ("variant_effects_disease",)}
    assert overview(alone).sentences == ("mine beats twin in variant_effects_disease.",)


@pytest.mark.parametrize(("items", "has_interval"), [(MIN_ITEMS - 1, False), (MIN_ITEMS, True)])
def test_no_interval_is_shown_of_few_items(items: int, has_interval: bool) -> None:
    table = overview(BOTH, items=items).text().split("Each cell")[0]
    assert ("[" in table) == has_interval


def test_the_legend_is_one_line_and_says_what_is_what() -> None:
    found = overview(BOTH).text().splitlines()
    (legend,) = [line for line in found if line.startswith("Each cell")]
    assert legend == LEGEND.format(best="*")
    for word in ("95 % interval", "chance", "controls", "best"):
        assert word in legend


def test_markdown_shows_the_same_cells_with_the_best_in_bold() -> None:
    shown = overview(BOTH)
    text = shown.markdown()
    for one in shown.scores:
        cell = one.cell.removesuffix("*").strip()
        assert f"| **{cell}** |" in text if one.mark == "best" else f"| {cell} |" in text
    assert "bold is the best score" in text
    assert max(map(len, text.split("\n\n")[1].splitlines())) <= 120


def test_json_keeps_everything() -> None:
    shown = overview(BOTH)
    assert Overview.from_json(shown.json()) == shown


def test_the_picture_says_what_the_table_says() -> None:
    pytest.importorskip("matplotlib")
    shown = overview(BOTH)
    (axes,) = shown.figure("title").axes
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["mine", "control: twin", "chance"]
    marks = [text.get_text() for text in axes.texts if text.get_text()]
    assert sorted(marks) == sorted({"best": "*", "tied": "="}[one.mark] for one in shown.scores if one.mark)
    points = [line for line in axes.get_lines() if line.get_label() in ("mine", "control: twin")]
    drawn = {(line.get_label(), round(float(x), 3)) for line in points for x in line.get_xdata()}
    assert drawn == {("mine", 0.99), ("mine", 0.5), ("control: twin", 0.51), ("control: twin", 0.5)}
    assert shown.plot_files("a", "title") == shown.plot_files("a", "title"), "the same numbers give the same bytes"
