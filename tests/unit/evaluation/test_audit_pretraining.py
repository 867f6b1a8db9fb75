"""What a model has seen of the test rows: nucleotides and 31-mers, against naive counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bend_hf.cli._main import main
from bend_hf.data.sequences import reverse_complement
from bend_hf.embedders import MODELS
from bend_hf.errors import InputError
from bend_hf.evaluation.audit import pretraining
from bend_hf.evaluation.audit.pretraining import pretraining_of_model, pretraining_overlap, seen_in_words
from bend_hf.evaluation.audit.rows import read_rows
from tests.audit_tasks import Row, random_sequence, task_data

K = pretraining.SEEN_BP


def genome_and_rows(tmp_path: Path) -> tuple[Path, str, list[Row]]:
    """A chromosome, and test rows of 100 bp on it, every second one read from the other strand."""
    rng = np.random.default_rng(0)
    chromosome = random_sequence(rng, 2000)
    fasta = tmp_path / "genome.fa"
    fasta.write_text(f">chr1\n{chromosome}\n")
    rows = []
    for start in range(0, 1900, 90):
        sequence = chromosome[start : start + 100]
        rows.append(
            Row(sequence=reverse_complement(sequence) if start % 180 else sequence, chromosome="chr1", start=start)
        )
    return fasta, chromosome, rows


def test_shares_are_those_of_a_naive_count(tmp_path: Path) -> None:
    fasta, chromosome, rows = genome_and_rows(tmp_path)
    regions = [(50, 420), (400, 900), (1500, 1531)]
    bed = tmp_path / "pretraining.bed"
    bed.write_text("chromosome\tstart\tend\n" + "".join(f"chr1\t{a}\t{b}\n" for a, b in regions))
    data = task_data({"train": [Row(sequence="ACGT" * 30)], "test": rows})
    found = pretraining_overlap(read_rows(data), bed, fasta)
    seen = {at for a, b in regions for at in range(a, b)}
    joined = [(50, 900), (1500, 1531)]
    known = {chromosome[at : at + K] for a, b in joined for at in range(a, b - K + 1)}
    known |= {reverse_complement(word) for word in known}
    assert found.nucleotide_share is not None
    for row, nucleotides, kmers in zip(rows, found.nucleotide_share, found.kmer_share, strict=True):
        assert nucleotides == pytest.approx(sum(at in seen for at in range(row.start, row.start + 100)) / 100)
        words = [row.sequence[at : at + K] in known for at in range(100 - K + 1)]
        assert kmers == pytest.approx(sum(words) / len(words))
    assert found.unseen.tolist() == [not any(at in seen for at in range(row.start, row.start + 100)) for row in rows]
    assert found.row.tolist() == list(range(1, len(rows) + 1))


def test_a_fasta_file_gives_31mers_only(tmp_path: Path) -> None:
    _, chromosome, rows = genome_and_rows(tmp_path)
    seen = tmp_path / "seen.fa"
    seen.write_text(f">a\n{reverse_complement(chromosome[:500])}\n")
    found = pretraining_overlap(read_rows(task_data({"train": rows[:1], "test": rows})), seen, None)
    assert found.nucleotide_share is None
    assert found.kmer_share[:4].tolist() == [1.0] * 4
    assert found.kmer_share[-4:].tolist() == [0.0] * 4


def test_a_sample_of_31mers_estimates_the_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    sequence = random_sequence(rng, 20_000)
    seen = tmp_path / "seen.fa"
    seen.write_text(f">a\n{sequence[:10_000]}\n")
    monkeypatch.setattr(pretraining, "MAX_KMERS", 4000)
    rows = read_rows(task_data({"train": [Row(sequence="ACGT" * 30)], "test": [Row(sequence=sequence)]}))
    found = pretraining_overlap(rows, seen, None)
    assert found.sampling == pytest.approx(0.2, abs=0.01)
    assert found.kmer_share[0] == pytest.approx(0.5, abs=0.05)


def test_regions_of_another_genome_are_refused(tmp_path: Path) -> None:
    fasta, _, rows = genome_and_rows(tmp_path)
    bed = tmp_path / "pretraining.bed"
    bed.write_text("chromosome\tstart\tend\nchr2\t0\t50\n")
    table = read_rows(task_data({"train": rows[:1], "test": rows}))
    with pytest.raises(InputError, match=r"names 'chr2'.*give the genome of the regions as --pretraining-genome"):
        pretraining_overlap(table, bed, fasta)
    with pytest.raises(InputError, match="no genome is given"):
        pretraining_overlap(table, bed, None)


def test_the_regions_of_bend_mini_are_those_of_its_training() -> None:
    import hashlib

    path = pretraining_of_model("bend-mini")
    assert path is not None
    lines = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    places = "\n".join(f"{name}:{start}-{end}" for name, start, end in lines)
    trained = json.loads((path.parent / "training.json").read_text())["data"]
    assert hashlib.sha256(places.encode()).hexdigest() == trained["train_sha256"]
    assert sum(int(end) - int(start) for _, start, end in lines) == trained["train_bp"]


def test_models_of_the_whole_human_genome_have_no_unseen_row() -> None:
    human = [spec.key for spec in MODELS if spec.trained_on_human_genome]
    assert {"dnabert6", "dnabert2", "grover"} <= set(human)
    for key in human:
        assert "no test row of a human task can be taken as unseen" in seen_in_words(key)
    for spec in MODELS:
        assert bool(spec.training_data) == (spec.source != "none"), f"{spec.key} must say what it was pretrained on"
        among = any(word in spec.training_data for word in ("human", "hg19", "GRCh", "many species", "unknown"))
        assert spec.trained_on_human_genome == (among and pretraining_of_model(spec.key) is None), spec.key
    assert "it has seen no test row of a human task" in seen_in_words("gpn-brassicales")
    assert "not known" in seen_in_words("someone/her-model")
    assert seen_in_words("awdlstm").startswith("What awdlstm was pretrained on is not confirmed: no test row")
    assert "assembly and regions unknown" in seen_in_words("caduceus-ph")


def test_the_command_scores_the_unseen_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(2)
    chromosome = random_sequence(rng, 6000)
    (tmp_path / "genome.fa").write_text(f">chr1\n{chromosome}\n")
    (tmp_path / "seen.bed").write_text("chromosome\tstart\tend\nchr1\t0\t5000\n")
    lines = [
        f"chr1\t{start}\t{start + 100}\t{'test' if start >= 3000 else 'train'}\t{start // 100 % 2}"
        for start in range(0, 6000, 100)
    ]
    bed = tmp_path / "mine.bed"
    bed.write_text("\n".join(["chromosome\tstart\tend\tsplit\tlabel", *lines]) + "\n")
    flags = ["--bed", str(bed), "--genome", str(tmp_path / "genome.fa"), "--out", str(tmp_path / "out")]
    assert main(["audit", *flags, "--pretraining", str(tmp_path / "seen.bed")]) == 0
    assert "Of 30 tested rows, 10 are unseen in seen.bed" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "mine.audit.json").read_text())
    assert summary["pretraining"]["nucleotides_seen"]["mean"] == pytest.approx(2 / 3)
