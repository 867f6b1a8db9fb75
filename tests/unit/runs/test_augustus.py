"""The gene finder on PATH: its GFF as classes, its time limit, its cache, and how a run resumes.

A small program takes the place of AUGUSTUS, so that the tests run on every machine. One test needs the program itself.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from bend_hf.cli._main import main
from bend_hf.config import RunConfig
from bend_hf.data.dataset import load_task
from bend_hf.data.sequences import reverse_complement
from bend_hf.errors import ControlError
from bend_hf.evaluation.metrics import score
from bend_hf.files import asset_folder
from bend_hf.runs.controls import CONTROLS
from bend_hf.runs.controls.augustus import Feature, Program, call_genes, classes_of, features_in, find_program
from bend_hf.runs.run import chosen_controls, run_controls
from bend_hf.tasks import TASKS
from tests.tiny import write_data

# Output of AUGUSTUS 3.5.0: a gene that begins before the row, and one on the other strand (shortened).
GFF = """\
# Predicted genes for sequence number 1 on both strands
# start gene g1
row\tAUGUSTUS\tgene\t1\t9\t1\t+\t.\tg1
row\tAUGUSTUS\ttranscript\t1\t9\t.\t+\t.\tg1.t1
row\tAUGUSTUS\tintron\t1\t3\t.\t+\t.\ttranscript_id "g1.t1"; gene_id "g1";
row\tAUGUSTUS\tCDS\t4\t9\t.\t+\t0\ttranscript_id "g1.t1"; gene_id "g1";
# end gene g1
row\tAUGUSTUS\tgene\t11\t20\t1\t-\t.\tg2
row\tAUGUSTUS\tintron\t14\t17\t.\t-\t.\ttranscript_id "g2.t1"; gene_id "g2";
row\tAUGUSTUS\tCDS\t11\t13\t.\t-\t0\ttranscript_id "g2.t1"; gene_id "g2";
row\tAUGUSTUS\tCDS\t18\t20\t.\t-\t0\ttranscript_id "g2.t1"; gene_id "g2";
"""
CLASSES_OF_GFF = [2, 2, 3, 0, 0, 0, 0, 0, 0, 8, 4, 4, 4, 7, 6, 6, 5, 4, 4, 4, 8, 8]

FAKE = """\
#!{python} -SE
import pathlib, sys, time
home = pathlib.Path(__file__).resolve().parent
if "--version" in sys.argv:
    sys.exit("AUGUSTUS (" + (home / "version").read_text() + ") is a gene prediction tool.")
sequence = open(sys.argv[-1]).read().split("\\n")[1]
with (home / "calls").open("a") as file:
    file.write(sequence + "\\n")
print("# Initializing the parameters using config directory", home, "...")
if sequence.startswith("CCCC"):
    time.sleep(60)
if sequence.startswith("GGGG") and not (home / "repaired").exists():
    sys.exit("it is broken")
if sequence.startswith("ACG"):
    print("row\\tAUGUSTUS\\tCDS\\t2\\t4\\t.\\t+\\t0\\tx")
"""
PROBE = "ACGT" * 16


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a program that stands in for AUGUSTUS, alone on PATH, with an empty cache."""
    home = tmp_path / "bin"
    (home / "species" / "human").mkdir(parents=True)
    (home / "species" / "human" / "human_parameters.cfg").write_text("one")
    (home / "version").write_text("9.9")
    program = home / "augustus"
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(home))
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path / "cache"))
    return home


def calls(home: Path) -> list[str]:
    """The sequences that the program was run on, apart from the probe; the list starts anew."""
    path = home / "calls"
    found = [one for one in path.read_text().split() if one != PROBE] if path.exists() else []
    path.unlink(missing_ok=True)
    return sorted(found)


def test_its_gff_becomes_the_classes_of_bend() -> None:
    assert classes_of(features_in(GFF), 22).tolist() == CLASSES_OF_GFF


