"""A run is verified without its model: each single change of record, predictions or data is found and named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bend_hf.cli._main import main
from bend_hf.config import DataConfig, RunConfig
from bend_hf.data.dataset import TaskData, task_openers
from bend_hf.errors import RecordError
from bend_hf.evaluation.evidence import read_verified
from bend_hf.evaluation.predictions import read_predictions
from bend_hf.evaluation.record import digest_of, edited
from bend_hf.evaluation.run_key import run_key
from bend_hf.files import file_sha256
from bend_hf.publishing.dataset_folder import build
from bend_hf.publishing.report import write_report
from bend_hf.runs.run import run, run_controls
from bend_hf.runs.variant_file import score_file
from bend_hf.runs.verify import DataPlace, _wrong_facts, verify_run
from bend_hf.types import Json
from bend_hf.variants import VariantRun
from tests.records import record
from tests.tiny import write_bed, write_genome, write_task


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a head on windows with several labels."""
    out = tmp_path_factory.mktemp("run")
    config = RunConfig(task=("cpg_methylation",), data="sample", model="onehot", epochs=1, limit=40, out=out)
    return run(config)[0].path


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    for file in (finished, finished.with_suffix(".parquet")):
        shutil.copy(file, tmp_path / file.name)
    return tmp_path / finished.name


def edit(path: Path, change: Callable[[Any], object], *, with_digest: bool = True) -> None:
    """Change a record; with its digest, as somebody would who wants the change to pass."""
    body = json.loads(path.read_text())
    change(body)
    if with_digest:
        body["sha256"] = digest_of(body)
    path.write_text(json.dumps(body))


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table], *, with_digest: bool = True) -> None:
    """Change the predictions of a record; with all hashes of them."""
    file = path.with_suffix(".parquet")
    table = pq.read_table(file)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), file)
    if with_digest:
        edit(path, lambda body: body["predictions"].update(sha256=file_sha256(file)))


