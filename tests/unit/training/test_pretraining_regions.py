"""Regions and the parting of a genome: what they hold, and what they say about places that are not right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bend_hf.data.genome import Genome
from bend_hf.errors import ConfigError, GenomeError, InputError
from bend_hf.training.pretraining.regions import Regions
from bend_hf.training.pretraining.splits import HoldOut, split
from tests.tiny import CONTIGS, write_bed, write_genome


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    write_genome(path)
    return Genome(path)


@pytest.fixture
def bed(tmp_path: Path) -> Path:
    rows = [("chr2", 50, 90), ("chr1", 10, 20), ("chr1", 15, 30), ("chr1", 30, 40), ("chr2", 7, 7)]
    return write_bed(tmp_path / "some.bed", ("chromosome", "start", "end"), rows)


def test_a_bed_is_read_as_the_union_of_its_rows_and_a_variant_as_its_nucleotide(genome: Genome, bed: Path) -> None:
    assert Regions.of_bed(bed, genome).places() == ["chr1:10-40", "chr2:7-8", "chr2:50-90"]


def test_places_beds_and_contigs_can_be_named_together(genome: Genome, bed: Path) -> None:
    named = Regions.of_any([str(bed), "chr2:1,000-2_000", "chr2:60-100"], genome)
    assert named.places() == ["chr1:10-40", "chr2:7-8", "chr2:50-100", "chr2:1000-2000"]
    assert Regions.of_any(["chr1", bed], genome).places()[0] == f"chr1:0-{CONTIGS['chr1']}"
    assert Regions.of_any([], genome).total_bp == 0


def test_a_contig_whose_name_looks_like_a_place_is_a_contig(tmp_path: Path) -> None:
    (tmp_path / "hla.fa").write_text(">HLA:1-3\nACGTACGT\n")
    assert Regions.of_places(["HLA:1-3", "HLA:1-3:6-8"], Genome(tmp_path / "hla.fa")).places() == ["HLA:1-3:0-8"]


def test_margins_end_at_the_ends_of_a_contig(genome: Genome) -> None:
    left = Regions.of_genome(genome).minus(Regions.of_places(["chr1:119990-120000"], genome), margin_bp=50)
    assert left.places() == ["chr1:0-119940", "chr2:0-140000"]


@pytest.mark.parametrize(
    ("place", "error", "text"),
    [
        ("chr3:1-2", GenomeError, "has no contig 'chr3'"),
        ("chr1:5-120001", GenomeError, "chr1 of .* has 120000 bp"),
        ("chr1:7-7", InputError, r"start \(7\) must be smaller than end \(7\)"),
        ("chr1:a-b", InputError, "neither a BED file nor a region"),
        ("nowhere.bed", InputError, "neither a BED file nor a region"),
        ("1", InputError, "has no contig '1'"),
    ],
)
def test_a_place_that_is_not_right_is_named_with_the_reason(
    genome: Genome, place: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Regions.of_any([place], genome)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (("chrX", 1, 2), "has no contig 'chrX'; did you mean"),
        (("chr1", 119_999, 120_001), r"line 3 \(chr1:119999-120001\); check that the BED file belongs"),
    ],
)
def test_a_bed_row_outside_the_genome_is_named(
    genome: Genome, tmp_path: Path, row: tuple[object, ...], text: str
) -> None:
    bed = write_bed(tmp_path / "bad.bed", ("chromosome", "start", "end"), [("chr1", 0, 5), row])
    with pytest.raises(GenomeError, match=text):
        Regions.of_bed(bed, genome)


def test_regions_of_two_genomes_do_not_mix(genome: Genome, tmp_path: Path) -> None:
    (tmp_path / "other.fa").write_text(">chr1\nACGT\n")
    with pytest.raises(ValueError, match="two genomes"):
        Regions.of_genome(genome).minus(Regions.of_genome(Genome(tmp_path / "other.fa")))
    with pytest.raises(ValueError, match="margin_bp is -1"):
        Regions.of_genome(genome).minus(Regions.of_genome(genome), margin_bp=-1)


def test_named_blocks_are_held_out_inside_the_bed_and_outside_what_is_excluded(genome: Genome, tmp_path: Path) -> None:
    bed = write_bed(tmp_path / "use.bed", ("chromosome", "start", "end"), [("chr1", 0, 1000), ("chr2", 0, 500)])
    parts = split(genome, HoldOut(regions=["chr1:800-2000"]), bed=bed, exclude=["chr1:850-860"], margin_bp=10)
    assert parts.held_out.places() == ["chr1:800-850", "chr1:860-1000"]
    assert parts.train.places() == ["chr1:0-790", "chr2:0-500"]


def test_chosen_blocks_are_whole_squares_of_the_grid_and_follow_the_seed(genome: Genome) -> None:
    chosen = [split(genome, HoldOut(fraction=0.2, block_bp=10_000, seed=seed)).held_out for seed in (1, 1, 2)]
    assert chosen[0].places() == chosen[1].places() != chosen[2].places()
    for held in chosen:
        assert (held.start_bp % 10_000 == 0).all()
        assert (held.end_bp % 10_000 == 0).all()
        assert 0.2 <= held.total_bp / sum(CONTIGS.values()) < 0.2 + 10_000 / sum(CONTIGS.values())


def test_a_block_of_unknown_nucleotides_is_never_held_out(tmp_path: Path) -> None:
    (tmp_path / "gap.fa").write_text(">chr1\n" + ("ACGT" * 25 + "N" * 100) * 20 + "\n")
    genome = Genome(tmp_path / "gap.fa")
    for seed in range(5):
        held = split(genome, HoldOut(fraction=0.3, block_bp=100, seed=seed)).held_out
        assert ((held.start_bp // 100) % 2 == 0).all()
        assert held.total_bp == 600


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"fraction": 0.0}, "held_out_fraction is 0.0; expected a fraction above 0"),
        ({"fraction": 0.6}, "at most 0.5"),
        ({"fraction": 0.05}, "choose a smaller block_bp"),
        ({"block_bp": 0}, "block_bp is 0"),
        ({"margin_bp": -1}, "margin_bp is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"regions": ["chr1", "chr2"]}, "nothing is left to train on"),
        ({"regions": ["chr1"], "exclude": ["chr1"]}, "nothing is left to hold out"),
        ({"exclude": ["chr1", "chr2"]}, "whole blocks of .* bp give 0"),
    ],
)
def test_a_split_that_cannot_be_is_refused_with_the_reason(genome: Genome, options: dict[str, Any], text: str) -> None:
    of_hold_out = {"regions", "fraction", "block_bp", "seed"} & options.keys()
    hold_out = HoldOut(**{name: options[name] for name in of_hold_out})
    others = {name: value for name, value in options.items() if name not in of_hold_out}
    with pytest.raises(ConfigError, match=text):
        split(genome, hold_out, **others)


def test_overlaps_tells_touching_from_sharing(genome: Genome) -> None:
    some = Regions.of_places(["chr1:10-20"], genome)
    contig, start_bp, end_bp = np.array([[0, 5, 10], [0, 5, 11], [0, 20, 25], [0, 19, 25], [1, 10, 20]]).T
    assert some.overlaps(contig, start_bp, end_bp).tolist() == [False, True, False, True, False]
