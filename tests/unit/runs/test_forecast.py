"""``--dry-run`` counts what a command would do, and does none of it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import bend_hf
from bend_hf.cli._main import main
from bend_hf.config import RunConfig
from bend_hf.data.dataset import load_task
from bend_hf.embedders import MODELS, _loaded_model
from bend_hf.embedders._loaded_model import LoadedModel
from bend_hf.embedders.cache.manage import list_entries
from bend_hf.runs import forecast
from bend_hf.runs.forecast import Speed, facts_of, forecast_runs
from tests.fake_checkpoints import make_tiny
from tests.tiny import write_bed, write_data, write_genome

MODEL = "dnabert6"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of two tasks, and a tiny model with weights."""
    from bend_hf.embedders import load_embedder

    out = tmp_path_factory.mktemp("forecast")
    write_data(out / "data", ["gene_finding", "cpg_methylation"], n=24)
    make_tiny(MODEL, out / "model")
    network: Any = load_embedder(MODEL, checkpoint=out / "model", random_init=True).model
    network.save_pretrained(out / "model")
    return out


@pytest.fixture
def flags(folder: Path, tmp_path: Path) -> list[str]:
    return [
        "--data",
        str(folder / "data"),
        "--model",
        MODEL,
        "--checkpoint",
        str(folder / "model"),
        "--cache",
        str(tmp_path / "cache"),
        "--device",
        "cpu",
    ]


def files_below(*folders: Path) -> dict[str, int]:
    """Every file and folder, with the time of its last change; notes of hashes, which any command makes, left out."""
    return {
        str(path): path.stat().st_mtime_ns
        for folder in folders
        for path in folder.rglob("*")
        if "sha256" not in path.parts
    }