def test_the_reverse_complement_exchanges_the_strands() -> None:
    features, length = features_in(GFF), 22
    mirrored = [
        Feature(kind, length - end, length - start, "-+"[strand == "-"]) for kind, start, end, strand in features
    ]
    exchanged = np.array([4, 5, 6, 7, 0, 1, 2, 3, 8])[classes_of(features, length)[::-1]]
    assert classes_of(mirrored, length).tolist() == exchanged.tolist()


def test_coding_wins_where_genes_overlap() -> None:
    overlapping = [Feature("CDS", 1, 3, "-"), Feature("intron", 0, 4, "+")]
    assert classes_of(overlapping, 5).tolist() == [2, 4, 4, 2, 8]


def test_no_gene_is_non_coding() -> None:
    assert classes_of(features_in("# (none)\n"), 3).tolist() == [8, 8, 8]


def test_an_exon_that_is_only_a_stop_codon_is_left_out() -> None:
    assert features_in("row\tAUGUSTUS\tCDS\t7\t6\t.\t+\t0\tx") == []


def test_a_line_that_is_not_gff_raises() -> None:
    with pytest.raises(ControlError, match=r"expected start, end and strand in the fields 4, 5 and 7"):
        features_in("row\tAUGUSTUS\tCDS\tone\t3\t.\t+\t0\tx")


def test_a_call_outside_the_row_raises() -> None:
    with pytest.raises(ControlError, match=r"in a row of 12 bp; expected it inside the row"):
        classes_of(features_in(GFF), 12)


def test_rows_without_a_call_and_over_the_time_limit_are_counted(home: Path) -> None:
    found = call_genes(["ACGTA", "TTTTTT", "CCCCC"], find_program(), limit_s=1.0)
    assert found.classes.tolist() == [8, 0, 0, 0, 8] + [8] * 11
    assert (found.without_call, found.over_time) == (2, 1)


def test_a_row_over_the_time_limit_is_tried_again_and_the_others_are_not(home: Path) -> None:
    program, rows = find_program(), ["ACGTA", "TTTTTT", "CCCCC"]
    first = call_genes(rows, program, limit_s=1.0)
    assert calls(home) == sorted(rows)
    again = call_genes(rows, program, limit_s=1.0)
    assert calls(home) == ["CCCCC"]
    assert again.classes.tolist() == first.classes.tolist()


@pytest.mark.parametrize("changed", ["version", "species/human/human_parameters.cfg"])
def test_another_version_or_other_parameters_call_again(home: Path, changed: str) -> None:
    call_genes(["ACGTA"], find_program())
    (home / changed).write_text("10.0")
    calls(home)
    call_genes(["ACGTA"], find_program())
    assert calls(home) == ["ACGTA"]


def test_an_error_names_what_the_program_said_and_a_repeated_run_resumes(home: Path) -> None:
    rows = ["ACGTA", "TTTTTT", "GGGGG"]
    with pytest.raises(ControlError, match=r"ended with status 1 and said 'it is broken'; expected 0"):
        call_genes(rows, find_program())
    (home / "repaired").touch()
    calls(home)
    found = call_genes(rows, find_program())
    assert calls(home) == ["GGGGG"]
    assert found.classes.tolist()[:5] == [8, 0, 0, 0, 8]


