"""The metrics against values that BEND's own code gave, and against published gene finders on BEND's own labels."""

from __future__ import annotations

from functools import cache
from typing import Any

import evaluate
import numpy as np
import pytest
from numpy.typing import NDArray

from bend_hf.files import asset_folder
from tests.shared_data import GOLDEN, SHARED, needs_shared

GENE_FINDERS = SHARED / "data" / "bend_gene_finding_test"

pytestmark = needs_shared


@cache
def metric(name: str) -> Any:
    return evaluate.load(str(asset_folder("metrics") / name))


def golden(name: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """References, predictions and what BEND gave for them: its main value, then one a class or label."""
    arrays = np.load(GOLDEN / "metrics" / f"{name}.npz")
    return arrays["y_true"], arrays["y_pred"], np.atleast_1d(arrays["metric"])


@pytest.mark.parametrize("name", ["mcc", "mcc_padded", "mcc_missing_class_in_true"])
def test_mcc_recall_and_precision_are_those_of_bend(name: str) -> None:
    references, predictions, expected = golden(name)
    result = metric("mcc").compute(predictions=predictions, references=references, n_classes=9)
    # where a class has no references BEND writes 0.0, and here its recall is nan
    ours = np.nan_to_num([result["mcc"], *result["recall"], *result["precision"]], nan=0.0)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)
    assert sum(np.isnan(result["recall"])) == result["support"].count(0) == (name == "mcc_missing_class_in_true")


@pytest.mark.parametrize(
    "name",
    ["auroc_histone_modification", "auroc_chromatin_accessibility", "auroc_cpg_methylation", "auroc_ties"],
)
def test_auroc_and_its_labels_are_those_of_bend(name: str) -> None:
    references, predictions, expected = golden(name)
    result = metric("auroc").compute(predictions=predictions, references=references)
    np.testing.assert_allclose([result["auroc"], *result["per_label"]], expected, rtol=0, atol=1e-12)
    assert result["n_labels_left_out"] == 0


def test_auroc_of_a_constant_label_is_left_out_where_bend_gives_nan() -> None:
    references, predictions, expected = golden("auroc_one_constant_label")
    result = metric("auroc").compute(predictions=predictions, references=references)
    np.testing.assert_allclose(result["per_label"], expected[1:], rtol=0, atol=1e-12)
    assert np.isnan(expected[0])
    assert result["n_labels_left_out"] == 1
    assert result["auroc"] == pytest.approx(np.nanmean(expected[1:]), abs=1e-12)


def test_auroc_of_all_cells_at_once_is_that_of_bend() -> None:
    references, predictions, expected = golden("auroc_other_task_returns_scalar")
    result = metric("auroc").compute(predictions=predictions.ravel(), references=references.ravel())
    assert result["auroc"] == pytest.approx(expected[0], abs=1e-12)


def test_padded_labels_are_scored_where_bend_fails() -> None:
    references, predictions, expected = golden("auroc_padded_multilabel_error")
    assert expected.size == 0
    assert (references == -100).any()
    result = metric("auroc").compute(predictions=predictions, references=references)
    assert result["n_positive"] == (references == 1).sum(axis=0).tolist()
    assert result["n_negative"] == (references == 0).sum(axis=0).tolist()


def test_auprc_over_all_bins_is_that_of_bend() -> None:
    references, predictions, expected = golden("auprc_enhancer")
    result = metric("auprc").compute(predictions=predictions.ravel(), references=references.ravel())
    assert result["auprc"] == pytest.approx(expected[0], abs=1e-12)


def five_classes(file: str) -> NDArray[np.int8]:
    """One label a nucleotide of both strands: 0 neither, 1 and 2 CDS and intron on plus, 3 and 4 on minus.

    The minus strand is stored backwards. Where a prediction has both strands at once, plus stands.
    """
    with np.load(GENE_FINDERS / f"{file}.npz") as arrays:
        rows = sorted({int(name.split("_")[0]) for name in arrays.files})
        plus = np.concatenate([arrays[f"{row}_fow"] for row in rows]).astype(np.int8) - 1
        minus = np.concatenate([arrays[f"{row}_rev"][::-1] for row in rows]).astype(np.int8) - 1
    return np.where((plus == 0) & (minus > 0), minus + 2, plus).astype(np.int8)


@pytest.mark.parametrize(("finder", "expected"), [("augustus", 0.7956), ("segmentnt", 0.6749), ("tiberius", 0.7941)])
def test_gene_finders_score_as_published_on_the_labels_of_bend(finder: str, expected: float) -> None:
    references = five_classes("ground_truth")
    result = metric("mcc").compute(predictions=five_classes(finder), references=references, n_classes=5)
    assert result["mcc"] == pytest.approx(expected, abs=5e-5)
    assert sum(result["support"]) == 4_353_894
