"""Where data are looked for, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from bend_hf.config import DataConfig
from bend_hf.data.dataset import task_openers
from bend_hf.data.sources import (
    BuiltSource,
    TaskFiles,
    default_data,
    find_genome,
    find_source,
    label_citations,
    label_license,
    sources_of,
)
from bend_hf.errors import ConfigError, RegistryError, SourceError
from bend_hf.tasks import BEND, TASKS
from tests.tiny import write_data, write_genome

HISTONE = TASKS.get("histone_modification")


def test_both_layouts_are_found(tmp_path: Path) -> None:
    folder = write_data(tmp_path, ["histone_modification"])
    nested = find_source(HISTONE, data=str(folder))
    (folder / "histone_modification" / "histone_modification.bed").rename(folder / "histone_modification.bed")
    flat = find_source(HISTONE, data=str(folder))
    assert isinstance(nested, TaskFiles)
    assert isinstance(flat, TaskFiles)
    assert flat.bed == folder / "histone_modification.bed"
    assert nested.genome == flat.genome == folder / "genomes" / "genome.fa"


def test_a_genome_that_is_named_wins(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "a", ["histone_modification"])
    other = write_data(tmp_path / "b", []) / "genomes" / "genome.fa"
    source = find_source(HISTONE, data=str(folder), genome=other)
    assert isinstance(source, TaskFiles)
    assert source.genome == other


def test_the_genome_of_the_tasks_build_is_chosen(tmp_path: Path) -> None:
    genomes = tmp_path / "genomes"
    genomes.mkdir()
    for name in ("GRCh38.primary_assembly.genome.fa", "GRCh37.no-chr.fa"):
        (genomes / name).write_text(">1\nA\n")
    assert find_genome(tmp_path, HISTONE).name == "GRCh38.primary_assembly.genome.fa"
    assert find_genome(tmp_path, TASKS.get("chromatin_accessibility")).name == "GRCh37.no-chr.fa"
    (genomes / "GRCh38.other.fa").write_text(">1\nA\n")
    with pytest.raises(SourceError, match=r"holds 3 genomes.*2 of them named for GRCh38.*--genome"):
        find_genome(tmp_path, HISTONE)


def test_without_data_the_sample_is_used_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = default_data(HISTONE)
    assert found.data == "sample"
    assert "NOT BEND's DATA" in found.message
    write_data(tmp_path / "data", ["histone_modification"])
    assert default_data(HISTONE).data == "data"
    assert default_data(TASKS.get("gene_finding")).data == "sample"
    monkeypatch.setenv("BEND_DATA_DIR", str(write_data(tmp_path / "elsewhere", ["gene_finding"])))
    assert default_data(TASKS.get("gene_finding")).data == str(tmp_path / "elsewhere")
    assert default_data(HISTONE).data == "sample"
    monkeypatch.setenv("BEND_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match=r"BEND_DATA_DIR is .*nowhere.*not a folder"):
        default_data(HISTONE)


def test_hub_and_unknown_folders(tmp_path: Path) -> None:
    assert find_source(HISTONE, data="hub") == BuiltSource(task=HISTONE, repo="bend/histone_modification", origin="hub")
    with pytest.raises(SourceError, match="is not a folder; pass 'sample', 'hub'"):
        find_source(HISTONE, data=str(tmp_path / "none"))


def test_a_group_stands_for_its_tasks() -> None:
    found = sources_of(DataConfig(task=("variant_effects",), data="sample"))
    assert [source.key for source, _ in found if isinstance(source, TaskFiles)] == [
        "variant_effects_disease",
        "variant_effects_expression",
    ]


def test_unknown_tasks_name_their_neighbour() -> None:
    with pytest.raises(RegistryError, match="unknown task 'gene_findng'; did you mean 'gene_finding'"):
        sources_of(DataConfig(task=("gene_findng",), data="sample"))


def test_a_configuration_needs_a_task_or_a_bed() -> None:
    with pytest.raises(ConfigError, match="no task is given"):
        DataConfig()
    with pytest.raises(ConfigError, match="belong to one task"):
        DataConfig(task=("a", "b"), bed=Path("x.bed"))


@pytest.mark.parametrize(("origin", "claims"), [("folder", True), ("hub", True), ("files", False), ("sample", False)])
def test_the_license_and_the_sources_of_labels_are_those_of_the_task_only_for_its_own_files(
    origin: str, claims: bool
) -> None:
    assert (label_license(HISTONE, origin) == HISTONE.license) is claims
    assert (label_citations(HISTONE, origin) == HISTONE.citations) is claims
    assert BEND in label_citations(HISTONE, origin)
    assert label_license(None, origin) != HISTONE.license


@pytest.mark.parametrize("name", ["mine.bed", "mine.vcf"])
def test_flags_of_variants_apply_to_a_users_own_variants(tmp_path: Path, name: str) -> None:
    contigs = write_genome(tmp_path / "genome.fa")
    bases = [contigs["chr1"][at] for at in (10, 20)]
    others = ["ACGT"[("ACGT".index(base) + 1) % 4] for base in bases]
    if name.endswith(".vcf"):
        lines = [f"chr1\t{at + 1}\t.\t" for at in (10, 20)]
        header = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        ends = ["\t.\t.\tlabel=1\n", "\t.\t.\tlabel=0\n"]
    else:
        lines = [f"chr1\t{at}\t{at + 1}\t" for at in (10, 20)]
        header, ends = "Chromosome\tStart\tEnd\tREF\tALT\tlabel\n", ["\t1\n", "\t0\n"]
    text = f"{lines[0]}{bases[0]}\t{others[0]}{ends[0]}" + f"{lines[1]}{others[1]}\t{bases[1]}{ends[1]}"
    (tmp_path / name).write_text(header + text)
    config = DataConfig(bed=tmp_path / name, genome=tmp_path / "genome.fa", ref_mismatch="drop")
    (open_one,) = task_openers(config).values()
    changes = open_one().facts["changes"]
    assert isinstance(changes, dict)
    assert changes["rows_dropped_ref_mismatch"] == 1
    with pytest.raises(ConfigError, match="--out-of-bounds is pad, but mine has variants"):
        sources_of(DataConfig(bed=tmp_path / name, genome=tmp_path / "genome.fa", out_of_bounds="pad"))
