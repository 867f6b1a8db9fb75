"""Code of the user counts by all files that it consists of, and runs again when one of them changes."""

from __future__ import annotations

import os
import py_compile
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bend_hf.errors import RegistryError
from bend_hf.evaluation.metrics import metric_identity, score
from bend_hf.runs.controls import CONTROLS
from bend_hf.tasks import TASKS
from bend_hf.training.heads import HEADS, build_head, head_entry, head_of
from bend_hf.types import Json
from bend_hf.user_code import files_read, identity_of, key_with_code, load_file
from bend_hf.variants.scores import SCORES, own_scores

HEAD = """
import numpy as np
from pathlib import Path
from torch import nn
from bend_hf.training.heads import HeadSpec
{imports}

class Scaled(nn.Module):
    def __init__(self, width, n_outputs):
        super().__init__()
        self.linear = nn.Linear(width, n_outputs)
        self.factor = {factor}

    def forward(self, x_BTD, token_of_BL):
        return self.linear(x_BTD.mean(1, keepdim=True)) * self.factor

HEADS = (HeadSpec(key="scaled_of_the_user", text="scaled", build=Scaled, fits=lambda task: {{}}),)
"""
LATE = "a module that is imported inside a function"
IMPORTS_LATE = """
def late():
    import late_neighbor

    return late_neighbor.FACTOR
"""
# How the head of the user gets its factor: what it imports, and where the factor stands.
WAYS = {
    "a module next to it": (
        "from neighbor_of_a_head import FACTOR",
        "FACTOR",
        "neighbor_of_a_head.py",
        "FACTOR = {}\n",
    ),
    LATE: ("import sys; sys.path.append(str(Path(__file__).parent))", "late()", "late_neighbor.py", "FACTOR = {}\n"),
    "a file that is read when the code runs": (
        "FACTOR = float((Path(__file__).parent / 'factor.txt').read_text())",
        "FACTOR",
        "factor.txt",
        "{}",
    ),
    "a file that is read when the head is built": (
        "",
        "float(np.loadtxt(Path(__file__).parent / ('fac' + 'tor.txt')))",
        "factor.txt",
        "{}",
    ),
    "a module of a module": (
        "import outer_neighbor",
        "outer_neighbor.inner.FACTOR",
        "inner_neighbor.py",
        "FACTOR = {}\n",
    ),
}


def head_folder(folder: Path, way: str) -> Callable[[float], Path]:
    """Write a head into a folder; the result writes its factor and returns the head's file."""
    imports, factor, name, text = WAYS[way]
    folder.mkdir(exist_ok=True)
    source = HEAD.format(imports=imports + (IMPORTS_LATE if way == LATE else ""), factor=factor)
    (folder / "my_head.py").write_text(source)
    (folder / "outer_neighbor.py").write_text("import inner_neighbor as inner\n")

    def write(value: float) -> Path:
        (folder / name).write_text(text.format(value))
        return folder / "my_head.py"

    return write


def entry_and_factor(file: Path) -> tuple[dict[str, Json] | None, float]:
    head = head_of(str(file), TASKS.get("cpg_methylation"))
    return head_entry(head), float(build_head(head, 7, 3).factor)  # type: ignore[arg-type]  # a float of the user's


