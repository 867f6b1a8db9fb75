"""Which assembly a genome is, by the lengths of its contigs."""

from __future__ import annotations

import pytest

from bend_hf.data.assembly import assembly_of


@pytest.mark.parametrize(
    ("contigs", "assembly"),
    [
        ({"chr1": 249_250_621, "chr20": 63_025_520}, "GRCh37"),
        ({"20": 63_025_520, "GL000191.1": 106_433}, "GRCh37"),
        ({"chr1": 248_956_422, "chrY": 57_227_415, "chrUn_x": 5}, "GRCh38"),
        ({"chrX": 154_259_566}, "T2T-CHM13v2.0"),
        ({"chr1": 248_956_422, "chr20": 63_025_520}, None),
        ({"chr1": 5_000}, None),
        ({"contig": 63_025_520}, None),
        ({}, None),
    ],
)
def test_the_assembly_is_the_one_that_all_chromosomes_fit(contigs: dict[str, int], assembly: str | None) -> None:
    assert assembly_of(contigs) == assembly
