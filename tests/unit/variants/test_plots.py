"""The figure of a score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from bend_hf.errors import BendError, ConfigError
from bend_hf.variants import draw_score
from bend_hf.variants.plots import roc_points
from tests.unit.variants.test_summary import N, predictions


def test_roc_curve_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    values, target = rng.integers(0, 9, 200).astype(np.float32), rng.integers(0, 2, 200).astype(np.int16)
    false, true = roc_points(values, target)
    expected = roc_curve(target, values, drop_intermediate=False)
    np.testing.assert_allclose(false, expected[0])
    np.testing.assert_allclose(true, expected[1])


def test_figure_is_png_and_svg_and_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    first = draw_score(predictions(), tmp_path / "a", title="title")
    second = draw_score(predictions(), tmp_path / "b", title="title")
    assert [path.name for path in first] == ["a.png", "a.svg"]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    text = first[1].read_text()
    for words in ("no (n = 24)", "yes (n = 30)", "no label (n = 6)", "AUROC", "false positive rate", "title"):
        assert words in text
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_figure_without_labels_has_one_distribution_and_no_curve(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    text = draw_score(predictions(labels=False), tmp_path / "a")[1].read_text()
    assert "no label (n = 60)" in text
    assert "AUROC" not in text


def test_figure_of_equal_scores_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    same = replace(predictions(), score=np.ones(N, np.float32))
    assert "AUROC 0.500" in draw_score(same, tmp_path / "a")[1].read_text()


def test_figure_of_a_missing_score_raises(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    with pytest.raises(BendError, match="no variant has the score 'entropy'"):
        draw_score(predictions(), tmp_path / "a", key="entropy")
    with pytest.raises(ConfigError, match=r"no score 'entrpy'; did you mean 'entropy'"):
        draw_score(predictions(), tmp_path / "a", key="entrpy")