def dry(argv: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main([*argv, "--dry-run", "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a model is opened with its weights."""
    load = LoadedModel.__init__

    def only_random(self: LoadedModel, *arguments: Any, **options: Any) -> None:
        assert options.get("random_init"), "a model was opened with its weights"
        load(self, *arguments, **options)

    monkeypatch.setattr(_loaded_model.LoadedModel, "__init__", only_random)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("command", ["train", "run", "embed"])
def test_a_dry_run_writes_nothing_and_loads_no_weights(
    command: str, folder: Path, tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    places = [tmp_path, folder, Path(os.environ["HF_HOME"]), Path(os.environ["BEND_HF_CACHE"])]
    before = files_below(*places)
    out = [] if command == "embed" else ["--out", str(tmp_path / "out")]
    found = dry([command, "gene_finding", *flags, *out], capsys)
    assert [(one["split"], one["state"]) for one in found] == [
        ("train", "not cached"),
        ("validation", "not cached"),
        ("test", "not cached"),
    ]
    assert files_below(*places) == before


def test_the_forecast_is_what_is_then_written(
    tmp_path: Path, folder: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = dry(["embed", "gene_finding", *flags], capsys)
    assert main(["embed", "gene_finding", *flags]) == 0
    entries = {entry.plan.label: entry for entry in list_entries(tmp_path / "cache") if entry.plan is not None}
    for one in expected:
        entry = entries[f"gene_finding {one['split']}"]
        assert entry.plan is not None
        assert (one["n_items"], one["n_bp"]) == (entry.plan.items, entry.plan.nucleotides)
        assert one["n_shards"] == entry.plan.n_shards
        arrow = sum(path.stat().st_size for path in entry.path.glob("*.arrow"))
        assert abs(one["n_bytes"] - arrow) < 0.1 * arrow + 10_000
        assert one["seconds"] > 0
    now = dry(["train", "gene_finding", *flags], capsys)
    assert {(one["state"], one["n_bytes"], one["seconds"]) for one in now} == {("cached", 0, 0)}
    limited = dry(["train", "gene_finding", *flags, "--limit", "3"], capsys)
    assert {(one["n_items"], one["state"]) for one in limited} == {(3, "not cached")}
    other = dry(["train", "gene_finding", *flags, "--layer", "1"], capsys)
    assert {one["state"] for one in other} == {"not cached"}
    for path in entries["gene_finding test"].path.glob("shard*.json"):
        path.unlink()
    again = {one["split"]: one["state"] for one in dry(["train", "gene_finding", *flags], capsys)}
    assert again == {"train": "cached", "validation": "cached", "test": "not cached"}


def test_embeddings_of_another_split_of_the_same_size_are_not_taken_for_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data", ("cpg_methylation",), n=20)  # five sequences each in validation and test
    words = [
        "embed",
        "cpg_methylation",
        "--data",
        str(data),
        "--model",
        "bend-mini",
        "--cache",
        str(tmp_path / "cache"),
    ]
    assert main([*words, "--splits", "test"]) == 0
    states = {one["split"]: one["state"] for one in dry(words, capsys)}
    assert states == {"train": "not cached", "validation": "not cached", "test": "cached"}


def test_the_forecast_of_a_linear_head_is_that_of_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    flags = [
        "cpg_methylation",
        "--data",
        "sample",
        "--model",
        "bend-mini",
        "--head",
        "linear",
        "--limit",
        "20",
        *places,
    ]
    expected = dry(["train", *flags], capsys)
    assert main(["train", *flags, "--epochs", "1"]) == 0
    entries = {entry.plan.label: entry for entry in list_entries(tmp_path / "cache") if entry.plan is not None}
    for one in expected:
        entry = entries[f"cpg_methylation {one['split']}"]
        assert entry.plan is not None
        assert (one["n_items"], one["n_bp"]) == (entry.plan.items, entry.plan.nucleotides) == (20, 20 * 512)
        assert (one["state"], one["n_shards"]) == ("not cached", entry.plan.n_shards)
        arrow = sum(path.stat().st_size for path in entry.path.glob("*.arrow"))
        assert one["n_bytes"] == pytest.approx(arrow, rel=0.1)
    assert {(one["state"], one["n_bytes"]) for one in dry(["train", *flags], capsys)} == {("cached", 0)}
    assert (
        main(["embed", *flags[:5], "--splits", "validation", "--cache", str(tmp_path / "tokens"), "--device", "cpu"])
        == 0
    )
    whole = dry(["train", *flags[:7], "--cache", str(tmp_path / "tokens"), "--device", "cpu"], capsys)
    assert {one["split"]: one["state"] for one in whole} == {
        "train": "not cached",
        "validation": "cached",  # means are taken from token embeddings
        "test": "not cached",
    }


def test_the_time_is_the_measured_rate_times_the_nucleotides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths: list[float] = []

    def rate(_: Speed, length_bp: float) -> float:
        lengths.append(length_bp)
        return 0.5

    monkeypatch.setattr(Speed, "seconds_per_bp", rate)
    found = dry(
        ["train", "cpg_methylation", "variant_effects_disease", "--data", "sample", "--model", "bend-mini"], capsys
    )
    assert [one["seconds"] for one in found] == [pytest.approx(0.5 * one["n_bp"]) for one in found]
    variants = found[-1]
    assert variants["n_bp"] == 3 * 513 * variants["n_items"], "both alleles, and the site with a mask"
    assert lengths == [512, 512, 512, 513]


def test_the_rate_of_a_model_is_measured_without_its_weights(no_weights: None) -> None:
    speed = facts_of(RunConfig(task=("cpg_methylation",), model="bend-mini", device="cpu")).speed
    assert speed is not None
    started = time.perf_counter()
    rate = speed.seconds_per_bp(512)
    assert 0 < rate < (time.perf_counter() - started) / 512
    assert speed.seconds_per_bp(500) == rate, "measured once"


def test_items_and_nucleotides_are_those_of_the_data(
    folder: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = dry(["train", "gene_finding", "cpg_methylation", *flags[:2], "--model", "onehot"], capsys)
    assert len(found) == 6
    for one in found:
        subset = load_task(one["task"], str(folder / "data")).subsets[one["split"]]
        assert (one["n_items"], one["n_bp"]) == (len(subset), sum(map(len, subset["sequence"])))
        assert (one["state"], one["n_bytes"]) == ("not stored", 0)


def test_variants_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letters = write_genome(tmp_path / "genome.fa")
    rows = [
        ("chr1", at, at + 1, letters["chr1"][at], "ACGTA"["ACGT".index(letters["chr1"][at]) + 1]) for at in (600, 700)
    ]
    write_bed(tmp_path / "v.bed", ("chromosome", "start", "end", "ref", "alt"), rows)
    before = files_below(tmp_path)
    argv = [
        "variants",
        str(tmp_path / "v.bed"),
        "--genome",
        str(tmp_path / "genome.fa"),
        "--out",
        str(tmp_path / "out"),
    ]
    (found,) = dry([*argv, "--model", "onehot"], capsys)
    assert (found["task"], found["n_items"], found["state"]) == ("v", 2, "not stored")
    assert files_below(tmp_path) == before


def test_the_forecast_of_scored_variants_is_what_is_then_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = Path(bend_hf.__file__).parent / "sample"
    lines = (sample / "variant_effects" / "variant_effects_disease.bed").read_text().splitlines(keepends=True)
    (tmp_path / "v.bed").write_text("".join(lines[:41]))
    genome = ["--genome", str(sample / "genomes" / "sample.fa.gz")]
    argv = ["variants", str(tmp_path / "v.bed"), *genome, "--out", str(tmp_path / "out"), "--model", "bend-mini"]
    (expected,) = dry(argv, capsys)
    assert (expected["n_items"], expected["n_bp"]) == (40, 40 * 3 * 513)
    assert main(argv) == 0
    assert expected["n_bytes"] == pytest.approx(
        sum(one.stat().st_size for one in (tmp_path / "out").iterdir()), rel=0.1
    )


@pytest.mark.parametrize("strands", [[], ["--both-strands"]], ids=["one strand", "both strands"])
@pytest.mark.parametrize("key", ["caduceus-ph", "hyenadna-tiny-1k-hf"], ids=["masked", "causal"])
def test_as_many_nucleotides_are_expected_for_variants_as_a_model_reads(
    key: str, strands: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Path(bend_hf.__file__).parent / "sample"
    rows = (sample / "variant_effects" / "variant_effects_disease.bed").read_text().splitlines(keepends=True)
    sites = {tuple(row.split("\t")[:3]): row for row in rows}  # alternatives of one site share the reference
    (tmp_path / "v.bed").write_text("".join(list(sites.values())[:11]))
    genome = ["--genome", str(sample / "genomes" / "sample.fa.gz")]
    settings = make_tiny(key, tmp_path / "model") / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"max_seq_len": 1026}))  # a window is one chunk
    model = ["--model", key, "--checkpoint", str(tmp_path / "model"), "--random-init"]
    argv = ["variants", str(tmp_path / "v.bed"), *genome, "--out", str(tmp_path / "out"), *model, *strands]
    (expected,) = dry(argv, capsys)
    read, look_up = [], torch.nn.functional.embedding

    def counted(ids: torch.Tensor, *args: Any, **keywords: Any) -> Any:
        read.append(ids.numel())
        return look_up(ids, *args, **keywords)

    monkeypatch.setattr(torch.nn.functional, "embedding", counted)
    assert main(argv) == 0
    assert expected["n_bp"] == pytest.approx(sum(read), rel=0.1)


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["train", "gene_findng"], 2, "did you mean 'gene_finding'"),
        (["run", "gene_finding", "--model", "onehott"], 2, "did you mean 'onehot'"),
        (["embed", "gene_finding", "--data", "sample", "--splits", "trian"], 2, "did you mean 'train'"),
        (["train", "gene_finding", "--data", "missing"], 1, "is not a folder"),
        (["train", "gene_finding", "--data", "sample", "--model", "onehot", "--layer", "1"], 2, "has no weights"),
    ],
)
def test_a_dry_run_refuses_what_the_run_refuses(
    argv: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--dry-run"]) == status
    assert said in capsys.readouterr().err


def test_models_that_are_not_here_are_known_by_their_declaration() -> None:
    (train, *_) = forecast_runs(RunConfig(task=("cpg_methylation",), data="sample"), ["dnabert2"])
    assert train.n_bytes is not None
    assert train.seconds is not None
    assert train.state == "not known"
    facts = facts_of(RunConfig(task=("cpg_methylation",), model="dnabert2"))
    assert (facts.width, facts.n_parameters, facts.identity) == (768, MODELS.get("dnabert2").n_parameters, None)


def test_the_table_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "gene_finding", "cpg_methylation", "--data", "sample", "--model", "onehot", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == [
        "task",
        "split",
        "model",
        "items",
        "Mbp",
        "shards",
        "GB",
        "time",
        "embeddings",
    ]
    rows = [line.split() for line in out.splitlines() if line.startswith(("gene", "cpg"))]
    total = next(line.split() for line in out.splitlines() if line.startswith("all"))
    assert int(total[1].replace(",", "")) == sum(int(row[3].replace(",", "")) for row in rows)
    assert forecast.HEADS_NOTE in out
    assert out.splitlines()[-1] == "dry run: nothing was computed or written"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("run", "gene_finding", "--model", f"{MODEL}=nofolder"), "there is no checkpoint folder nofolder"),
        (("train", "gene_finding", "--model", MODEL, "--checkpoint", "./no"), "there is no checkpoint folder no"),
        (("embed", "gene_finding", "--model", "./no/folder"), "there is no checkpoint folder no/folder"),
        (("embed", "gene_finding", "--model", "nofile.py"), "there is no file nofile.py"),
    ],
)
@pytest.mark.parametrize("dry", [("--dry-run",), ()])
def test_a_model_that_is_not_there_is_refused(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    said: str,
    dry: tuple[str],
) -> None:
    out = () if command[0] == "embed" else ("--out", str(tmp_path / "results"))
    assert main([*command, "--data", str(folder / "data"), *out, *dry]) != 0
    assert said in capsys.readouterr().err.replace(f"{Path.cwd()}/", "")