def test_a_killed_run_resumes(home: Path, tmp_path: Path) -> None:
    rows = ["ACGTA", "TTTTTT", "CCCCC"]
    code = f"from bend_hf.runs.controls.augustus import *; call_genes({rows!r}, find_program())"
    folder = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(folder)}, start_new_session=True
    )
    try:
        until = time.monotonic() + 60
        while len(list((tmp_path / "cache").glob("augustus/*/*.gff"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    calls(home)
    found = call_genes(rows, find_program(), limit_s=1.0)
    assert calls(home) == ["CCCCC"]
    assert (found.without_call, found.over_time) == (2, 1)


def test_without_the_program_the_control_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ControlError, match=r"'augustus' needs is not installed; .*apt-get install augustus"):
        run_controls(RunConfig(task=("gene_finding",), data="no such folder", out=tmp_path), ["augustus"])
    assert "augustus" not in chosen_controls(installed=True)


def test_without_its_parameters_the_program_is_refused(home: Path) -> None:
    shutil.rmtree(home / "species")
    with pytest.raises(ControlError, match=r"does not say where its parameters of 'human' lie"):
        find_program()


def test_a_control_that_needs_an_installation_is_run_only_if_asked_for(home: Path) -> None:
    assert chosen_controls(installed=False) == ["cpg", "gc", "kmer", "onehot", "prevalence", "random_twin"]
    assert "augustus" in chosen_controls(installed=True)
    assert not set(chosen_controls(installed=True)) & set(chosen_controls(installed=False))


def test_the_control_fits_tasks_with_the_classes_of_genes() -> None:
    control = CONTROLS.get("augustus")
    assert [task.key for task in TASKS if control.why_not(task) is None] == ["gene_finding"]


def test_the_record_states_version_source_license_and_training(home: Path, tmp_path: Path) -> None:
    data, out = write_data(tmp_path / "data", ("gene_finding",), n=20), tmp_path / "out"
    flags = ["controls", "gene_finding", "--data", str(data), "--out", str(out), "--seeds", "0"]
    assert main([*flags, "--control", "augustus"]) == 0
    (path,) = out.glob("*.json")
    record = json.loads(path.read_text())
    schema = json.loads((asset_folder("model_cards") / "result.schema.json").read_text())
    jsonschema.validate(record, schema)
    assert record["model"]["provenance"] == {
        "version": "9.9",
        "content_sha256": find_program().parameters_sha256,
        "source": "https://github.com/Gaius-Augustus/Augustus",
        "license": "Artistic-1.0",
        "trained_on": CONTROLS.get("augustus").provenance.trained_on,  # type: ignore[union-attr]
    }
    (training,) = record["training"]["runs"]
    assert training["rows_without_call"] == training["rows"] - sum(one.startswith("ACG") for one in calls(home))
    assert main(["report", str(out), "--out", str(tmp_path / "report")]) == 0
    assert "AUGUSTUS: version 9.9, license Artistic-1.0" in (tmp_path / "report" / "README.md").read_text()
    assert main(["verify", str(out), "--data", str(data)]) == 0
    (home / "version").write_text("10.0")  # another version is another run
    assert main([*flags, "--control", "augustus"]) == 0
    assert len(list(out.glob("*.json"))) == 2
    (home / "species" / "human" / "human_parameters.cfg").write_text("another")  # so are other parameters
    assert main([*flags, "--control", "augustus"]) == 0
    assert main([*flags, "--control", "augustus"]) == 0
    assert len(list(out.glob("*.json"))) == 3
    assert main(["verify", str(out), "--data", str(data)]) == 0


@pytest.mark.skipif(shutil.which("augustus") is None, reason="needs the program augustus on PATH")
def test_the_program_itself_finds_genes_on_both_strands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path))
    test = load_task("gene_finding", "sample").splits(None)["test"]
    rows = [row for row in test if len(row["sequence"]) < 3_000]
    program = find_program()
    sequences = [row["sequence"].upper() for row in rows]
    found = call_genes(sequences, program).classes
    labels = np.concatenate([np.asarray(row["labels"]) for row in rows])
    assert score("mcc", found, labels).value > 0.6
    ends = []
    for row, start in zip(rows, np.cumsum([0, *map(len, sequences[:-1])]), strict=True):
        of_row = found[start : start + len(row["sequence"])]
        coding, true = (np.flatnonzero(np.isin(one, (0, 4))) for one in (of_row, row["labels"]))
        ends.append(len(coding) > 0 and set(true[[0, -1]].tolist()) <= set(coding[[0, -1]].tolist()))
    assert any(ends), "of the right genes, the stop codon is not coding, as in the labels"
    mirrored = call_genes([reverse_complement(one) for one in sequences[:1]], program).classes[::-1]
    exchanged = np.array([4, 5, 6, 7, 0, 1, 2, 3, 8])[mirrored]
    assert (exchanged == found[: len(exchanged)]).mean() > 0.8, "the strands are exchanged, but for the row's ends"


def test_the_identity_holds_what_decides_the_calls() -> None:
    program = Program(path="/anywhere", version="3.5.0", parameters_sha256="0")
    assert set(program.identity) == {"version", "arguments", "parameters_sha256"}
