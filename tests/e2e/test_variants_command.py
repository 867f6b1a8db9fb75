"""``bend-hf variants`` from file to figure: BED and VCF, with labels and without, interrupted and resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate import Accelerator

from bend_hf import score_file
from bend_hf.cli._main import main
from bend_hf.embedders import load_embedder
from bend_hf.embedders._embedder import Embedder
from bend_hf.errors import ConfigError, RecordError
from bend_hf.evaluation.predictions import read_predictions
from bend_hf.evaluation.record import read_record
from bend_hf.variants import SCORES, ScoreSettings, VariantRun, read_variants, score_variants
from bend_hf.variants import score as scoring
from bend_hf.variants.batch import VariantModel
from bend_hf.variants.checkpoint import ScoringCheckpoint
from tests.fake_checkpoints import make_tiny
from tests.tiny import write_bed, write_genome
from tests.variant_controls import Markov, MarksG

N = 40
KEY = "nt_transformer_human_ref"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A genome, the same variants as BED and VCF, three of them at every fourth site, and a tiny model."""
    out = tmp_path_factory.mktemp("variants")
    letters = write_genome(out / "genome.fa")
    rng = np.random.default_rng(0)
    rows, lines = [], []
    for number, at in enumerate(np.sort(rng.choice(110_000, N, replace=False)).tolist()):
        base = letters["chr1"][at]
        alts = [other for other in "ACGT" if other != base][: 3 if number % 4 == 0 else 1]
        labels = [(number + k) % 2 for k in range(len(alts))]
        kind = ("missense", "synonymous")[number // 2 % 2]
        rows += [("chr1", at, at + 1, base, alt, label, kind) for alt, label in zip(alts, labels, strict=True)]
        info = f"label={','.join(map(str, labels))};full_label={kind}"
        lines.append(f"chr1\t{at + 1}\t.\t{base}\t{','.join(alts)}\t.\tPASS\t{info}")
    write_bed(out / "mine.bed", ("chromosome", "start", "end", "ref", "alt", "label", "full_label"), rows)
    write_bed(out / "bare.bed", ("chromosome", "start", "end", "ref", "alt"), [row[:5] for row in rows])
    header = '##fileformat=VCFv4.2\n##INFO=<ID=label,Number=A,Type=Integer,Description="class">\n'
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (out / "mine.vcf").write_text(header + columns + "".join(line + "\n" for line in lines))
    make_tiny(KEY, out / "model")
    return out


def tiny_model(folder: Path) -> Embedder:
    return load_embedder(KEY, checkpoint=folder / "model", random_init=True, device="cpu")


def config(folder: Path, out: Path, **options: object) -> VariantRun:
    return VariantRun(genome=folder / "genome.fa", out=out, **options)  # type: ignore[arg-type]


def test_single_settings_give_the_scores_of_a_configuration(folder: Path, tmp_path: Path) -> None:
    embedder = tiny_model(folder)
    whole = score_file(folder / "mine.vcf", config(folder, tmp_path / "whole", no_plot=True), embedder=embedder)
    out = str(tmp_path / "single")
    genome = str(folder / "genome.fa")
    single = score_file(str(folder / "mine.vcf"), genome=genome, out=out, no_plot=True, embedder=embedder)
    assert single.predictions.table() == whole.predictions.table()
    assert single.files["record"].parent == Path(out)
    with pytest.raises(ConfigError, match=r"no setting 'genom'; did you mean 'genome'"):
        score_file("mine.vcf", genom=genome)
    with pytest.raises(ConfigError, match="also out; put all settings into one of them"):
        score_file("mine.vcf", config(folder, tmp_path), out=out)


@pytest.mark.parametrize("column", [None, "full_label"])
def test_vcf_and_bed_give_the_same_scores_and_groups(folder: Path, tmp_path: Path, column: str | None) -> None:
    embedder = tiny_model(folder)
    options = {"consequence_column": column, "no_plot": True}
    by_bed, by_vcf = (
        score_file(folder / name, config(folder, tmp_path / name, **options), embedder=embedder)
        for name in ("mine.bed", "mine.vcf")
    )
    assert by_bed.predictions.table() == by_vcf.predictions.table()
    assert by_bed.summary == by_vcf.summary
    assert set(by_vcf.summary["groups"]) == {"missense", "synonymous"}  # type: ignore[arg-type]


def test_file_to_figure(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the figure needs matplotlib")
    done = score_file(folder / "mine.bed", config(folder, tmp_path, probe=True, csv=True), embedder=tiny_model(folder))
    assert set(done.files) == {"record", "scores", "picture", "drawing", "csv", "probe_linear", "probe_mlp"}
    assert all(path.stat().st_size for path in done.files.values())
    record = read_record(done.files["record"])
    detail = record.metrics["auroc"]["detail"]  # type: ignore[index,call-overload]
    assert set(detail["by_score"]) == set(SCORES.names())  # type: ignore[index,call-overload]
    assert set(detail["by_group"]) == {"missense", "synonymous"}  # type: ignore[index,call-overload]
    assert detail["probe"]["folds"]["by"] == "blocks of position"  # type: ignore[index,call-overload]
    assert record.value == done.summary["scores"]["score"]["auroc"]["value"]  # type: ignore[index,call-overload]
    said = read_predictions(done.files["scores"])
    assert len(said) == len(read_predictions(done.files["probe_mlp"]))
    np.testing.assert_array_equal(said.score, done.predictions.score)
    assert not (tmp_path / ".scored_variants").exists()


def test_command_scores_variants_without_labels(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", "onehot", "--genome", str(folder / "genome.fa"), "--out", str(tmp_path), "--no-plot"]
    assert main(["variants", str(folder / "bare.bed"), *flags]) == 0
    assert "0 positive, 0 negative" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.json")
    record = read_record(path)
    assert record.value is None
    table = pq.read_table(path.with_suffix(".parquet"))
    assert set(table["target"].to_pylist()) == {-100}
    assert table["score"].to_pylist() == [1.0] * len(table)


def test_training_command_gives_groups_heads_and_the_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the figure needs matplotlib")
    flags = ["--model", "onehot", "--data", "sample", "--seed", "3", "--out", str(tmp_path)]
    assert main(["train", "--task", "variant_effects_disease", *flags]) == 0
    (path,) = tmp_path.glob("*.json")
    detail = read_record(path).metrics["auroc"]["detail"]  # type: ignore[index,call-overload]
    groups, trained = detail["by_group"], detail["probe"]  # type: ignore[index,call-overload]
    said = read_predictions(path.with_suffix(".parquet"))
    assert set(groups) == set(said.columns["full_label"].to_pylist())  # type: ignore[arg-type]
    assert sum(block["n"] for block in groups.values()) == len(said)  # type: ignore[union-attr,misc,index,call-overload]
    assert trained["settings"]["seed"] == 3  # type: ignore[index,call-overload]
    assert trained["linear"]["auprc"]["chance"] == (said.target == 1).mean()  # type: ignore[index,call-overload]
    endings = {file.name.removeprefix(path.stem) for file in tmp_path.iterdir() if file.is_file()}
    assert endings == {".json", ".parquet", ".linear_probe.parquet", ".mlp_probe.parquet", ".png", ".svg"}


@pytest.mark.parametrize(("model", "n"), [(MarksG, 2), (Markov, 3)])
def test_record_counts_variants_with_less_context(folder: Path, tmp_path: Path, model: type[Embedder], n: int) -> None:
    letters = write_genome(tmp_path / "genome.fa")["chr1"]
    places = (10, 300, 400, 50_000, len(letters) - 10)  # a causal model wants 512 before, the others 256 on each side
    rows = [("chr1", at, at + 1, letters[at], "ACGT"["ACGT".index(letters[at]) - 1]) for at in places]
    bed = write_bed(tmp_path / "ends.bed", ("chromosome", "start", "end", "ref", "alt"), rows)
    done = score_file(bed, config(tmp_path, tmp_path, no_plot=True), embedder=model())
    changes = read_record(done.files["record"]).data["changes"]
    assert isinstance(changes, dict)
    assert changes["short_context"] == n
    shown = zip(*(done.predictions.columns[name].to_pylist() for name in ("left_bp", "right_bp")), strict=True)
    assert next(shown) == ((10, 256) if model is MarksG else (10, 0))


def test_command_without_matplotlib_warns_before_scoring_and_draws_nothing(folder: Path, tmp_path: Path) -> None:
    flags = ["--model", "onehot", "--genome", str(folder / "genome.fa"), "--out", str(tmp_path)]
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import bend_hf.variants.score as scoring; plain = scoring.score_batch\n"
        "scoring.score_batch = lambda *given: (print('scored', file=sys.stderr), plain(*given))[1]\n"
        "from bend_hf.cli._main import main\n"
        f"sys.exit(main({['variants', str(folder / 'mine.bed'), *flags]!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.index("matplotlib is not installed") < done.stderr.index("scored")
    assert done.stderr.count("matplotlib") == 1
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".parquet"}


def test_command_takes_the_flags_of_a_model(folder: Path, tmp_path: Path) -> None:
    flags = ["--genome", str(folder / "genome.fa"), "--out", str(tmp_path), "--no-plot", "--no-averages"]
    flags += ["--model", KEY, "--checkpoint", str(folder / "model"), "--random-init", "--seed", "3", "--layer", "1"]
    flags += ["--model-dtype", "bfloat16", "--protocol", "bend-hf-1"]
    assert main(["variants", str(folder / "bare.bed"), *flags]) == 0
    (path,) = tmp_path.glob("*.json")
    record = read_record(path)
    said = {name: record.model[name] for name in ("random_init", "layer", "dtype", "protocol")}
    assert said == {
        "random_init": True,
        "layer": 1,
        "dtype": "bfloat16",
        "protocol": "bend-hf-1",
    }
    table = pq.read_table(path.with_suffix(".parquet"))
    assert table["window_distance"].null_count == table["sequence_distance"].null_count == len(table)
    assert table["score"].null_count == 0


def test_command_reports_bad_input_before_a_model_loads(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write_bed(tmp_path / "bad.bed", ("chromosome", "start", "end", "ref", "alt"), [("chr1", 5, 6, "A", "A")])
    flags = ["--genome", str(folder / "genome.fa"), "--model", "no/such-model", "--out", str(tmp_path)]
    assert main(["variants", str(bad), *flags]) == 1
    assert "REF and ALT are both A" in capsys.readouterr().err
    assert main(["variants", str(bad)]) == 2
    assert "--genome FASTA is needed" in capsys.readouterr().err


def test_interrupted_run_resumes_and_ends_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_BATCH_VARIANTS", 16)
    embedder, options = tiny_model(folder), {"probe": True, "no_plot": True}
    whole = score_file(folder / "mine.bed", config(folder, tmp_path / "whole", **options), embedder=embedder)
    scored = []
    plain = scoring.score_batch

    def fragile(model: VariantModel, given: pa.Table) -> pa.Table:
        scored.append(given)
        if len(scored) == 3:
            raise KeyboardInterrupt
        return plain(model, given)

    monkeypatch.setattr(scoring, "score_batch", fragile)
    with pytest.raises(KeyboardInterrupt):
        score_file(folder / "mine.bed", config(folder, tmp_path / "again", **options), embedder=embedder)
    assert len(list((tmp_path / "again" / ".scored_variants").glob("*.parquet"))) == 2
    again = score_file(folder / "mine.bed", config(folder, tmp_path / "again", **options), embedder=embedder)
    n_batches = -(-len(whole.predictions) // 16)
    assert len(scored) == 3 + n_batches - 2
    for name in ("scores", "probe_linear", "probe_mlp"):
        assert pq.read_table(again.files[name]) == pq.read_table(whole.files[name])
    assert json.loads(json.dumps(again.summary)) == whole.summary


def test_other_settings_find_no_finished_batch(folder: Path, tmp_path: Path) -> None:
    source = read_variants(folder / "mine.bed", folder / "genome.fa")
    embedder, checkpoint = tiny_model(folder), ScoringCheckpoint(tmp_path / "checkpoint")
    one, other = (
        score_variants(
            source,
            embedder,
            Accelerator(cpu=True),
            ScoreSettings(likelihood=False, window_bp=window_bp),
            checkpoint=checkpoint,
        )
        for window_bp in (4, 8)
    )
    assert not set(one.keys) & set(other.keys)
    assert one.predictions.columns["window_distance"] != other.predictions.columns["window_distance"]


class Rank:
    """One of several processes."""

    def __init__(self, process_index: int, num_processes: int) -> None:
        self.process_index, self.num_processes = process_index, num_processes


def test_processes_share_the_work_and_change_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import accelerate.utils

    monkeypatch.setattr(scoring, "_BATCH_VARIANTS", 8)
    source = read_variants(folder / "mine.bed", folder / "genome.fa")
    embedder = tiny_model(folder)
    found: list[object] = []

    def gather(mine: list[object]) -> list[object]:
        found.extend(mine)
        return list(found)

    monkeypatch.setattr(accelerate.utils, "gather_object", gather)
    done = [
        score_variants(source, embedder, Rank(rank, 2), checkpoint=ScoringCheckpoint(tmp_path))  # type: ignore[arg-type]  # what is used of an Accelerator
        for rank in (0, 1)
    ]
    alone = score_variants(source, embedder, Accelerator(cpu=True))
    assert 0 < len(done[0].predictions) < len(alone.predictions)
    assert done[1].predictions.table() == alone.predictions.table()


def contents(out: Path) -> dict[str, bytes]:
    """The bytes of each file below a folder, by name."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_a_finished_command_is_not_repeated_unless_forced(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["variants", str(folder / "mine.bed"), "--genome", str(folder / "genome.fa"), "--model", "onehot"]
    argv += ["--out", str(tmp_path), "--probe", "--csv"]
    assert main(argv) == 0
    said, once = capsys.readouterr().out, contents(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(scoring, "score_batch", lambda *_: pytest.fail("scored again"))
        assert main(argv) == 0
    again = capsys.readouterr()
    assert contents(tmp_path) == once
    assert "were scored before; --force scores them again" in again.out
    assert again.out.splitlines()[1:] == said.splitlines()[1:], "the same table, heads and files"
    assert main([*argv, "--force"]) == 0
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_equal_commands_at_once_score_once(folder: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    model = tmp_path / "slow.py"
    model.write_text(f"""
import os, tempfile, time
import numpy as np

def embed(sequences):
    os.close(tempfile.mkstemp(dir={str(calls)!r})[0])
    time.sleep(0.3)
    return [np.array([[ord(base), place] for place, base in enumerate(one)], np.float32) for one in sequences]
""")

    def argv(out: str) -> list[str]:
        files = [str(folder / "mine.bed"), "--genome", str(folder / "genome.fa"), "--out", str(tmp_path / out)]
        return [sys.executable, "-m", "bend_hf", "variants", *files, "--model", str(model), "--csv", "--no-plot"]

    subprocess.run(argv("one"), check=True, capture_output=True)
    one = len(list(calls.iterdir()))
    both = [subprocess.Popen(argv("two"), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("were scored before" in text for text in said) == 1
    assert len(contents(tmp_path / "two")) == len(contents(tmp_path / "one")), "one record, its scores and its table"
    # each process asks a model of a file what it gives for some sequences
    assert one < len(list(calls.iterdir())) - one < 2 * one


def test_a_run_that_was_there_is_returned_as_it_was_scored(folder: Path, tmp_path: Path) -> None:
    embedder = tiny_model(folder)
    settings = config(folder, tmp_path, probe=True, no_plot=True)
    done = score_file(folder / "mine.bed", settings, embedder=embedder)
    again = score_file(folder / "mine.bed", settings, embedder=embedder)
    assert (done.was_there, again.was_there) == (False, True)
    assert again.predictions.table() == done.predictions.table()
    assert again.summary == json.loads(json.dumps(done.summary))
    assert again.record == read_record(done.files["record"])
    assert again.files == done.files
    assert done.probed is not None
    assert again.probed is not None
    assert again.probed.detail == json.loads(json.dumps(done.probed.detail))
    for kind, said in done.probed.predictions.items():
        assert again.probed.predictions[kind].table() == said.table()


@pytest.mark.parametrize("step", ["write_bend_csv", "draw_missing", "ScoringCheckpoint.remove"])
def test_what_failed_after_the_record_is_done_when_the_command_is_repeated(
    step: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the figure needs matplotlib")
    embedder, bed = tiny_model(folder), folder / "mine.bed"
    whole = score_file(bed, config(folder, tmp_path / "whole", csv=True), embedder=embedder)
    settings = config(folder, tmp_path / "out", csv=True)

    def full(*_: object, **__: object) -> None:
        raise RecordError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(f"bend_hf.runs.variant_file.{step}", full)
        with pytest.raises(RecordError, match="no space"):
            score_file(bed, settings, embedder=embedder)
    assert len(list((tmp_path / "out").glob("*.json"))) == 1
    with monkeypatch.context() as patched:
        patched.setattr(scoring, "score_batch", lambda *_: pytest.fail("scored again"))
        again = score_file(bed, settings, embedder=embedder)
    assert set(again.files) == set(whole.files)
    for kind in ("csv", "picture", "drawing"):
        assert again.files[kind].read_bytes() == whole.files[kind].read_bytes()
    left = {"".join(path.suffixes) for path in (tmp_path / "out").iterdir()}
    assert left == {"".join(path.suffixes) for path in (tmp_path / "whole").iterdir()}


@pytest.mark.parametrize("other", ["variants", "genome", "model", "settings", "seed", "predictions", "nothing"])
def test_whatever_affects_the_scores_gives_another_record(other: str, folder: Path, tmp_path: Path) -> None:
    for name in ("mine.bed", "genome.fa"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    out = tmp_path / "out"

    def score(weights: int = 0, **options: object) -> None:
        embedder = load_embedder(KEY, checkpoint=folder / "model", random_init=True, seed=weights, device="cpu")
        score_file(tmp_path / "mine.bed", config(tmp_path, out, no_plot=True, **options), embedder=embedder)

    score()
    if other == "variants":
        bed = (tmp_path / "mine.bed").read_text()
        (tmp_path / "mine.bed").write_text(bed.rstrip("\n").rpartition("\n")[0] + "\n")
    elif other == "genome":
        with (tmp_path / "genome.fa").open("a") as file:
            file.write(">more\nACGT\n")
    elif other == "predictions":
        next(out.glob("*.parquet")).unlink()
    options: dict[str, dict[str, object]] = {"settings": {"window_bp": 4}, "seed": {"seed": 1}}
    score(weights=int(other == "model"), **options.get(other, {}))
    expected = 1 if other == "nothing" else 2
    assert len(list(out.glob("*.json"))) == expected


def test_predictions_that_were_changed_are_refused_until_forced(folder: Path, tmp_path: Path) -> None:
    embedder, settings = tiny_model(folder), config(folder, tmp_path, no_plot=True)
    done = score_file(folder / "mine.bed", settings, embedder=embedder)
    done.files["scores"].write_bytes(done.files["scores"].read_bytes()[:-1] + b"x")
    with pytest.raises(RecordError, match="repeat the run"):
        score_file(folder / "mine.bed", settings, embedder=embedder)
    forced = score_file(folder / "mine.bed", config(folder, tmp_path, no_plot=True, force=True), embedder=embedder)
    assert forced.files["record"] != done.files["record"]


def test_insertions_alone_have_no_figure_and_end_well(folder: Path, tmp_path: Path) -> None:
    letters = write_genome(tmp_path / "genome.fa")["chr1"]
    rows = [("chr1", at, at + 1, letters[at], letters[at] + "ACGT"[at % 4] * 2) for at in range(1000, 5000, 1000)]
    bed = write_bed(tmp_path / "mine.bed", ("chromosome", "start", "end", "ref", "alt"), rows)
    done = score_file(bed, config(tmp_path, tmp_path / "out", indels="likelihood"), embedder=Markov())
    assert set(done.files) == {"record", "scores"}


@pytest.mark.parametrize("step", ["plots.draw_missing", "checkpoint.ScoringCheckpoint.remove"])
def test_what_failed_after_the_record_of_a_task_is_done_when_the_command_is_repeated(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="the figure needs matplotlib")
    argv = ["train", "--task", "variant_effects_disease", "--model", "onehot", "--data", "sample", "--limit", "40"]

    def full(*_: object, **__: object) -> None:
        raise RecordError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(f"bend_hf.variants.{step}", full)
        assert main([*argv, "--out", str(tmp_path)]) == 1
    assert "no space" in capsys.readouterr().err
    assert (tmp_path / ".scored_variants").is_dir()
    with monkeypatch.context() as patched:
        patched.setattr(scoring, "score_batch", lambda *_: pytest.fail("scored again"))
        assert main([*argv, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    endings = {file.name.removeprefix(path.stem) for file in tmp_path.iterdir()}
    assert {".png", ".svg"} <= endings
    assert not (tmp_path / ".scored_variants").exists()
