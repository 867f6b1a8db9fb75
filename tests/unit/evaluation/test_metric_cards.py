"""Each metric folder as a Space: header, requirements, demo, and examples that run where ``bend/`` stands."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import evaluate
import numpy as np
import pytest
import yaml

from bend_hf.evaluation.metrics import metric_names, write_metric_folders
from bend_hf.files import asset_folder

METRICS = asset_folder("metrics")
NAMES = metric_names()
VALUE_OF = {"calibration": "ece"}  # what stands for a metric that is not called as it is
PERFECT = {"calibration": 0.0}


def module_at(path: Path) -> ModuleType:
    """A Python file, imported under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"space_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def beside_bend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that holds ``bend/<metric>/``, without a network."""

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a connection was tried")

    write_metric_folders(tmp_path / "bend")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_header_is_that_of_a_metric_space(name: str) -> None:
    header = yaml.safe_load((METRICS / name / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert header["title"].lower() == name
    assert header["sdk"] == "gradio"
    assert (METRICS / name / header["app_file"]).is_file()
    assert {"evaluate", "metric"} <= set(header["tags"])
    assert header["license"] == "bsd-3-clause"


@pytest.mark.parametrize("name", NAMES)
def test_card_names_every_output_and_argument(name: str) -> None:
    card = (METRICS / name / "README.md").read_text(encoding="utf-8")
    result = evaluate.load(str(METRICS / name)).compute(predictions=[0, 1], references=[0, 1], names=None)
    for word in [*result, "predictions", "references", "ignore_index", "names"]:
        assert f"`{word}`" in card, word


@pytest.mark.parametrize("name", NAMES)
def test_scripts_import_only_what_they_require(name: str) -> None:
    required = re.findall(r"^\w+", (METRICS / name / "requirements.txt").read_text(), flags=re.MULTILINE)
    imported: set[str] = set()
    for script in (METRICS / name).glob("*.py"):
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{script.name} imports a file beside it"
                imported.add(str(node.module).split(".")[0])
    assert imported - set(sys.stdlib_module_names) - {"gradio"} <= set(required)  # a gradio Space has gradio


@pytest.mark.parametrize("name", NAMES)
def test_loads_by_its_hub_name_offline(beside_bend: Path, name: str) -> None:
    metric = evaluate.load(f"bend/{name}")
    assert metric.name == name
    result = metric.compute(predictions=[0, 1, 1], references=[0, 1, -100])
    assert result[VALUE_OF.get(name, name)] == PERFECT.get(name, 1.0)
    assert metric.info.citation.strip().startswith("@")


@pytest.mark.parametrize("name", NAMES)
def test_docstring_examples_give_what_they_say(beside_bend: Path, name: str) -> None:
    metric = evaluate.load(f"bend/{name}")
    module_text = ast.get_docstring(ast.parse((beside_bend / "bend" / name / f"{name}.py").read_text(encoding="utf-8")))
    for text in (module_text, metric.inputs_description):
        test = doctest.DocTestParser().get_doctest(text or "", {}, name, None, 0)
        assert test.examples
        assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.slow
def test_examples_of_the_cards_run(tmp_path: Path) -> None:
    write_metric_folders(tmp_path / "bend")
    blocks = [
        (f"{name}, example {index}", block)
        for name in NAMES
        for index, block in enumerate(
            re.findall(r"```python\n(.*?)```", (METRICS / name / "README.md").read_text(encoding="utf-8"), re.DOTALL)
        )
    ]
    assert len(blocks) >= 3 * len(NAMES)
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


@pytest.mark.parametrize("name", NAMES)
def test_demo_scores_its_own_example(name: str) -> None:
    path = METRICS / name / "app.py"
    predictions, references = re.findall(r'Textbox\(label="\w+", value="(.*?)"\)', path.read_text(encoding="utf-8"))
    result = json.loads(module_at(path).score(predictions, references))
    given: dict[str, Any] = {"predictions": json.loads(f"[{predictions}]"), "references": json.loads(f"[{references}]")}
    np.testing.assert_equal(result, evaluate.load(str(METRICS / name)).compute(**given))  # nan for nan


@pytest.mark.parametrize("name", NAMES)
def test_demo_says_what_it_cannot_read(name: str) -> None:
    with pytest.raises(ValueError, match=r"references cannot be read: .*write them as 0"):
        module_at(METRICS / name / "app.py").score("0, 1", "0 1")
