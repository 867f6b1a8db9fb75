"""Each value of a record that can be computed again is: a changed one is named, and all others are on a list."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bend_hf.cli._main import main
from bend_hf.config import RunConfig, settings_in_key
from bend_hf.errors import RecordError
from bend_hf.files import parse_json
from bend_hf.publishing.report import write_report
from bend_hf.publishing.uploads import plan_results
from bend_hf.runs.recomputed import NOT_RECOMPUTED, not_recomputed_in_words, reason_for
from bend_hf.runs.run import run, run_controls
from bend_hf.runs.verify import Opened, verify_run
from bend_hf.types import Json
from tests.tiny import CONTIGS, write_bed, write_data, write_genome
from tests.unit.runs.test_verify import edit, leaves, rewrite, with_column

DOCUMENTS = Path(__file__).resolve().parents[3] / "docs"


def write_windows(folder: Path) -> None:
    """CpG methylation with labels from rare to frequent, so that there are scores by prevalence and by distance."""
    write_genome(folder / "genomes" / "genome.fa")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(160):
        split, contig = ("train", "train", "valid", "test")[number % 4], "chr1"
        if number % 8 == 7:
            contig = "chr2"  # holds no training row
        start = int(rng.integers(0, CONTIGS[contig] - 512))
        labels = np.flatnonzero(rng.random(7) < np.linspace(0.04, 0.5, 7))
        rows.append((contig, start, start + 512, "+-"[number % 2], ",".join(map(str, labels.tolist())), split))
    header = ("chromosome", "start", "end", "strand", "label", "split")
    write_bed(folder / "cpg_methylation" / "cpg_methylation.bed", header, rows)


SETTINGS: dict[str, dict[str, Any]] = {
    "cpg_methylation": {
        "protocol": "bend-hf-1",
        "controls": True,
        "head": "linear",
        "epochs": 1,
        "strand_report": True,
    },
    "gene_finding": {"epochs": 3, "strand_report": True},  # rows of many lengths
    "variant_effects_expression": {"strand_report": True},  # further heads
    "enhancer_annotation": {"fold": (1, 3), "limit": 2},  # folds
}


class Runs(dict[str, Path]):
    """Records by task, of runs that are made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, task: str) -> Path:
        data = self.folder / task / "data"
        if task == "cpg_methylation":
            write_windows(data)
        else:
            write_data(data, [task], n=20 if task == "enhancer_annotation" else 40)
        config = RunConfig(
            task=(task,), data=str(data), model="onehot", out=self.folder / task / "results", **SETTINGS[task]
        )
        folds = task == "enhancer_annotation"  # of long rows, on which a head trains for long
        self[task] = (run_controls(config, ["prevalence"]) if folds else run(config))[0].path
        return self[task]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Records of a searched head with controls, of a head on genes, of variants, and of folds."""
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def opened() -> Opened:
    """The data of the records, which are read once."""
    return {}


def at(body: Json, place: tuple[Any, ...]) -> Any:
    for name in place:
        body = body[name]  # type: ignore[index,call-overload]  # the place exists
    return body


def altered(value: Json) -> Json:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * 0.99 if abs(value) > 0.9 else value * 1.01 + 0.001
        case str():
            return "a" * 64 if re.fullmatch("[0-9a-f]{64}", value) else f"{value} changed"
        case list() | dict():
            return {"changed": 1}
        case None:
            return "changed"


def dotted(place: tuple[Any, ...]) -> str:
    """A place as messages write it.

    >>> dotted(("folds", 0, "items"))
    'folds[0].items'
    """
    return "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in place)[1:]


def changed_copy(path: Path, folder: Path, places: list[tuple[Any, ...]]) -> Path:
    """Copy a run with all files next to it, and change some places of its record."""
    shutil.copytree(path.parent, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))

    def change(body: Any) -> None:
        for place in places:
            is_hash = str(place[-1]).endswith("sha256")  # may be null, and other text is no record
            at(body, place[:-1])[place[-1]] = "a" * 64 if is_hash else altered(at(body, place))

    edit(folder / path.name, change)
    return folder / path.name


def places_of(path: Path, section: str) -> list[tuple[Any, ...]]:
    """All places of a section of a record; those of an empty one are the section itself."""
    names = tuple(section.split("."))
    return list(leaves(at(parse_json(path.read_text()), names), names))


@pytest.mark.parametrize("task", SETTINGS)
def test_runs_are_verified_completely(runs: Runs, opened: Opened, task: str) -> None:
    verified = verify_run(runs[task], opened=opened)
    fitted = ("what the control prevalence learned, as it is not fitted again",)
    assert verified.problems == ()
    assert verified.unchecked == (fitted if task == "enhancer_annotation" else ())
    assert "calibration, parts and label noise from the predictions" in verified.in_words()


def sections() -> Iterator[tuple[str, str]]:
    """The sections of records that hold numbers, in each kind of run that has them."""
    every = ("metrics", "diagnostics", "data.audit", "data.items", "data.changes", "predictions.items")
    for section in (*every, "training", "kept", "controls"):
        yield "cpg_methylation", section
    for task in ("cpg_methylation", "gene_finding", "variant_effects_expression"):
        yield task, "strands"
    for section in ("metrics", "diagnostics", "training"):
        yield "gene_finding", section
    for section in ("metrics", "diagnostics", "folds"):
        yield "enhancer_annotation", section
    for section in ("metrics", "diagnostics", "predictions.further"):
        yield "variant_effects_expression", section


@pytest.mark.parametrize(("task", "section"), sections())
def test_each_changed_value_of_a_section_is_named(
    runs: Runs, opened: Opened, tmp_path: Path, task: str, section: str
) -> None:
    places = [place for place in places_of(runs[task], section) if place[-1] not in ("file", "sha256")]
    problems = verify_run(changed_copy(runs[task], tmp_path, places), opened=opened).problems
    missed = [dotted(place) for place in places if not any(one.startswith(f"{dotted(place)} ") for one in problems)]
    assert [place for place in missed if reason_for(place.replace("[", ".").replace("]", "")) is None] == []
    assert len(missed) < len(places)


@pytest.mark.parametrize(
    ("task", "place"),
    [
        ("cpg_methylation", "diagnostics.calibration.ece"),
        ("cpg_methylation", "diagnostics.calibration.brier"),
        ("cpg_methylation", "diagnostics.calibration.reliability.3.n"),
        ("cpg_methylation", "diagnostics.by_distance.0.value"),
        ("cpg_methylation", "diagnostics.by_prevalence.1.labels"),
        ("cpg_methylation", "diagnostics.label_noise.rows_with_other_labels"),
        ("cpg_methylation", "data.audit.best_rule.value"),
        ("cpg_methylation", "metrics.auprc.chance.value"),
        ("cpg_methylation", "metrics.auroc.interval.block_bp"),
        ("cpg_methylation", "training.runs.0.steps"),
        ("cpg_methylation", "training.runs.0.best_epoch"),
        ("cpg_methylation", "training.runs.0.learning_rate"),
        ("cpg_methylation", "training.loss.epochs"),
        ("cpg_methylation", "controls.kmer.metrics.auroc.value"),
        ("cpg_methylation", "model.width"),
        ("cpg_methylation", "model.layer"),
        ("cpg_methylation", "kept.bytes"),
        ("gene_finding", "diagnostics.by_length.0.value"),
        ("variant_effects_expression", "metrics.auroc.detail.probe.linear.auroc.value"),
        ("variant_effects_expression", "metrics.auroc.detail.probe.budget.steps.0"),
    ],
)
def test_a_single_changed_value_is_named(runs: Runs, opened: Opened, tmp_path: Path, task: str, place: str) -> None:
    names = tuple(int(name) if name.isdigit() else name for name in place.split("."))
    problems = verify_run(changed_copy(runs[task], tmp_path, [names]), opened=opened).problems
    assert any(one.startswith(f"{dotted(names)} ") for one in problems), problems


def test_each_fact_of_the_model_is_compared(runs: Runs, opened: Opened, tmp_path: Path) -> None:
    places = [place for place in places_of(runs["cpg_methylation"], "model") if place[1] != "identity"]
    problems = verify_run(changed_copy(runs["cpg_methylation"], tmp_path, places), opened=opened).problems
    missed = [dotted(place) for place in places if not any(one.startswith(f"{dotted(place)} ") for one in problems)]
    assert missed == ["model.revision", "model.n_parameters"]


def test_what_is_on_the_list_is_not_compared(runs: Runs, opened: Opened, tmp_path: Path) -> None:
    """So that the list promises neither more nor less than what is done."""
    path = runs["gene_finding"]
    every = [place for section in ("cost", "alignment", "training", "model") for place in places_of(path, section)]
    places = [place for place in every if reason_for(".".join(map(str, place)))]
    places = [place for place in places if place[-1] != "validation"]  # the best epoch follows from them
    assert len(places) > 10
    assert verify_run(changed_copy(path, tmp_path, places), opened=opened).problems == ()


def test_every_setting_is_in_the_key_or_on_the_list() -> None:
    for item in fields(RunConfig):
        in_key = item.name in settings_in_key(RunConfig)
        assert in_key == (reason_for(f"config.{item.name}") is None), item.name


def test_the_command_and_the_document_state_the_list(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(runs["cpg_methylation"])]) == 0
    said = capsys.readouterr().out
    page = (DOCUMENTS / "results.md").read_text(encoding="utf-8")
    for line in not_recomputed_in_words().splitlines():
        assert line in said
    for place in NOT_RECOMPUTED:
        assert f"`{place.removesuffix('.*')}`" in page


def test_controls_and_weights_that_are_not_there_are_said(runs: Runs, opened: Opened, tmp_path: Path) -> None:
    path = runs["cpg_methylation"]
    for file in (path, path.with_suffix(".parquet")):
        shutil.copy(file, tmp_path / file.name)
    verified = verify_run(tmp_path / path.name, opened=opened)
    assert verified.problems == ()
    assert "the control kmer, whose record is not next to it" in verified.unchecked
    assert "the trained weights, which are not next to the record" in verified.unchecked


def test_weights_of_another_training_are_named(runs: Runs, opened: Opened, tmp_path: Path) -> None:
    path = changed_copy(runs["cpg_methylation"], tmp_path, [])
    other = runs["gene_finding"].with_suffix(".safetensors")
    shutil.copy(other, path.with_suffix(".safetensors"))
    assert any(one.startswith("kept.sha256 is") for one in verify_run(path, opened=opened).problems)


def test_an_unknown_policy_is_one_line(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = changed_copy(runs["cpg_methylation"], tmp_path, [("config", "out_of_bounds")])
    assert main(["verify", str(path)]) == 1
    assert "config.out_of_bounds is 'error changed'; expected error or pad or drop" in capsys.readouterr().out


def test_reports_and_pushes_refuse_what_verify_finds(runs: Runs, tmp_path: Path) -> None:
    """Calibration follows from the predictions, the audit from the data alone; only pushes look at that one."""
    calibration = ("diagnostics", "calibration", "brier")
    path = changed_copy(runs["cpg_methylation"], tmp_path / "calibration", [calibration])
    with pytest.raises(RecordError, match=r"calibration\.brier is .* Records and predictions must not be edited"):
        write_report([path], tmp_path / "report", plots=False)
    edit(path, lambda body: body["data"]["files"]["bed"].update(sha256="a" * 64))  # so the data are not at hand
    with pytest.raises(RecordError, match=r"calibration\.brier is"):
        plan_results([path], "me/results")
    (place, *_) = places_of(runs["cpg_methylation"], "data.audit")
    path = changed_copy(runs["cpg_methylation"], tmp_path / "audit", [place])
    with pytest.raises(RecordError, match=r"audit.* is .* Records and predictions must not be edited"):
        plan_results([path], "me/results")


def test_an_interval_of_earlier_rules_is_said_not_to_be_checked(runs: Runs, opened: Opened, tmp_path: Path) -> None:
    path = changed_copy(runs["cpg_methylation"], tmp_path, [])
    edit(path, lambda body: body["metrics"]["auroc"]["interval"].update(method="bootstrap over items", rules=1))
    assert "the interval of auroc, which was computed by earlier rules" in verify_run(path, opened=opened).unchecked


def test_a_row_number_that_the_data_do_not_have_is_named(runs: Runs, opened: Opened, tmp_path: Path) -> None:
    """Places and labels say which row it is; its distance to training is looked up by the number."""
    path = changed_copy(runs["cpg_methylation"], tmp_path, [])
    rewrite(path, with_column("item", 2, 10**6))
    problems = verify_run(path, opened=opened).problems
    assert "item 1000000 of the predictions is not a tested row of the data" in problems
