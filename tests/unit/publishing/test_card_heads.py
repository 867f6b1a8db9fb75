"""The heads next to a card: which are taken, that they are checked, and that the example on the card runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bend_hf.cli._main import main
from bend_hf.config import RunConfig
from bend_hf.errors import RecordError
from bend_hf.publishing.card_folder import write_card
from bend_hf.publishing.card_heads import check_heads, copy_heads, heads_of, with_repo
from bend_hf.publishing.model_card import model_card
from bend_hf.runs import run as runs
from tests.records import record
from tests.tiny import write_data

TASK = "cpg_methylation"
KEPT = {"file": "x.safetensors", "sha256": "0" * 64, "bytes": 1000, "kept": "best", "epoch": 1, "fold": None}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    data = write_data(tmp_path / "data", (TASK,), n=20)
    runs.run(RunConfig(task=(TASK,), data=str(data), model="onehot", out=tmp_path / "out", epochs=1, seeds=(3, 1)))
    return tmp_path / "out"


def example(card: str) -> str:
    """Return the Python block of a card."""
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return str(block)


def test_a_card_names_one_head_for_each_score_and_its_example_runs(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["card", str(results), "--out", str(tmp_path / "card")]) == 0
    name = f"heads/{TASK}__bend-2024__cnn.safetensors"
    assert str(tmp_path / "card" / name) in capsys.readouterr().out.splitlines()
    text = (tmp_path / "card" / "README.md").read_text()
    assert f"| CpG methylation | bend-2024 | 1 | none |" in text  # noqa: F541  the first of two seeds
    assert f"`{name}`" in text
    code = example(text).replace("OWNER/NAME", "card")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out.startswith("(1, 7) {")


def test_a_head_that_differs_is_refused_and_a_missing_one_left_out(
    results: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["card", str(results), "--out", str(tmp_path / "card")]
    for file in results.glob("*.safetensors"):
        file.write_bytes(file.read_bytes() + b" ")
    assert main(words) != 0
    assert "differs from what" in capsys.readouterr().err
    for file in results.glob("*.safetensors"):
        file.unlink()
    assert main(words) == 0
    assert "is missing; the card comes without it" in caplog.text
    assert "load_head" not in (tmp_path / "card" / "README.md").read_text()
    assert not (tmp_path / "card" / "heads").exists()


def test_heads_of_a_card_are_checked_before_a_push(tmp_path: Path) -> None:
    kept = record(seed=2, kept=KEPT)
    assert heads_of([record(seed=0), kept]) == {"heads/chromatin_accessibility__bend-2024__cnn.safetensors": kept}
    with pytest.raises(RecordError, match=r"is missing or differs .* write the card again"):
        check_heads(tmp_path, [kept])


def test_heads_of_an_earlier_card_are_removed(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"w")
    old, new = record("cpg_methylation", kept=KEPT), record("histone_modification", kept=KEPT)
    for one in (old, new):
        write_card([one], tmp_path / "card")
        (copy,) = copy_heads([one], {"0" * 64: tmp_path / "w.safetensors"}, tmp_path / "card")
    assert list((tmp_path / "card" / "heads").iterdir()) == [copy]
    assert copy.name == "histone_modification__bend-2024__cnn.safetensors"


def test_a_push_writes_the_repository_into_the_example_and_nothing_else() -> None:
    card = model_card([record(kept=KEPT)]) + "\nSee OWNER/NAME.\n"
    assert 'load_head("me/it/heads/' in with_repo(card, "me/it")
    assert with_repo(card, "me/it").endswith("\nSee OWNER/NAME.\n")
