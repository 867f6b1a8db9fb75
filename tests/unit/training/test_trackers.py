"""Trackers get the configuration once and every epoch, and one that is unknown or missing is refused."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from bend_hf.config import RunConfig
from bend_hf.errors import ConfigError
from bend_hf.runs.run import run
from bend_hf.training.head_trainer import Epoch
from bend_hf.training.trackers import check_trackers, tracking
from tests.tiny import write_data

# Stands for trackio and for wandb, which accelerate calls in the same way.
STAND_IN = """
import json, pathlib

_NOTES = pathlib.Path(__file__).with_name("notes.jsonl")

def _note(what, **values):
    with _NOTES.open("a") as file:
        file.write(json.dumps({"what": what, **values}) + "\\n")

class _Config:
    def update(self, values, allow_val_change):
        _note("config", values=values)

class _Run:
    def log(self, values, step=None):
        _note("log", values=values, step=step)

    def finish(self):
        _note("finish")

config = _Config()

def init(project, name):
    _note("init", project=project, name=name)
    return _Run()
"""


@pytest.fixture(params=["trackio", "wandb"])
def tracker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a tracker that is replaced by something that writes down its calls."""
    name = str(request.param)
    (tmp_path / "site" / name).mkdir(parents=True)
    (tmp_path / "site" / name / "__init__.py").write_text(STAND_IN)
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    return name


def notes(tmp_path: Path, tracker: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (tmp_path / "site" / tracker / "notes.jsonl").read_text().splitlines()]


def test_a_run_sends_its_tracker_everything_once(tracker: str, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", ["gene_finding"], n=12)
    config = RunConfig(
        task=("gene_finding",), data=str(data), model="onehot", epochs=2, out=tmp_path / "out", tracker=(tracker,)
    )
    (outcome,) = run(config)
    start, resolved, *epochs, end = notes(tmp_path, tracker)
    assert (start["what"], start["project"]) == ("init", "bend_hf")
    assert str(start["name"]).startswith("gene_finding__onehot")
    assert resolved["what"] == "config"
    assert resolved["values"]["learning_rate"] == 0.003  # type: ignore[index]
    assert resolved["values"]["tracker"] == str((tracker,))  # type: ignore[index]
    assert [epoch["step"] for epoch in epochs] == [1, 2]
    assert outcome.record.training is not None
    history = outcome.record.training["runs"][0]["history"]  # type: ignore[index,call-overload]
    assert [epoch["values"]["train/loss"] for epoch in epochs] == [e["loss"] for e in history]  # type: ignore[index]
    assert end["what"] == "finish"


def test_a_training_that_fails_closes_its_tracker(tracker: str, tmp_path: Path) -> None:
    config = RunConfig(task=("gene_finding",))

    def fail() -> None:
        with tracking([tracker], run="x", settings=asdict(config), folder=tmp_path) as tell:
            tell(Epoch(epoch=1, loss=0.5, validation=None, seconds=1.0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    *_, told, end = notes(tmp_path, tracker)
    assert told["values"] == {"train/loss": 0.5, "seconds": 1.0}
    assert end["what"] == "finish"


def test_an_unknown_or_missing_tracker_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="unknown --tracker 'wandbb'; did you mean 'wandb'"):
        check_trackers(["wandbb"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="the package 'trackio' is not installed; pip install trackio"):
        run(RunConfig(task=("gene_finding",), data="sample", out=tmp_path, tracker=("trackio",)))
    assert not list(tmp_path.glob("*.json"))
