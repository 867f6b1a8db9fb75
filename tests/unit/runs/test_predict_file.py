"""Predictions of a trained head on new sequence, as files: coordinates, strands, endings, and what is left out."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyBigWig
import pytest

from bend_hf.cli._main import main
from bend_hf.config import RunConfig
from bend_hf.data.genome import Genome
from bend_hf.data.sequences import reverse_complement
from bend_hf.runs import predict_file as files
from bend_hf.runs import prediction_writers as writers
from bend_hf.runs import run as runs
from bend_hf.tasks import SequenceClass
from bend_hf.training.load_head import load_head
from bend_hf.training.trained_head import TrainedHead
from tests.tiny import write_bed, write_data

GENES, WINDOWS = "gene_finding", "cpg_methylation"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    data = write_data(folder / "data", (GENES, WINDOWS), n=20)
    runs.run(RunConfig(task=(GENES, WINDOWS), data=str(data), model="onehot", out=folder / "out", epochs=2))
    return folder


@pytest.fixture
def genome(folder: Path) -> Path:
    return folder / "data" / "genomes" / "genome.fa"


def contig(genome: Path, name: str) -> str:
    parts = (part.partition("\n") for part in genome.read_text().split(">")[1:])
    return {head: body.replace("\n", "") for head, _, body in parts}[name]


@pytest.fixture
def head(folder: Path) -> TrainedHead:
    return load_head(folder / "out", task=GENES)


def predict(folder: Path, *words: object, task: str = GENES) -> int:
    return main(["predict", "--head", str(folder / "out"), "--task", task, *map(str, words)])


def test_a_bed_file_gives_the_scores_of_its_sequences_at_their_places(
    folder: Path, genome: Path, tmp_path: Path, head: TrainedHead
) -> None:
    rows = [("chr1", 100, 160), ("chr2", 7, 70)]
    bed, out = write_bed(tmp_path / "a.bed", ("chromosome", "start", "end"), rows), tmp_path / "a.parquet"
    assert predict(folder, "--bed", bed, "--genome", genome, "--out", out) == 0
    table = pq.read_table(out)
    expected = head.predict([contig(genome, "chr1")[100:160], contig(genome, "chr2")[7:70]])
    scores = np.array(table["scores"].to_pylist(), np.float32)
    np.testing.assert_allclose(scores, np.concatenate([one.scores for one in expected]), atol=1e-6)
    assert table["predicted"].to_pylist() == expected[0].classes + expected[1].classes
    assert table["start"].to_pylist() == [*range(100, 160), *range(7, 70)]
    assert table["end"].to_pylist() == [*range(101, 161), *range(8, 71)]
    assert set(table["chromosome"].to_pylist()[:60]) == {"chr1"}
    assert json.loads(table.schema.metadata[b"label_names"]) == list(head.names)


def test_the_minus_strand_is_read_as_its_reverse_complement_and_written_in_genome_order(
    genome: Path, tmp_path: Path, head: TrainedHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainedHead, "piece_bp", 40)  # 100 nucleotides are three pieces, the short one at the left
    bed = write_bed(tmp_path / "a.bed", ("chromosome", "start", "end", "strand"), [("chr1", 100, 200, "-")])
    for stranded, sign in ((True, "-"), (False, ".")):
        intervals = files.intervals_of_bed(bed, stranded=stranded)
        files.predict_file(head, intervals, Genome(genome), tmp_path / "a.parquet")
        table = pq.read_table(tmp_path / "a.parquet")
        sequence = contig(genome, "chr1")[100:200]
        expected = head(reverse_complement(sequence) if stranded else sequence).classes
        assert table["start"].to_pylist() == list(range(100, 200))
        assert table["predicted"].to_pylist() == (expected[::-1] if stranded else expected)
        assert set(table["strand"].to_pylist()) == {sign}


def test_a_bed_of_classes_joins_neighbors_and_covers_each_interval(
    folder: Path, genome: Path, tmp_path: Path, head: TrainedHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PIECES_PER_READ", 1)  # runs go on over reads
    monkeypatch.setattr(TrainedHead, "piece_bp", 50)
    bed = write_bed(tmp_path / "a.bed", ("chromosome", "start", "end"), [("chr1", 0, 120)])
    assert predict(folder, "--bed", bed, "--genome", genome, "--out", tmp_path / "out.bed") == 0
    rows = [line.split("\t") for line in (tmp_path / "out.bed").read_text().splitlines()]
    classes = head(contig(genome, "chr1")[:120]).classes
    assert [name for row in rows for name in [row[3]] * (int(row[2]) - int(row[1]))] == classes
    assert all(one[2] == two[1] and one[3] != two[3] for one, two in pairwise(rows))
    assert all(0 <= int(row[4]) <= 1000 for row in rows)


def test_a_bedgraph_holds_the_score_of_one_label(
    folder: Path, genome: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta = tmp_path / "mine.fa"
    fasta.write_text(f">one\n{contig(genome, 'chr1')[:1100]}\n>two\n{contig(genome, 'chr2')[:512]}\n")
    head = load_head(folder / "out", task=WINDOWS)
    words = ("--fasta", fasta, "--out", tmp_path / "x.bedgraph", "--label", head.names[3])
    assert predict(folder, *words, "--json", task=WINDOWS) == 0
    rows = [line.split("\t") for line in (tmp_path / "x.bedgraph").read_text().splitlines()]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        ("one", "0", "512"),
        ("one", "512", "1024"),
        ("two", "0", "512"),
    ]
    expected = head(contig(genome, "chr1")[512:1024]).scores[0, 3]
    assert float(rows[1][3]) == pytest.approx(expected, abs=1e-6)
    assert json.loads(capsys.readouterr().out)["n_left_out_bp"] == 76


def test_a_bigwig_holds_what_the_bedgraph_holds(
    folder: Path, genome: Path, tmp_path: Path, head: TrainedHead, capsys: pytest.CaptureFixture[str]
) -> None:
    bed = write_bed(
        tmp_path / "a.bed", ("chromosome", "start", "end"), [("chr2", 9, 60), ("chr1", 90, 120), ("chr1", 3, 50)]
    )
    words = ("--bed", bed, "--genome", genome, "--label", head.names[1], "--out")
    for name in ("x.bedgraph", "x.bw"):
        assert predict(folder, *words, tmp_path / name) == 0
    rows = [line.split("\t") for line in (tmp_path / "x.bedgraph").read_text().splitlines()]
    with pyBigWig.open(str(tmp_path / "x.bw")) as file:
        assert file.chroms() == Genome(genome).contigs
        found = {
            (name, start, end): value for name in file.chroms() for start, end, value in file.intervals(name) or ()
        }
    assert found.keys() == {(name, int(start), int(end)) for name, start, end, _ in rows}
    for name, start, end, value in rows:
        assert found[name, int(start), int(end)] == pytest.approx(float(value), abs=1e-6)
    write_bed(bed, ("chromosome", "start", "end"), [("chr1", 3, 50), ("chr1", 40, 90)])
    capsys.readouterr()
    assert predict(folder, *words, tmp_path / "y.bw") == 1
    assert re.search(r"line 3 overlaps .*line 2, but a bigWig holds one", capsys.readouterr().err)
    assert not (tmp_path / "y.bw").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "x.bw"), "holds one label; choose with --label"),
        (("--out", "x.txt"), "ends with '.txt'; expected .parquet, .bed, .bedgraph, .bw"),
        (("--out", "x.bedgraph"), "holds one label; choose with --label"),
        (("--out", "x.bedgraph", "--label", "intron"), "--label 'intron' is unknown; did you mean 'intron"),
        (("--out", "x.bed", "--label", "exon"), "holds all labels; leave it out"),
        (("--out", "x.bed", "--genome", "g.fa"), "only --bed reads a genome"),
        (("--out", "x.bed", "--bed", "a.bed"), "give either --bed FILE with --genome FILE, or --fasta FILE"),
    ],
)
def test_what_cannot_be_written_is_refused(
    folder: Path, genome: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(folder, "--fasta", genome, *words) == 2
    assert message in capsys.readouterr().err


def test_an_interval_that_is_too_short_or_leaves_the_genome_is_named(
    folder: Path, genome: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for row, message in ((("chr1", 5, 500), "line 2: the interval has 495 nucleotides"), (("chr9", 0, 600), "'chr9'")):
        bed = write_bed(tmp_path / "a.bed", ("chromosome", "start", "end"), [row])
        assert predict(folder, "--bed", bed, "--genome", genome, "--out", tmp_path / "x.bed", task=WINDOWS) != 0
        assert message in capsys.readouterr().err
        assert not (tmp_path / "x.bed").exists()


@pytest.mark.parametrize("ending", ["bed", "bedgraph"])
def test_a_contig_with_quotes_is_written_as_it_is(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    with writers.writer_of(path, SequenceClass(names=("no", "yes")), None, {})(path) as write:
        write(
            writers.Rows(
                chromosome=pa.DictionaryArray.from_arrays(np.zeros(1, np.int32), ['c,"1"']),
                start_bp=np.array([5]),
                end_bp=np.array([9]),
                strand=None,
                scores=np.array([[0.25, 0.75]], np.float32),
                predicted=np.array([1]),
            )
        )
    assert path.read_text() == f'c,"1"\t5\t9\t{"yes	750	." if ending == "bed" else "0.75"}\n'
