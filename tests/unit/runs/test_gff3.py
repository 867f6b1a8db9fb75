"""GFF3 of predicted genes, read back with a small parser of its own that holds files to the specification."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from bend_hf.cli._main import main
from bend_hf.config import RunConfig
from bend_hf.data.genome import Genome
from bend_hf.runs.gff3 import HEADER, genes_of, gff3_text
from bend_hf.runs.run import run
from bend_hf.training.gene_grammar import TRANSITIONS, Grammar, decode
from tests.tiny import write_bed, write_data

COMPLEMENT = str.maketrans("ACGT", "TGCA")


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One line: coordinates are 1-based and closed."""

    seqid: str
    kind: str
    start: int
    end: int
    strand: str
    phase: str
    attributes: dict[str, str]


def parsed(text: str) -> list[Feature]:
    """Read a file, and check what the specification asks of each line and of the links between them."""
    first, *lines = text.splitlines()
    assert first == "##gff-version 3"
    found = []
    for line in lines:
        columns = line.split("\t")
        assert len(columns) == 9
        seqid, source, kind, start, end, score, strand, phase, attributes = columns
        assert re.fullmatch(r"([a-zA-Z0-9.:^*$@!+_?|-]|%[0-9A-F]{2})+", seqid)
        assert (source, score) == ("bend_hf", ".")
        assert 1 <= int(start) <= int(end)
        assert strand in ("+", "-")
        assert phase in ("0", "1", "2") if kind == "CDS" else phase == "."
        pairs = dict(one.split("=") for one in attributes.split(";"))
        found.append(
            Feature(
                seqid=unquote(seqid),
                kind=kind,
                start=int(start),
                end=int(end),
                strand=strand,
                phase=phase,
                attributes=pairs,
            )
        )
    by_id: dict[str, list[Feature]] = defaultdict(list)
    for one in found:
        by_id[one.attributes["ID"]].append(one)
    for name, features in by_id.items():
        kinds = {one.kind for one in features}
        assert len(kinds) == 1, f"{name} names features of several kinds"
        assert kinds == {"CDS"} or len(features) == 1, "only a CDS has several lines"
    for one in found:
        if one.kind == "gene":
            assert "Parent" not in one.attributes
            continue
        (parent,) = by_id[one.attributes["Parent"]]
        assert parent.kind == {"CDS": "mRNA", "mRNA": "gene"}[one.kind]
        assert (parent.seqid, parent.strand) == (one.seqid, one.strand)
        assert parent.start <= one.start <= one.end <= parent.end
    return found


def coding_sequences(features: list[Feature], sequences: dict[str, str]) -> dict[str, tuple[str, list[Feature]]]:
    """The coding sequence of each mRNA, from its first whole codon on; checks the phase of each line on the way."""
    of_mrna: dict[str, list[Feature]] = defaultdict(list)
    for one in features:
        if one.kind == "CDS":
            of_mrna[one.attributes["Parent"]].append(one)
    found = {}
    for name, parts in of_mrna.items():
        ordered = sorted(parts, key=lambda one: one.start, reverse=parts[0].strand == "-")
        text = ""
        for number, one in enumerate(ordered):
            part = sequences[one.seqid][one.start - 1 : one.end].upper()
            text += part[::-1].translate(COMPLEMENT) if one.strand == "-" else part
            if number == 0:
                text = text[int(one.phase) :]
            else:
                before = len(text) - len(part)
                assert int(one.phase) == -before % 3, "nucleotides to skip to the next codon"
        found[name] = (text, ordered)
    return found


def write(classes: str, start_bp: int = 0, name: str = "chr1") -> str:
    genes = genes_of(np.array([int(one) for one in classes]), np.array([len(classes)]))
    return HEADER + gff3_text(genes, [name], np.array([start_bp]))


def lines_of(text: str, kind: str) -> list[tuple[int, int, str, str]]:
    return [(one.start, one.end, one.strand, one.phase) for one in parsed(text) if one.kind == kind]


def test_coordinates_are_1_based_and_closed() -> None:
    text = write("8800012230888", start_bp=1000)
    assert lines_of(text, "CDS") == [(1003, 1005, "+", "0"), (1010, 1010, "+", "0")]
    assert lines_of(text, "mRNA") == lines_of(text, "gene") == [(1003, 1010, "+", ".")]
    assert "partial" not in text


