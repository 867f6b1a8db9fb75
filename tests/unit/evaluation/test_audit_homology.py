"""Homologs that aligners find, and agreement with seqleak, another audit of splits."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bend_hf.cli._main import main
from bend_hf.errors import BendError, ConfigError
from bend_hf.evaluation.audit.homology import find_homologs, hits_of_minimap2, hits_of_mmseqs
from bend_hf.evaluation.audit.rows import read_rows
from bend_hf.evaluation.audit.task_audit import audit_in_words, audit_task
from tests.audit_tasks import Row, class_task, mutated, random_sequence, task_data

Shares: TypeAlias = dict[str, float]

PAF = (
    "2\t400\t10\t390\t-\t0\t400\t0\t380\t330\t395\t60\ttp:A:P\tcm:i:30\n"  # 330 / 395 = 84 %, 95 % of the row
    "2\t400\t0\t100\t+\t1\t400\t0\t100\t100\t100\t60\n"  # a quarter of the row
    "3\t400\t0\t400\t+\t1\t400\t0\t400\t200\t400\t60\ttp:A:P\n"  # half of the letters
)
MMSEQS = "2\t0\t0.835\t390\t11\t400\n2\t1\t1.000\t1\t100\t400\n3\t1\t0.500\t1\t400\t400\n"


def program(folder: Path, name: str, text: str, *, status: int = 0) -> None:
    """A program that writes fixed alignments: to standard output, or into the third file of easy-search."""
    folder.mkdir(exist_ok=True)
    (folder / "alignments").write_text(text)
    target = '"$4"' if name == "mmseqs" else "/dev/stdout"
    version = "case $1 in *version) echo 9.9-r1; exit 0;; esac"
    (folder / name).write_text(
        f"#!/bin/sh\n{version}\ncat {folder}/alignments > {target}\necho no >&2\nexit {status}\n"
    )
    (folder / name).chmod(0o755)


def rows_of(n_test: int = 2) -> dict[str, list[Row]]:
    rng = np.random.default_rng(0)
    train = [Row(sequence=random_sequence(rng, 400)) for _ in range(2)]
    return {"train": train, "test": [Row(sequence=random_sequence(rng, 400)) for _ in range(n_test)]}


@pytest.mark.parametrize(("name", "text"), [("minimap2", PAF), ("mmseqs", MMSEQS)])
def test_alignments_of_either_program_are_read(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", name, text)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    audit = audit_task(task_data(rows_of()), homology=name)  # type: ignore[arg-type]  # one of the two
    assert audit.rows["homolog"].to_pylist() == [False, False, True, False]
    found = audit.summary["homology"]
    assert found["tool"] == f"{name} 9.9-r1"
    assert found["splits"]["test"] == {"rows": 1, "share": 0.5, "not_among_leaks": 1}
    assert "1 rows of test (50.00%) have a homolog" in audit_in_words(audit.as_json())


def test_identity_and_coverage_worked_by_hand(tmp_path: Path) -> None:
    paf, table = tmp_path / "hits.paf", tmp_path / "hits.tsv"
    paf.write_text(PAF)
    table.write_text(MMSEQS)
    for found in (hits_of_minimap2(paf), hits_of_mmseqs(table)):
        assert found.row.tolist() == [2, 2, 3]
        assert found.other.tolist() == [0, 1, 1]
        assert found.coverage.tolist() == [0.95, 0.25, 1.0]
        assert found.identity == pytest.approx([0.835, 1.0, 0.5], abs=1e-3)
    table.write_text("2\t0\t83.5\t390\t11\t400\n")
    assert hits_of_mmseqs(table).identity.tolist() == [0.835], "older releases write percent"
    table.write_text("")
    assert len(hits_of_mmseqs(table).row) == 0


def test_hits_in_a_later_split_or_the_same_one_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(
        tmp_path / "bin", "minimap2", "".join(f"{a}\t9\t0\t9\t+\t{b}\t9\t0\t9\t9\t9\t60\n" for a, b in [(2, 2), (2, 3)])
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    found = find_homologs(read_rows(task_data(rows_of())), "minimap2")
    assert not isinstance(found, str)
    assert not found.found.any()


def test_without_a_program_the_audit_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    audit = audit_task(task_data(rows_of()), homology="auto")
    assert audit.summary["homology"] == {"left_out": "none of mmseqs, minimap2 is installed"}
    assert "Homologs with gaps were not looked for" in audit_in_words(audit.as_json())
    with pytest.raises(ConfigError, match="no program 'mmseqs' is on the PATH"):
        audit_task(task_data(rows_of()), homology="mmseqs")


def test_a_program_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "minimap2", "", status=3)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(BendError, match="minimap2 failed with status 3: no; leave it out with --homology off"):
        audit_task(task_data(rows_of()), homology="minimap2")


def with_gaps(rng: np.random.Generator, sequence: str) -> str:
    """A relative: one letter in twelve replaced, and every 50 nucleotides one inserted and one deleted."""
    letters = list(mutated(rng, sequence, 1 / 12))
    for at in range(len(letters) - 25, 0, -50):
        letters.insert(at, rng.choice(list("ACGT")))
        del letters[at - 12]
    return "".join(letters)


@pytest.mark.parametrize("name", ["minimap2", "mmseqs"])
def test_relatives_with_gaps_are_found(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    rng = np.random.default_rng(1)
    train = [Row(sequence=random_sequence(rng, 600)) for _ in range(60)]
    plants = [Row(sequence=with_gaps(rng, row.sequence)) for row in train[:20]]
    clean = [Row(sequence=random_sequence(rng, 600)) for _ in range(20)]
    audit = audit_task(task_data({"train": train, "test": clean + plants}), homology=name)  # type: ignore[arg-type]  # one of the two
    assert not audit.homologs[60:80].any()
    assert audit.homologs[80:].all()
    assert audit.summary["homology"]["splits"]["test"]["rows"] == 20


def test_the_command_takes_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["audit", "cpg_methylation", "--data", "sample", "--out", str(tmp_path)]
    assert main([*command, "--homology", "off"]) == 0
    assert "omolog" not in capsys.readouterr().out


def complement(sequence: str) -> str:
    return sequence[::-1].translate(str.maketrans("ACGT", "TGCA"))


def shifted(rng: np.random.Generator, sequence: str) -> str:
    """The second two thirds of a sequence, followed by other letters."""
    third = len(sequence) // 3
    return sequence[third:] + random_sequence(rng, third)


PLANTS: dict[str, tuple[str, str, Callable[[np.random.Generator, str], str]]] = {
    "copy": ("overlap.exact", "copy", lambda rng, sequence: sequence),
    "copy of the other strand": ("overlap.exact", "copy", lambda rng, sequence: complement(sequence)),
    "one letter in 100": ("overlap.near", "near", lambda rng, sequence: mutated(rng, sequence, 0.01)),
    "one letter in 100, other strand": (
        "overlap.near",
        "near",
        lambda rng, sequence: complement(mutated(rng, sequence, 0.01)),
    ),
    "shifted": ("overlap.windows", "leak", shifted),
    "none": ("overlap.windows", "leak", lambda rng, sequence: random_sequence(rng, len(sequence))),
}


def audits_of(splits: Mapping[str, list[Row]], folder: Path, *, with_places: bool = False) -> tuple[pa.Table, Shares]:
    """The tested rows as this package audits them, and the share that each check of seqleak finds."""
    seqleak = pytest.importorskip("seqleak.audit", reason="seqleak is not installed; it is the extra 'audit'")
    audit = audit_task(task_data(splits, class_task()))
    rows = [(row, split) for split, rows in splits.items() for row in rows]
    table = pd.DataFrame(
        [(row.sequence, int(row.labels[0]), split) for row, split in rows], columns=["sequence", "label", "split"]
    )
    if with_places:
        table["chrom"] = [row.chromosome for row, _ in rows]
        table["start"] = [row.start for row, _ in rows]
        table["end"] = [row.start + len(row.sequence) for row, _ in rows]
    table.to_csv(folder / "task.csv", index=False)
    checks = ["overlap.exact", "overlap.near", "overlap.windows"]
    theirs, _ = seqleak.run_audit(seqleak.load_task(data=[str(folder / "task.csv")]), checks=checks, quiet=True)
    return audit.rows.slice(len(splits["train"])), {name: one["value"] for name, one in theirs["checks"].items()}


@pytest.mark.parametrize("plant", PLANTS)
def test_seqleak_agrees_on_planted_copies(tmp_path: Path, plant: str) -> None:
    rng = np.random.default_rng(3)
    train = [Row(sequence=random_sequence(rng, 300), labels=(number % 2,)) for number in range(200)]
    check, column, make = PLANTS[plant]
    plants = [Row(sequence=make(rng, row.sequence), labels=row.labels) for row in train[:20]]
    clean = [Row(sequence=random_sequence(rng, 300), labels=(number % 2,)) for number in range(40)]
    tested, theirs = audits_of({"train": train, "test": [*clean, *plants]}, tmp_path)
    found = tested[column].to_pylist()
    assert found == [False] * 40 + [plant != "none"] * 20
    assert theirs[check] == pytest.approx(sum(found) / 60)


def test_seqleak_agrees_on_overlapping_places(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    train = [
        Row(sequence=random_sequence(rng, 300), labels=(n % 2,), chromosome="chr1", start=1000 * n) for n in range(100)
    ]
    places = [*(1000 * n + 299 for n in range(15)), *(1000 * n + 300 for n in range(15, 40))]  # one letter, and none
    test = [
        Row(sequence=random_sequence(rng, 300), labels=(n % 2,), chromosome="chr1", start=at)
        for n, at in enumerate(places)
    ]
    tested, theirs = audits_of({"train": train, "test": test}, tmp_path, with_places=True)
    assert tested["overlap"].to_pylist() == [True] * 15 + [False] * 25
    assert theirs["overlap.windows"] == pytest.approx(15 / 40)