@pytest.mark.parametrize("way", WAYS)
def test_a_head_is_run_again_and_known_anew_if_a_file_that_it_uses_changes(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # as it is for most users
    write = head_folder(tmp_path / "a", way)
    first, factor = entry_and_factor(write(2.0))
    assert factor == 2.0
    assert entry_and_factor(write(2.0)) == (first, 2.0)
    second, factor = entry_and_factor(write(3.0))
    assert factor == 3.0
    assert second != first
    assert entry_and_factor(write(2.0)) == (first, 2.0)
    copy = head_folder(tmp_path / "b", way)
    assert entry_and_factor(copy(2.0)) == (first, 2.0)  # by content, not by place


@pytest.mark.parametrize("late_s", [-1, 0])
def test_bytecode_of_a_content_that_was_replaced_within_a_second_is_not_run(late_s: int, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from of_the_second import FACTOR\n")
    module = tmp_path / "of_the_second.py"
    module.write_text("FACTOR = 2.0\n")
    changed_s = int(module.stat().st_mtime)
    os.utime(module, (changed_s, changed_s))
    bytecode = Path(py_compile.compile(str(module), doraise=True) or "")
    os.utime(bytecode, (changed_s + late_s, changed_s + late_s))
    module.write_text("FACTOR = 3.0\n")
    os.utime(module, (changed_s, changed_s))
    assert load_file(tmp_path / "mine.py").FACTOR == 3.0


def test_bytecode_that_was_written_after_the_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import of_before\n")
    module = tmp_path / "of_before.py"
    module.write_text("FACTOR = 2.0\n")
    os.utime(module, (1_000_000_000, 1_000_000_000))
    bytecode = Path(py_compile.compile(str(module), doraise=True) or "")
    load_file(tmp_path / "mine.py")
    assert bytecode.is_file()


def test_two_folders_with_a_module_of_one_name_do_not_mix(tmp_path: Path) -> None:
    files = [head_folder(tmp_path / name, "a module next to it")(value) for name, value in (("a", 2.0), ("b", 3.0))]
    assert [entry_and_factor(file)[1] for file in (*files, *files)] == [2.0, 3.0, 2.0, 3.0]


def test_the_same_file_runs_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("VALUES = []\n")
    assert load_file(path).VALUES is load_file(path).VALUES


def test_a_change_within_one_tick_of_the_clock_and_of_equal_size_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    for value in (1, 2):
        path.write_text(f"VALUE = {value}\n")
        os.utime(path, (1_000_000_000, 1_000_000_000))
        assert value == load_file(path).VALUE
    assert not list(tmp_path.glob("__pycache__"))


def test_an_edited_file_does_not_import_anew_what_did_not_change(tmp_path: Path) -> None:
    (tmp_path / "steady_neighbor.py").write_text("class Kept: pass\n")
    path = tmp_path / "mine.py"
    kinds = []
    for number in range(2):
        path.write_text(f"from steady_neighbor import Kept\nNUMBER = {number}\n")
        kinds.append(load_file(path).Kept)
    assert kinds[0] is kinds[1]


def test_a_file_that_fails_after_a_change_leaves_the_earlier_module(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("VALUE = 1\n")
    before = load_file(path)
    path.write_text("1 / 0\n")
    with pytest.raises(RegistryError, match="failed when it was run"):
        load_file(path)
    path.write_text("VALUE = 1\n")
    assert load_file(path) is before


def test_only_files_of_the_user_that_are_read_count(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 2")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "fonts.json").write_text("1")
    with files_read() as read:
        np.loadtxt(tmp_path / "a.txt")
        (tmp_path / ".cache" / "fonts.json").read_text()
        (tmp_path / "new.txt").write_text("x")
        Path(np.__file__).read_bytes()
        Path("/proc/self/stat").read_text()
    assert read == {tmp_path / "a.txt"}


def test_code_of_this_package_has_no_identity_of_its_own() -> None:
    for registry in (HEADS, CONTROLS, SCORES):
        assert [key_with_code(one) for one in registry] == registry.names()
    assert identity_of(len) == ""


METRIC = """
import datasets
import evaluate
{imports}


class Shifted(evaluate.Metric):
    def _info(self):
        index = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="", citation="", features=datasets.Features({{"predictions": index, "references": index}})
        )

    def _compute(self, predictions, references):
        return {{"shifted": {value}}}
"""


@pytest.mark.parametrize(
    ("imports", "value", "name", "text"),
    [
        ("from .shift import SHIFT", "SHIFT", "shift.py", "SHIFT = {}\n"),
        ("", "float(open(FOLDER + '/shift.txt').read())", "shift.txt", "{}"),
        ("SHIFT = float(open(FOLDER + '/shift.txt').read())", "SHIFT", "shift.txt", "{}"),
    ],
)
def test_a_metric_is_known_by_every_file_of_its_folder(
    imports: str, value: str, name: str, text: str, tmp_path: Path
) -> None:
    folder = tmp_path / "shifted"
    folder.mkdir()
    source = METRIC.format(imports=imports, value=value).replace("FOLDER", repr(str(folder)))
    (folder / "shifted.py").write_text(source)

    def with_shift(shift: float) -> tuple[str, float]:
        (folder / name).write_text(text.format(shift))
        return metric_identity(str(folder)), score(str(folder), [0, 1], [0, 1]).value

    first = with_shift(0.25)
    (folder / "README.md").write_text("the card")
    assert with_shift(0.25) == first
    second = with_shift(0.5)
    assert second[0] != first[0]
    assert (first[1], second[1]) == (0.25, 0.5)
    assert metric_identity("mcc") == "mcc"


def test_a_control_and_a_variant_score_of_the_user_are_known_by_their_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "from bend_hf.variants.scores import VariantScore\nFACTOR = {}\n\ndef compute(batch): return batch * FACTOR\n"
    )
    source += "SCORES = (VariantScore(key='mine', text='mine', rises_with_effect=True, compute=compute),)\n"
    found = []
    for factor in ("1.0", "2.0", "1.0"):
        (tmp_path / "mine.py").write_text(source.format(factor))
        spec = SCORES.get(str(tmp_path / "mine.py"))
        monkeypatch.setattr(SCORES, "in_order", lambda spec=spec: [spec])
        found.append((key_with_code(spec), own_scores()["mine"]))
    assert found[0] == found[2]
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]