def test_phases_count_from_the_right_on_the_minus_strand() -> None:
    # 5' end on the right: an exon of two, then one of five, then one of two nucleotides
    assert lines_of(write("8447665444447665448"), "CDS") == [(2, 3, "-", "2"), (8, 12, "-", "1"), (17, 18, "-", "0")]


def test_the_phase_of_a_cut_gene_follows_from_its_known_end() -> None:
    assert lines_of(write("000012230008"), "CDS") == [(1, 4, "+", "1"), (9, 11, "+", "0")]
    assert lines_of(write("844447665444"), "CDS") == [(2, 5, "-", "1"), (10, 12, "-", "1")]
    assert "partial=true" in write("00008")
    both = write("0000")
    assert lines_of(both, "CDS") == [(1, 4, "+", "0")]


def test_an_intron_that_the_row_cuts_belongs_to_no_line() -> None:
    text = write("22300088")
    assert lines_of(text, "mRNA") == [(4, 6, "+", ".")]
    assert "partial=true" in text


def test_genes_of_several_rows_are_numbered_and_placed() -> None:
    genes = genes_of(np.array([8, 0, 0, 8, 4, 4, 4]), np.array([3, 4]))
    text = HEADER + gff3_text(genes, ["a b", "c;d=%"], np.array([0, 50]), n_before=4)
    found = parsed(text)
    assert [one.attributes["ID"] for one in found if one.kind == "gene"] == ["gene5", "gene6"]
    assert [(one.seqid, one.start, one.end) for one in found if one.kind == "CDS"] == [("a b", 2, 3), ("c;d=%", 52, 54)]


def test_no_gene_gives_the_header_only() -> None:
    assert write("8888") == HEADER


def genes_of_noise() -> tuple[str, str]:
    """GFF3 of many genes that the grammar finds in noise, and the sequence of their chromosome, chr1."""
    rng = np.random.default_rng(0)
    n = 40_000
    letters = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, n)]
    emissions = rng.standard_normal((n, 9)).astype(np.float32) * 3
    emissions[:, [1, 3, 5, 7]] -= 2
    rules = Grammar(log_transitions=dict.fromkeys(TRANSITIONS, 0.0))
    classes = decode(emissions, np.array([n]), letters, rules)
    text = HEADER + gff3_text(genes_of(classes, np.array([n])), ["chr1"], np.array([0]))
    return text, letters.tobytes().decode()


def test_whole_genes_of_the_grammar_are_open_reading_frames() -> None:
    text, sequence = genes_of_noise()
    features = parsed(text)
    whole = {one.attributes["ID"] for one in features if one.kind == "mRNA" and "partial" not in one.attributes}
    coding = coding_sequences(features, {"chr1": sequence})
    assert len(whole) > 200
    assert all(len(coding[name][0]) % 3 == 0 for name in whole)
    one_exon = [coding[name][0] for name in whole if len(coding[name][1]) == 1]
    assert len(one_exon) > 100
    inner = [text[at : at + 3] for text in one_exon for at in range(0, len(text) - 3, 3)]
    assert not {"TAA", "TAG", "TGA"} & set(inner)


