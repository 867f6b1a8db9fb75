"""What every metric must hold: its two files, its declarations, its card, and its behavior at the edges."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import json
import math
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import datasets
import evaluate
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bend_hf.errors import ConfigError
from bend_hf.evaluation.metrics import (
    check_metrics,
    load_metric,
    metric_files,
    metric_folder,
    metric_names,
    score,
    write_metric_folders,
)
from bend_hf.tasks import TASKS

NAMES = metric_names(plugins=False)


def module_at(path: Path) -> ModuleType:
    """Import a Python file under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"space_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def loaded(name: str) -> Any:
    return load_metric(name)


def declared(name: str) -> ModuleType:
    return sys.modules[type(loaded(name)).__module__]


def takes_classes(name: str) -> bool:
    features = loaded(name).features
    first = features[0] if isinstance(features, list) else features
    return bool(first["predictions"].dtype.startswith("int"))


def skip_if_evaluate_reads_the_arrays(name: str) -> None:
    """A metric from the template of `evaluate` leaves reading arrays to it."""
    if type(loaded(name)).compute is evaluate.EvaluationModule.compute:
        pytest.skip("evaluate reads the arrays of this metric")


def card(name: str) -> str:
    return (metric_folder(name) / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def hub_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory holds ``bend/<metric>/``, and there is no network."""

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a connection was tried")

    write_metric_folders(tmp_path / "bend")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path / "bend"


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_is_a_module_and_a_card(name: str) -> None:
    files = {path.name for path in metric_folder(name).iterdir() if path.name != "__pycache__"}
    assert files == {f"{name}.py", "README.md"}


@pytest.mark.parametrize("name", NAMES)
def test_the_module_declares_its_main_value_and_its_best(name: str) -> None:
    module = declared(name)
    assert isinstance(module.MAIN, str)
    assert isinstance(module.PERFECT, float)
    assert isinstance(module.HIGHER_IS_BETTER, bool)
    assert score(name, predictions=[0, 1, 1, 0], references=[0, 1, 1, 0]).value == module.PERFECT
    worse = score(name, predictions=[1, 0, 1, 0], references=[0, 1, 1, 0]).value
    assert worse < module.PERFECT if module.HIGHER_IS_BETTER else worse > module.PERFECT


@pytest.mark.parametrize("name", NAMES)
def test_the_module_describes_itself(name: str) -> None:
    metric = loaded(name)
    features = metric.features if isinstance(metric.features, list) else [metric.features]
    assert all(set(one) == {"predictions", "references"} for one in features)
    assert all(isinstance(one, datasets.Features) for one in features)
    assert metric.info.description.strip()
    assert metric.info.citation.strip().startswith("@")
    assert {"Args:", "Returns:", "Example:"} <= set(metric.inputs_description.split())


@pytest.mark.parametrize("name", NAMES)
def test_ignored_references_do_not_count(name: str) -> None:
    expected = score(name, predictions=[0, 1, 0, 1], references=[0, 1, 1, 0])
    assert score(name, predictions=[0, 1, 0, 1, 1], references=[0, 1, 1, 0, -100]) == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("references", [[], [-100, -100]])
def test_nothing_to_score_gives_nan(name: str, references: list[int]) -> None:
    kind = np.int64 if takes_classes(name) else np.float64
    found = score(name, predictions=np.zeros(len(references), kind), references=np.array(references, np.int64))
    assert math.isnan(found.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("predictions", "references"), [([0, 1, 1], [1, 1, 1]), ([1, 1, 1], [0, 1, 1])])
def test_one_class_and_constant_predictions_are_decided(
    name: str, predictions: list[int], references: list[int]
) -> None:
    value = score(name, predictions=predictions, references=references).value
    assert math.isnan(value) or -1 <= value <= 1
    assert value != declared(name).PERFECT
    assert re.search(r"^Edge cases", card(name), re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_a_prediction_that_is_nan_is_refused(name: str) -> None:
    with pytest.raises((ValueError, ConfigError), match=r"nan|class numbers"):
        score(name, predictions=[0.0, math.nan], references=[0, 1])


@pytest.mark.parametrize("name", NAMES)
def test_masked_values_are_refused(name: str) -> None:
    skip_if_evaluate_reads_the_arrays(name)
    masked = np.ma.masked_array([0, 1, 1, 0], mask=[False, False, True, True])
    for pair in (
        {"predictions": masked, "references": [0, 1, 1, 0]},
        {"predictions": [0, 1, 1, 0], "references": masked},
    ):
        with pytest.raises(ValueError, match="2 of 4 values are masked"):
            loaded(name).compute(**pair)
    whole = np.ma.masked_array([0, 1, 1, 0])
    assert loaded(name).compute(predictions=whole, references=whole)[declared(name).MAIN] == declared(name).PERFECT


@pytest.mark.parametrize("name", NAMES)
def test_values_without_order_are_refused(name: str) -> None:
    skip_if_evaluate_reads_the_arrays(name)
    for values in ({0, 1}, iter([0, 1])):
        with pytest.raises(ValueError, match="no length and order; give a list or an array"):
            loaded(name).compute(predictions=values, references=[0, 1])


@pytest.mark.parametrize("name", NAMES)
def test_a_list_of_tensors_is_as_good_as_one(name: str) -> None:
    skip_if_evaluate_reads_the_arrays(name)
    dtype = torch.int64 if takes_classes(name) else torch.bfloat16
    predictions = [torch.tensor([value], dtype=dtype, requires_grad=dtype.is_floating_point) for value in (0, 1, 1, 0)]
    references = [torch.tensor([value]) for value in (0, 1, 1, 0)]
    pair = {"predictions": predictions, "references": references}
    if name == "gene_structure":  # takes one row
        pair = {key: [value[0] for value in values] for key, values in pair.items()}
    assert loaded(name).compute(**pair)[declared(name).MAIN] == declared(name).PERFECT


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e-320, 1e-100, 1e100, 1e307])
def test_the_size_of_weights_changes_nothing_or_is_refused(name: str, size: float) -> None:
    skip_if_evaluate_reads_the_arrays(name)
    if takes_classes(name):
        pytest.skip("its weights are counts, or it takes none")
    predictions, references = [0.1, 0.9, 0.4, 0.3, 0.6], [0, 1, 0, 1, 1]
    weights = np.array([1, 1.5, 0, 1.7, 1])
    main = declared(name).MAIN
    plain = loaded(name).compute(predictions=predictions, references=references, sample_weight=weights)[main]
    if 1e-100 <= size < 1e100:
        scaled = size * weights
        found = loaded(name).compute(predictions=predictions, references=references, sample_weight=scaled)[main]
        assert found == pytest.approx(plain, rel=1e-12)
    else:
        with pytest.raises(ValueError, match="numbers that are 0, or from 1e-100 to 1e"):
            loaded(name).compute(predictions=predictions, references=references, sample_weight=size * weights)


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_several_integer_types_are_joined(name: str) -> None:
    for dtype in (np.uint64, np.int64, np.int8):
        batch = np.array([0, 1, 1, 0], dtype)
        loaded(name).add_batch(predictions=batch, references=batch)
    assert loaded(name).compute()[declared(name).MAIN] == declared(name).PERFECT


@pytest.mark.parametrize("name", NAMES)
def test_combine_takes_the_metric_in_each_way(name: str) -> None:
    combined = evaluate.combine([loaded(name)])
    expected = loaded(name).compute(predictions=[0, 1, 0], references=[0, 1, 1])
    np.testing.assert_equal(combined.compute(predictions=[0, 1, 0], references=[0, 1, 1]), expected)  # nan equals nan
    combined.add_batch(predictions=[0, 1, 0], references=[0, 1, 1])
    np.testing.assert_equal(combined.compute(), expected)
    for prediction, reference in ((0, 0), (1, 1), (0, 1)):
        combined.add(prediction=prediction, reference=reference)
    np.testing.assert_equal(combined.compute(), expected)


EMPTY = ([], np.zeros(0), np.zeros(0, np.int64))


@settings(deadline=None, max_examples=15)
@given(
    pieces=st.lists(st.integers(0, 3) | st.just("add"), min_size=1, max_size=7),
    n_labels=st.sampled_from([None, 2]),
    empty=st.sampled_from(EMPTY),
    seed=st.integers(0, 2**32 - 1),
)
@pytest.mark.parametrize("name", NAMES)
def test_items_in_pieces_of_any_size_and_order_give_the_result_of_one_call(
    name: str, pieces: list[int | str], n_labels: int | None, empty: Any, seed: int
) -> None:
    if not isinstance(loaded(name).features, list):  # it takes one label per item
        n_labels = None
    random = np.random.default_rng(seed)
    n_items = 2 + sum(1 if piece == "add" else int(piece) for piece in pieces)
    shape = (n_items,) if n_labels is None else (n_items, n_labels)
    references = random.integers(0, 2, shape)
    predictions = random.integers(0, 2, shape) if takes_classes(name) else random.random(shape).round(2)
    expected = loaded(name).compute(predictions=predictions, references=references)
    combined, at = evaluate.combine([loaded(name)]), 0
    for piece in [*pieces, 2]:
        if piece == "add":
            combined.add(prediction=predictions[at], reference=references[at])
            at += 1
        elif piece == 0:
            combined.add_batch(predictions=empty, references=empty)
        else:
            combined.add_batch(predictions=predictions[at : at + piece], references=references[at : at + piece])
            at += int(piece)
    np.testing.assert_equal(combined.compute(), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_that_is_better_when_lower_cannot_be_the_main_one(name: str) -> None:
    task = TASKS.get("gene_finding" if takes_classes(name) else "cpg_methylation")
    check_metrics(replace(task, further_metrics=(name,)))
    if declared(name).HIGHER_IS_BETTER:
        check_metrics(replace(task, metric=name))
    else:
        with pytest.raises(ConfigError, match=f"metric {name} is better when it is lower"):
            check_metrics(replace(task, metric=name))


@pytest.mark.parametrize("name", NAMES)
def test_the_card_has_the_header_of_a_metric_space(name: str) -> None:
    header = yaml.safe_load(card(name).split("---\n")[1])
    assert header["title"].lower() == name
    assert header["sdk"] == "gradio"
    assert header["app_file"] in metric_files(name)
    assert {"evaluate", "metric"} <= set(header["tags"])
    assert header["license"]


@pytest.mark.parametrize("name", NAMES)
def test_the_card_names_every_output_and_argument(name: str) -> None:
    result = loaded(name).compute(predictions=[0, 1], references=[0, 1])
    for word in [*result, "predictions", "references"]:
        assert f"`{word}`" in card(name), word


@pytest.mark.parametrize("name", NAMES)
def test_the_space_requires_what_its_scripts_import(name: str) -> None:
    files = metric_files(name)
    required = re.findall(r"^\w+", files["requirements.txt"].decode(), flags=re.MULTILINE)
    imported: set[str] = set()
    for script in (content for path, content in files.items() if path.endswith(".py")):
        for node in ast.walk(ast.parse(script)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, "a module of a Space imports no other file of it"
                imported.add(str(node.module).split(".")[0])
    third_party = imported - set(sys.stdlib_module_names) - {"gradio", "sklearn"}  # a gradio Space has gradio
    assert third_party <= set(required)
    assert ("scikit" in required) == ("sklearn" in imported)


@pytest.mark.parametrize("name", NAMES)
def test_the_metric_loads_by_its_hub_name_offline(hub_image: Path, name: str) -> None:
    metric = evaluate.load(f"bend/{name}")
    assert metric.name == name
    assert metric.compute(predictions=[0, 1, 1], references=[0, 1, 1])[declared(name).MAIN] == declared(name).PERFECT


@pytest.mark.parametrize("name", NAMES)
def test_docstring_examples_give_what_they_say(hub_image: Path, name: str) -> None:
    module_text = ast.get_docstring(ast.parse((hub_image / name / f"{name}.py").read_text(encoding="utf-8")))
    for text in (module_text, evaluate.load(f"bend/{name}").inputs_description):
        test = doctest.DocTestParser().get_doctest(text or "", {}, name, None, 0)
        assert test.examples
        assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_page_scores_its_own_example(hub_image: Path, name: str) -> None:
    page = module_at(hub_image / name / "app.py")
    predictions, references = page.example(page.load())
    given: dict[str, Any] = {"predictions": json.loads(f"[{predictions}]"), "references": json.loads(f"[{references}]")}
    expected = loaded(name).compute(**given)
    np.testing.assert_equal(json.loads(page.score(predictions, references)), expected)  # nan equals nan


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_it_cannot_read(hub_image: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"references cannot be read: .*write them as 0"):
        module_at(hub_image / name / "app.py").score("0, 1", "0 1")


@pytest.mark.slow
def test_the_examples_of_the_cards_run(tmp_path: Path) -> None:
    write_metric_folders(tmp_path / "bend")
    blocks = [
        (f"{name}, example {index}", block)
        for name in NAMES
        for index, block in enumerate(re.findall(r"```python\n(.*?)```", card(name), re.DOTALL))
    ]
    assert {title.split(",")[0] for title, _ in blocks} == set(NAMES)
    program = "import sys, json\nfor title, code in json.load(sys.stdin):\n    exec(compile(code, title, 'exec'), {})"
    run = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(blocks),
        cwd=tmp_path,
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_metrics_read_arrays_alike() -> None:
    """Each module is one file on the Hub and has the function itself; only the advice in its errors may differ."""

    class WithoutTexts(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.Constant:  # as ast calls it
            return ast.Constant("") if isinstance(node.value, str) and " " in node.value else node

    found: dict[str, list[str]] = {}
    for name in NAMES:
        for node in ast.parse((metric_folder(name) / f"{metric_folder(name).name}.py").read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name == "_as_array":
                found.setdefault(ast.dump(WithoutTexts().visit(node)), []).append(name)
    assert sum(map(len, found.values())) > 5
    assert len(found) == 1, found.values()