def leaves(value: Json, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all texts, numbers and nulls."""
    if isinstance(value, dict | list):
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(one, (*place, name))
    else:
        yield place


def set_at(place: tuple[Any, ...], value: object) -> Callable[[Any], None]:
    def change(body: Any) -> None:
        for name in place[:-1]:
            body = body[name]
        body[place[-1]] = value

    return change


def test_a_run_is_verified_as_it_was_written(finished: Path) -> None:
    verified = verify_run(finished)
    assert verified.problems == ()
    assert verified.unchecked == ()
    assert verified.in_words().endswith("40 items and their labels from the data")


def test_a_change_of_any_place_in_a_record_is_found(copied: Path) -> None:
    body = json.loads(copied.read_text())
    text, places = copied.read_text(), [place for place in leaves(body) if place != ("sha256",)]
    assert len(places) > 100
    for place in places:
        changed = json.loads(text)
        set_at(place, "changed")(changed)
        assert digest_of(changed) != body["sha256"], place
    assert not edited(copied)
    edit(copied, lambda one: one["cost"].update(seconds=1.0), with_digest=False)
    assert "it was edited after it was written" in verify_run(copied).problems[0]


def moved(by: float) -> Callable[[float], float]:
    return lambda value: value + by


A, F = "a" * 64, "f" * 64
MAIN = ("metrics", "auroc")


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("protocol",), "bend-hf-1", r"protocol is 'bend-hf-1', but config.protocol is 'bend-2024'"),
        (("config", "protocol"), "bend-hf-1", "protocol is 'bend-2024', but config.protocol is 'bend-hf-1'"),
        (("config", "seed"), 1, "config.seed is 1, but .* is named after seed 0"),
        (("config", "epochs"), 2, "config.run_key is .* stated settings"),
        (("config", "learning_rate"), 0.5, "config.run_key is .* stated settings"),
        (("config", "run_key"), A, "config.run_key is aaaaaaaaaaaa"),
        (("config", "limit"), 39, "data.items.train is 40, but 39"),
        (("training", "head", "hidden"), 2, "training.head.hidden is 2"),
        (("model", "model"), "dnabert2", "model.model is 'dnabert2', but its identity is that of 'onehot'"),
        (("model", "identity", "weights"), A, "config.run_key is"),
        (("task",), "histone_modification", "assembly|label|rows_of_bed|files"),
        (("main_metric",), "auprc", "main_metric is 'auprc'"),
        ((*MAIN, "value"), moved(0.01), "metrics.auroc.value is"),
        ((*MAIN, "detail", "per_label", 0), moved(0.01), "per_label"),
        ((*MAIN, "interval", "low"), moved(-0.01), "metrics.auroc.interval.low is"),
        ((*MAIN, "interval", "high"), moved(0.001), "metrics.auroc.interval.high is"),
        ((*MAIN, "interval", "level"), 0.9, "metrics.auroc.interval.level is 0.9"),
        ((*MAIN, "interval", "n_clusters"), 999, "metrics.auroc.interval.n_clusters is 999"),
        ((*MAIN, "interval", "clusters"), "chromosome", "metrics.auroc.interval.clusters is chromosome"),
        ((*MAIN, "interval", "over_items", "low"), moved(0.01), "metrics.auroc.interval.over_items.low"),
        (("coverage", "items"), 41, "coverage.items is 41"),
        (("coverage", "scored"), 39, "coverage.scored is 39"),
        (("coverage", "windows"), 41, "coverage.windows is 41"),
        (("coverage", "item_sha256"), A, "holds other items than coverage.item_sha256 states"),
        (("predictions", "sha256"), A, "has the sha256 .* but the record states aaaaaaaaaaaa"),
        (("predictions", "items"), 41, "predictions.items is 41"),
        (("data", "files", "bed", "sha256"), A, "data.files.bed.sha256 is a"),
        (("data", "files", "genome", "sha256"), F, "data.files.genome.sha256 is f"),
        (("data", "identity", "train"), A, "data.identity.train is a"),
        (("data", "identity", "test"), A, "data.identity.test is a"),
        (("data", "items", "train"), 41, "data.items.train is 41"),
        (("data", "items", "test"), 41, "data.items.test is 41"),
        (("data", "changes", "rows_padded"), 7, "data.changes.rows_padded is 7, but 0"),
        (("data", "rows_of_bed"), 7, "data.rows_of_bed is 7"),
        (("data", "assembly"), "GRCh38", "data.assembly is GRCh38, but GRCh37"),
    ],
    ids=lambda one: ".".join(map(str, one)) if isinstance(one, tuple) else "",
)
def test_a_change_of_a_field_that_matters_is_named(
    copied: Path, place: tuple[Any, ...], value: Any, named: str
) -> None:
    body = json.loads(copied.read_text())
    for name in place:
        body = body[name]
    changed = value(body) if callable(value) else value
    assert changed != body
    edit(copied, set_at(place, changed))
    try:
        problems = "\n".join(verify_run(copied).problems)
    except RecordError as error:
        problems = str(error)
    assert re.search(named, problems), problems


def test_an_interval_of_earlier_rules_is_said_and_may_not_be_wider(copied: Path) -> None:
    def earlier(by: float) -> Callable[[Any], None]:
        def change(body: Any) -> None:
            interval = body["metrics"]["auroc"]["interval"]
            interval.pop("rules", None)
            interval["low"] += by

        return change

    edit(copied, earlier(0.001))
    verified = verify_run(copied)
    assert verified.problems == ()
    assert "the interval of auroc, which was computed by earlier rules" in verified.unchecked
    edit(copied, earlier(-0.1))
    problems = "\n".join(verify_run(copied).problems)
    assert re.search(r"auroc\.interval\.low is .*, outside .*, which was computed again", problems), problems


def test_the_key_of_a_record_is_that_of_the_settings_it_holds(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that a later release adds must not make earlier records look changed."""
    seen: list[set[str]] = []

    def noted(settings: dict[str, object], *others: Any) -> str:
        seen.append(set(settings))
        return run_key(settings, *others)

    monkeypatch.setattr("bend_hf.runs.verify.run_key", noted)
    assert verify_run(copied).problems == ()
    edit(copied, lambda body: body["config"].pop("decode"))
    assert any("run_key is" in one for one in verify_run(copied).problems)  # the key was taken with it
    assert seen[0] - seen[1] == {"decode"}


def with_column(name: str, row: int, value: Any) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value(values[row]) if callable(value) else value
        at = table.column_names.index(name)
        return table.set_column(at, name, pa.array(values, table.schema.field(name).type))

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (with_column("start", 3, moved(1)), r"item \d+: start is \d+, but \d+ in the data"),
        (with_column("end", 0, moved(1)), r"item \d+: end is"),
        (with_column("chromosome", 5, "chrX"), r"item \d+: chromosome is 'chrX', but"),
        (with_column("strand", 5, lambda old: {"+": "-", "-": "+"}[old]), r"item \d+: strand is '[+-]', but '[+-]' in"),
        (with_column("target", 2, lambda old: [1 - old[0], *old[1:]]), r"item \d+: label 0 is [01], but [01] in the"),
        (with_column("item", 2, 10**6), "1000000 of the predictions is not a tested row"),
        (lambda table: table.slice(1), "coverage.items is 40, but .* holds 39 items"),
        (with_column("score", 4, lambda old: [1 - one for one in old]), "metrics.auroc"),
    ],
    ids=["start", "end", "chromosome", "strand", "label", "item", "row", "score"],
)
def test_a_change_of_the_predictions_is_named(copied: Path, change: Callable[[pa.Table], pa.Table], named: str) -> None:
    if named.startswith("1000000"):
        # the row number orders the items; that the place is another one is what makes it another item
        change = lambda table, row=change: with_column("start", 2, moved(1))(row(table))  # type: ignore[misc]  # noqa: E731 - see above
    rewrite(copied, change)
    problems = "\n".join(verify_run(copied).problems)
    assert re.search(named, problems), problems