@pytest.mark.skipif(shutil.which("gffread") is None, reason="needs the program gffread on PATH")
def test_gffread_reads_the_same_coding_sequences(tmp_path: Path) -> None:
    text, sequence = genes_of_noise()
    (tmp_path / "genes.gff3").write_text(text)
    (tmp_path / "chr1.fa").write_text(f">chr1\n{sequence}\n")
    command = ["gffread", "-E", "genes.gff3", "-g", "chr1.fa", "-x", "coding.fa"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    features, coding = parsed(text), coding_sequences(parsed(text), {"chr1": sequence})
    said = {line for line in done.stderr.splitlines() if re.search("warning|error", line, re.IGNORECASE)}
    said -= {line for line in said if re.search(r"CDS \d+-\d+ too short", line)}  # one codon, in noise
    split = {name for name, (own, parts) in coding.items() if splits_a_stop_codon(own, parts)}  # which is not seen
    assert said == {f"Warning: In-frame STOP found for '{name}'" for name in split}
    records = (one.partition("\n") for one in (tmp_path / "coding.fa").read_text().split(">")[1:])
    read = {name.split()[0]: lines.replace("\n", "") for name, _, lines in records}
    assert set(read) == {one.attributes["ID"] for one in features if one.kind == "mRNA"}
    assert all(read[name] == own for name, (own, _) in coding.items())


def splits_a_stop_codon(coding: str, parts: list[Feature]) -> bool:
    """Whether an intron lies inside a stop codon in frame, before the last codon."""
    ends = np.cumsum([one.end - one.start + 1 for one in parts]) - int(parts[0].phase)
    stops = [at for at in range(0, len(coding) - 3, 3) if coding[at : at + 3] in ("TAA", "TAG", "TGA")]
    return any(at < end < at + 3 for at in stops for end in ends)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("head")
    config = RunConfig(
        task=("gene_finding",),
        data=str(write_data(out / "data", ("gene_finding",), n=40)),
        seeds=(0,),
        model="onehot",
        protocol="bend-hf-1",
        decode="grammar",
        head="linear",
        learning_rate=0.01,
        epochs=1,
        out=out / "results",
    )
    return run(config)[0].path


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    texts = ("".join(rng.choice(list("ACGT"), n)) for n in (3000, 700))
    path = tmp_path / "a.fa"
    path.write_text("".join(f">c{number}\n{text}\n" for number, text in enumerate(texts)))
    return path


def test_predict_writes_genes_that_others_can_read(head: Path, fasta: Path, tmp_path: Path) -> None:
    gff3, bed = tmp_path / "genes.gff3", tmp_path / "classes.bed"
    words = ["predict", "--head", head, "--fasta", fasta, "--decode", "grammar", "--gff3", gff3, "--out", bed]
    assert main([str(word) for word in words]) == 0
    features = parsed(gff3.read_text())
    sequences = {name: text for name, _, text in (part.partition("\n") for part in fasta.read_text().split(">")[1:])}
    coding_sequences(features, {name: text.strip() for name, text in sequences.items()})
    of_bed = [line.split("\t") for line in bed.read_text().splitlines()]
    cds = {(name, int(start) + 1, int(end)) for name, start, end, kind, *_ in of_bed if kind in ("cds+", "cds-")}
    assert cds == {(one.seqid, one.start, one.end) for one in features if one.kind == "CDS"}


def test_intervals_of_a_bed_file_keep_their_place(head: Path, fasta: Path, tmp_path: Path) -> None:
    bed = write_bed(tmp_path / "b.bed", ("chromosome", "start", "end"), [("c0", 500, 2500), ("c1", 0, 700)])
    gff3 = tmp_path / "genes.gff3"
    words = ["predict", "--head", head, "--bed", bed, "--genome", fasta, "--decode", "grammar", "--gff3", gff3]
    assert main([str(word) for word in words]) == 0
    assert all(500 < one.start <= one.end <= 2500 for one in parsed(gff3.read_text()) if one.seqid == "c0")
    assert Genome(fasta).contigs == {"c0": 3000, "c1": 700}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gff3", "g.gff3"], "--gff3 is g.gff3, but only --decode grammar gives genes"),
        ([], "nothing is to be written"),
        (["--decode", "grammar"], "nothing is to be written"),
        (["--decode", "grammar", "--gff3", "g", "--label", "cds+"], "--label is cds+, but only an --out file"),
    ],
)
def test_flags_without_effect_are_refused(
    words: list[str], message: str, fasta: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "--head", "none", "--fasta", str(fasta), *words]) != 0
    assert message in capsys.readouterr().err


def test_a_head_without_a_grammar_is_refused(fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(write_data(tmp_path / "data", ("gene_finding",), n=20))
    config = RunConfig(task=("gene_finding",), data=data, model="onehot", epochs=1, seeds=(0,), out=tmp_path / "out")
    head = run(config)[0].path
    words = ["--fasta", fasta, "--decode", "grammar", "--gff3", tmp_path / "g.gff3"]
    assert main(["predict", "--head", str(head), *map(str, words)]) != 0
    assert "was trained without a grammar of genes; leave --decode out" in capsys.readouterr().err
    assert not (tmp_path / "g.gff3").exists()
