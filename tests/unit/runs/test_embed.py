"""``bend-hf embed``: several models and tasks, splits by BEND's name, shards of any size, and plain BED files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import datasets
import pytest

from bend_hf.cli._main import main
from bend_hf.embedders.cache.manage import EntryInfo, list_entries
from bend_hf.errors import ConfigError, GenomeError
from bend_hf.runs.embed import EmbedConfig, embed
from bend_hf.runs.forecast import forecast_embedding
from tests.tiny import write_bed, write_data

GENES, WINDOWS, VARIANTS = "gene_finding", "cpg_methylation", "variant_effects_disease"
CODE = "import numpy as np\ndef embed(sequences): return [np.full((len(one), {width}), 0.5) for one in sequences]\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), (GENES, WINDOWS, VARIANTS), n=20)


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    for name, width in (("two", 2), ("three", 3)):
        (tmp_path / f"{name}.py").write_text(CODE.format(width=width))
    return [str(tmp_path / "two.py"), str(tmp_path / "three.py")]


@pytest.fixture
def config(data: Path, models: list[str], tmp_path: Path) -> EmbedConfig:
    return EmbedConfig(task=(GENES,), data=str(data), model=models[0], cache=tmp_path / "cache")


def labels(folder: Path) -> set[tuple[str, int]]:
    return {(entry.plan.label, entry.plan.width) for entry in list_entries(folder) if entry.plan is not None}


def entries(folder: Path) -> list[EntryInfo]:
    return list_entries(folder)


def test_valid_is_the_validation_split(config: EmbedConfig, tmp_path: Path) -> None:
    (one,) = embed(replace(config, splits=("valid",)))
    assert one.label == f"{GENES} validation"
    assert labels(tmp_path / "cache") == {(f"{GENES} validation", 2)}


def test_several_models_embed_several_tasks_at_once(
    config: EmbedConfig, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(config.data), "--cache", str(tmp_path / "cache"), "--splits", "valid", "test"]
    assert main(["embed", GENES, WINDOWS, "--model", *models, *words]) == 0
    assert labels(tmp_path / "cache") == {
        (f"{task} {split}", width) for task in (GENES, WINDOWS) for split in ("validation", "test") for width in (2, 3)
    }
    capsys.readouterr()
    assert main(["embed", GENES, WINDOWS, "--model", *models, *words, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("two.py", "three.py", GENES, WINDOWS, "validation"))


def test_a_split_counts_for_the_tasks_that_have_it(
    config: EmbedConfig, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO")
    embed(replace(config, task=(GENES, VARIANTS), splits=("train",)))
    assert labels(tmp_path / "cache") == {(f"{GENES} train", 2)}
    assert f"{VARIANTS} is left out: it is scored without training" in caplog.text
    with pytest.raises(ConfigError, match="has no split 'trian'; did you mean 'train'"):
        embed(replace(config, splits=("trian",)))
    with pytest.raises(ConfigError, match="is scored without training and caches no embeddings"):
        embed(replace(config, task=(VARIANTS,)))


def test_the_size_of_shards_can_be_set(config: EmbedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.shard_bytes == 1 << 29
    monkeypatch.setattr("bend_hf.runs.embed._MB", 2000)  # so that tiny data has several
    small = replace(config, shard_mb=1, splits=("train",))
    (foreseen,) = forecast_embedding(replace(small, model="bend-mini"))
    assert foreseen.n_shards >= 2
    (one,) = embed(small)
    assert one.n_shards >= 2
    with pytest.raises(ConfigError, match="--shard-mb is 0; it must be 1 or more"):
        replace(config, shard_mb=0)


ROWS = [("chr1", 10, 60, "-"), ("chr2", 0, 45, "+"), ("chr1", 100, 107, "+")]


def test_a_bed_file_without_splits_and_labels_is_embedded(
    data: Path, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bed = write_bed(tmp_path / "mine.bed", ("chromosome", "start", "end", "strand"), ROWS)
    genome, cache = data / "genomes" / "genome.fa", tmp_path / "cache"
    words = ["embed", "--bed", str(bed), "--genome", str(genome), "--model", models[0], "--cache", str(cache)]
    assert main([*words, "--dry-run"]) == 0
    assert "mine" in capsys.readouterr().out
    assert main(words) == 0
    (entry,) = entries(cache)
    assert labels(cache) == {("mine all", 2)}
    stored = datasets.load_from_disk(entry.path)
    assert list(stored["start"]) == [10, 0, 100]
    assert [sum(lengths) for lengths in stored["token_bp"]] == [50, 45, 7]

    write_bed(bed, ("chromosome", "start", "end", "strand"), [*ROWS[:2], ("chr1", 100, 120, "+")])
    assert main(words) == 0  # the changed file is read again
    assert {sum(datasets.load_from_disk(one.path)["token_bp"][2]) for one in entries(cache)} == {7, 20}


def test_the_splits_of_a_bed_file_without_labels_are_kept_apart(config: EmbedConfig, tmp_path: Path) -> None:
    rows = [("chr1", 10, 60, "valid"), ("chr2", 0, 45, "train"), ("chr1", 100, 107, "train")]
    bed = write_bed(tmp_path / "mine.bed", ("chromosome", "start", "end", "split"), rows)
    genome = Path(str(config.data)) / "genomes" / "genome.fa"
    plain = replace(config, task=(), data=None, bed=bed, genome=genome)
    embed(plain)
    assert labels(tmp_path / "cache") == {("mine validation", 2), ("mine train", 2)}
    with pytest.raises(ConfigError, match="needs --genome"):
        embed(replace(plain, genome=None))
    write_bed(bed, ("chromosome", "start", "end"), [("chr9", 10, 60)])
    with pytest.raises(GenomeError, match="chr9"):
        embed(plain)


def test_a_share_is_all_that_is_computed_without_leases(config: EmbedConfig, tmp_path: Path) -> None:
    one_each = replace(config, splits=("train",))  # the data are small: one shard
    (done,) = embed(replace(one_each, shard="1/2", no_leases=True))
    assert (done.n_computed, done.n_finished, done.n_shards) == (0, 0, 1)
    (done,) = embed(replace(one_each, shard="0/2", no_leases=True))
    assert (done.n_computed, done.n_finished) == (1, 1)
    (other,) = embed(replace(one_each, shard="1/2", cache=tmp_path / "leased"))
    assert (other.n_computed, other.n_finished) == (1, 1), "with leases, a worker helps the others"


@pytest.mark.parametrize("text", ["2/2", "3", "a/b", "1/0", "-1/2", "/2", "1/"])
def test_a_malformed_share_is_refused(config: EmbedConfig, text: str) -> None:
    with pytest.raises(ConfigError, match="expected I/N with I from 0 to N-1"):
        replace(config, shard=text)