def test_a_prediction_that_keeps_the_score_is_found_by_its_hash(copied: Path) -> None:
    rewrite(copied, with_column("score", 0, lambda old: [one + 1e-6 for one in old]), with_digest=False)
    assert "has the sha256" in verify_run(copied).problems[0]


def test_reports_refuse_a_record_whose_labels_are_not_those_of_its_data(copied: Path, tmp_path: Path) -> None:
    """The hashes, items and scores are those of the changed predictions, so only the data tell."""
    body = json.loads(copied.read_text())
    rewrite(copied, with_column("start", 3, moved(1)))
    found = read_predictions(copied.with_suffix(".parquet"))
    edit(copied, lambda one: one["coverage"].update(item_sha256=found.item_sha256))
    assert read_verified(copied).value == body["metrics"]["auroc"]["value"]
    with pytest.raises(RecordError, match=r"item \d+: start is"):
        write_report([copied], tmp_path / "report", plots=False)


def test_a_second_report_does_not_open_the_data_again_unless_a_file_changed(
    finished: Path, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(finished.with_suffix(".safetensors"), tmp_path)
    opened: list[DataConfig] = []

    def counted(config: DataConfig) -> dict[str, Callable[[], TaskData]]:
        opened.append(config)
        return task_openers(config)

    monkeypatch.setattr("bend_hf.runs.verify.task_openers", counted)
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path / "notes"))
    counts = []
    for _ in range(2):
        write_report([copied], tmp_path / "report", plots=False)
        counts.append(len(opened))
    with copied.with_suffix(".safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(RecordError, match=r"kept\.sha256 is"):
        write_report([copied], tmp_path / "report", plots=False)
    assert counts == [1, 1]
    assert len(opened) == 2


def test_a_report_says_whose_data_are_not_at_hand(copied: Path, tmp_path: Path) -> None:
    edit(copied, lambda body: body["data"]["files"]["bed"].update(sha256=A))
    said: list[str] = []
    write_report([copied], tmp_path / "report", plots=False, log=said.append)
    assert any("items were not compared with its data: other files are in their place now" in line for line in said)


@pytest.fixture
def own_task(tmp_path: Path) -> tuple[Path, Path, Path]:
    """BED file, genome and record of a task of somebody's own."""
    letters = write_genome(tmp_path / "genome.fa")
    name, sequence = max(letters.items(), key=lambda entry: len(entry[1]))
    n = min(60, len(sequence) // 20)
    splits = ["train", "train", "validation", "test"]
    rows = [(name, 10 * at, 10 * at + 16, at % 3 % 2, splits[at % 4]) for at in range(n)]
    bed = write_bed(tmp_path / "mine.bed", ("chromosome", "start", "end", "label", "split"), rows)
    config = RunConfig(bed=bed, genome=tmp_path / "genome.fa", model="onehot", epochs=1, out=tmp_path / "results")
    return bed, tmp_path / "genome.fa", run_controls(config, ["prevalence"])[0].path


def test_changes_of_the_files_are_named(own_task: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    bed, genome, path = own_task
    assert verify_run(path).problems == ()
    lines = bed.read_text().splitlines()
    row = next(number for number, line in enumerate(lines) if line.endswith("test"))
    changed = lines[row].split("\t")
    changed[3] = str(1 - int(changed[3]))
    bed.write_text("\n".join([*lines[:row], "\t".join(changed), *lines[row + 1 :]]) + "\n")
    assert main(["verify", str(path)]) == 1
    said = capsys.readouterr().out
    assert "data.files.bed.sha256 is" in said
    assert f"item {row - 1}: label 0 is" in said
    bed.write_text("\n".join(lines) + "\n")
    genome.write_text(genome.read_text().replace("A", "C", 1))
    Path(f"{genome}.fai").unlink(missing_ok=True)
    assert main(["verify", str(path)]) == 1
    assert "data.files.genome.sha256 is" in capsys.readouterr().out


def test_data_that_were_moved_are_given_by_flags(
    own_task: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bed, genome, path = own_task
    there = tmp_path / "elsewhere"
    there.mkdir()
    for file in (bed, genome):
        shutil.move(file, there / file.name)
    assert main(["verify", str(path)]) == 1
    assert "NOT verified" in capsys.readouterr().out
    assert main(["verify", str(path), "--bed", str(there / bed.name), "--genome", str(there / genome.name)]) == 0
    assert "verified: mcc" in capsys.readouterr().out
    assert main(["verify", str(path), "--without-data"]) == 0
    assert "not checked: the data" in capsys.readouterr().out


@pytest.mark.slow
def test_folds_of_a_built_folder_are_verified_and_changed_rows_named(tmp_path: Path) -> None:
    write_genome(tmp_path / "data" / "genomes" / "genome.fa")
    write_task(tmp_path / "data", "enhancer_annotation")
    build(DataConfig(task=("enhancer_annotation",), data=str(tmp_path / "data")), tmp_path / "bend")
    config = RunConfig(
        task=("enhancer_annotation",),
        data=str(tmp_path / "bend"),
        model="onehot",
        out=tmp_path / "results",
        fold=(1, 3),
    )
    path = run_controls(config, ["prevalence"])[0].path
    assert verify_run(path).problems == ()
    edit(path, lambda body: body["folds"][1].update(fold=2))
    assert "folds[1].fold is 2, but 3" in verify_run(path).problems[0]
    edit(path, lambda body: body["folds"][1].update(fold=3))
    shard = sorted((tmp_path / "bend").rglob("*.parquet"))[0]
    table = pq.read_table(shard)
    start = np.array(table["start"].to_pylist())
    start[0] += 1
    pq.write_table(table.set_column(table.column_names.index("start"), "start", pa.array(start)), shard)
    problems = "\n".join(verify_run(path, DataPlace(data=str(tmp_path / "bend"))).problems)
    assert f"{shard.name} was changed after the build" in problems


def test_a_scored_file_of_variants_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letters = write_genome(tmp_path / "genome.fa")["chr1"]
    other = {"A": "C", "C": "G", "G": "T", "T": "A"}
    rows = [("chr1", at, at + 1, letters[at], other[letters[at]], at % 2) for at in range(100, 120)]
    bed = write_bed(tmp_path / "mine.bed", ("chromosome", "start", "end", "ref", "alt", "label"), rows)
    config = VariantRun(genome=tmp_path / "genome.fa", model="onehot", out=tmp_path / "results", no_plot=True)
    path = score_file(bed, config).files["record"]
    assert verify_run(path).problems == ()
    text = bed.read_text()
    bed.write_text(text.replace(f"{rows[0][3]}\t{rows[0][4]}\t0", f"{rows[0][3]}\t{rows[0][4]}\t1", 1))
    problems = "\n".join(verify_run(path).problems)
    assert "data.files.variants is" in problems
    assert "item 0: label 0 is 0, but 1 in the data" in problems
    bed.write_text(text)
    assert verify_run(path).problems == ()
    edit(path, lambda body: body["config"].update(window_bp=4))
    assert "config.run_key is" in "\n".join(verify_run(path).problems)
    edit(path, lambda body: body["config"].update(window_bp=16))
    edit(path, lambda body: body["metrics"]["auroc"]["detail"]["by_score"]["score"]["auprc"].update(value=0.9))
    assert "by_score.score.auprc.value is 0.9" in "\n".join(verify_run(path).problems)


def test_records_and_tasks_are_not_mixed(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(finished), "cpg_methylation"]) == 2
    assert "names records and tasks" in capsys.readouterr().err
    assert main(["verify", str(finished), "--out-of-bounds", "pad"]) == 2
    assert "--out-of-bounds is for tasks" in capsys.readouterr().err


@pytest.mark.parametrize(("found", "said"), [("unknown", 0), ("GRCh38", 0), ("GRCh37", 1)])
def test_a_declared_assembly_in_an_earlier_record_is_wrong_only_if_the_genome_is_another(found: str, said: int) -> None:
    assert len(list(_wrong_facts(record(data={"assembly": "GRCh38"}), {"assembly": found}))) == said


@pytest.fixture(scope="module")
def found_genes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A control that predicts a few genes."""
    config = RunConfig(task=("gene_finding",), data="sample", model="onehot", out=tmp_path_factory.mktemp("genes"))
    return run_controls(config, ["cpg"])[0].path


@pytest.mark.parametrize(
    "place",
    [
        ("value",),
        ("detail", "rows_right"),
        ("detail", "true", 0),
        ("detail", "genes_read"),
        ("detail", "genes_with_stop"),
        ("interval", "high"),
        ("interval", "per_label", 1, 1),
    ],
)
def test_the_structure_of_genes_is_computed_again(
    found_genes: Path, tmp_path: Path, place: tuple[str | int, ...]
) -> None:
    for file in (found_genes, found_genes.with_suffix(".parquet")):
        shutil.copy(file, tmp_path / file.name)
    path = tmp_path / found_genes.name
    assert not verify_run(path).problems
    detail = json.loads(path.read_text())["metrics"]["gene_structure"]["detail"]
    assert detail["genes_read"] == detail["whole_genes"] > 0
    edit(path, set_at(("metrics", "gene_structure", *place), 0.75 if isinstance(place[-1], int) else 3.5))
    name = ".".join(["metrics.gene_structure", *(str(one) for one in place if isinstance(one, str))])
    assert any(problem.startswith(name) for problem in verify_run(path).problems)
